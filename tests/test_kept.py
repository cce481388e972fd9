"""Laws of the small files for the next run: one step whoever else writes, whole or not at all, and no entry lost."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshfw import KeptFile, StateError
from meshfw.backends.spellings import KnownTexts
from meshfw.files import kept
from meshfw.files.kept import make_kept, opened_directory, read_kept, write_kept, write_private
from meshfw.model import Family

WRITERS = 4
ROUNDS = 60
WRITE = """
import sys
from meshfw import KeptFile, StateError
from meshfw.files.kept import write_kept
for number in range(int(sys.argv[3])):
    write_kept(sys.argv[1], "x", sys.argv[2].encode() * (1 + number * 997 % 5000) + b"\\n")
"""
KEEP = """
import sys
from meshfw.files import kept
from meshfw.backends.spellings import KnownTexts
from meshfw.model import Family
kept._PATIENCE = 60
for number in range(int(sys.argv[2])):
    KnownTexts("x").keep([(Family.IPV4, f"{sys.argv[1]} {number}", "printed")])
"""


def started(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A process that runs a script."""
    return subprocess.Popen((sys.executable, "-c", script, *arguments))


def finished(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes, once all have ended."""
    return [process.wait(timeout=120) for process in processes]


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """A block in which no file grows longer: a write is short first, then refused, as on a full file system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- one file ---


def test_who_reads_while_several_write_finds_one_of_theirs_whole(tmp_path: Path) -> None:
    directory = str(tmp_path)
    write_kept(directory, "x", b"0\n")
    writers = [started(WRITE, directory, str(number), str(ROUNDS * 10)) for number in range(WRITERS)]
    try:
        while any(writer.poll() is None for writer in writers):
            content = read_kept(directory, "x", most=1 << 20)
            assert content.endswith(b"\n"), content[-20:]
            assert len(set(content[:-1])) == 1
    finally:
        assert finished(writers) == [0] * WRITERS
    assert os.listdir(directory) == ["x"]


def test_a_file_that_has_no_room_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    write_kept(str(tmp_path), "x", b"old")
    with full_after(10), pytest.raises(OSError, match="File too large"):
        write_kept(str(tmp_path), "x", b"new" * 10)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


def test_a_write_in_pieces_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
        write_kept(str(tmp_path), "x", b"0123456789")
    assert read_kept(str(tmp_path), "x", most=100) == b"0123456789"


# --- texts that several keep ---


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of known texts, not there yet."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


def known(written: str) -> str | None:
    """What a new run knows."""
    return KnownTexts("x").printed(Family.IPV4, written)


def test_no_text_is_lost_where_several_processes_keep_theirs_at_once(room: Path) -> None:
    keepers = [started(KEEP, str(number), str(ROUNDS)) for number in range(WRITERS)]
    assert finished(keepers) == [0] * WRITERS
    lost = [text for n in range(WRITERS) for i in range(ROUNDS) if known(text := f"{n} {i}") is None]
    assert lost == []
    assert os.listdir(room) == ["x.json"]


def test_no_text_is_lost_where_several_threads_keep_theirs_at_once(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_PATIENCE", 60)

    def keep(name: int) -> None:
        for number in range(ROUNDS):
            KnownTexts("x").keep([(Family.IPV4, f"{name} {number}", "printed")])

    threads = [threading.Thread(target=keep, args=(name,)) for name in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [text for n in range(WRITERS) for i in range(ROUNDS) if known(text := f"{n} {i}") is None] == []


def test_who_never_gets_the_lock_goes_on_and_keeps_it_the_next_time(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_PATIENCE", 0.02)
    room.mkdir(0o700)
    texts = KnownTexts("x")
    with opened_directory(str(room)) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        texts.keep([(Family.IPV4, "8:00", "08:00:00")])
        texts.keep([(Family.IPV4, "9:00", "09:00:00")])
        assert os.listdir(room) == []
    assert [texts.printed(Family.IPV4, text) for text in ("8:00", "9:00")] == ["08:00:00", "09:00:00"]
    texts.keep([(Family.IPV6, "7:00", "07:00:00")])
    assert [known(text) for text in ("8:00", "9:00")] == ["08:00:00", "09:00:00"]


def test_a_private_file_is_written_in_one_step_wherever_it_shall_be(tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    path = public / "file"
    path.write_text("before, for all to read")
    path.chmod(0o644)
    write_private(str(path), b"after")
    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(public.iterdir()) == [path]
    for odd in (public / "none" / "file", public):
        with pytest.raises(OSError, match=r"No such file|Is a directory|not empty|Device or resource busy"):
            write_private(str(odd), b"")
    assert list(public.iterdir()) == [path]


def test_a_directory_of_our_own_is_root_s_alone_and_made_once(tmp_path: Path) -> None:
    made = make_kept(str(tmp_path / "state"), "inner")
    assert made == make_kept(str(tmp_path / "state"), "inner")
    assert Path(made).stat().st_mode & 0o777 == 0o700


def test_reading_takes_as_much_memory_as_there_is_to_read(tmp_path: Path) -> None:
    write_kept(str(tmp_path), "x", b"small")
    script = (
        "import resource, sys; from meshfw.files.kept import read_kept; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); "
        "sys.exit(read_kept(sys.argv[1], 'x', most=1 << 30) != b'small')"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_kept_file_is_what_was_written_last_and_nobody_else_reads_it(tmp_path: Path) -> None:
    file = KeptFile(str(tmp_path / "new" / "file"))
    with pytest.raises(StateError, match="a/b/c: No such file"):
        KeptFile(str(tmp_path / "a" / "b" / "c")).write(b"")
    assert file.read() is None
    file.write(b"1")
    file.write(b"2")
    assert file.read() == b"2"
    assert os.stat(file.path).st_mode & 0o777 == 0o600
    os.chmod(file.path, 0o620)
    with pytest.raises(StateError, match="may be written by others"):
        file.read()
