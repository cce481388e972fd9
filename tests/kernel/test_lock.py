"""Laws of the instance lock."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import meshfw.kernel.lock as module
from meshfw.errors import BackendError, KernelError, LockError
from meshfw.kernel.lock import instance_lock, xtables_lock
from meshfw.kernel.netns import Namespace
from meshfw.testing.netns import Netns

HERE = Namespace(device=4, inode=4026531840, boot_id="b")
ROOT = Path(module.__file__).parents[2]

HOLD = """
import sys, time
from meshfw.kernel.lock import instance_lock
from meshfw.kernel.netns import Namespace
with instance_lock("meshfw", Namespace(4, 4026531840, "b"), timeout=0, directory=sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def take(directory: Path, *, timeout: float = 0, owner: str = "meshfw", namespace: Namespace = HERE) -> None:
    with instance_lock(owner, namespace, timeout=timeout, directory=str(directory)):
        pass


def test_the_lock_file_is_private_and_names_owner_namespace_and_holder(tmp_path: Path) -> None:
    with instance_lock("meshfw", HERE, timeout=0, directory=str(tmp_path / "locks")) as path:
        assert path == f"{tmp_path}/locks/meshfw-4-4026531840.lock"
        assert Path(path).read_text(encoding="ascii") == f"{os.getpid()}\n"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(tmp_path / "locks").st_mode) == 0o700


def test_a_free_lock_leaves_no_file(tmp_path: Path) -> None:
    take(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_waits_and_then_learns_who_holds_it(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        started = time.monotonic()
        with pytest.raises(LockError) as caught:
            take(tmp_path, timeout=0.3)
        assert 0.3 <= time.monotonic() - started < 5
        assert (caught.value.holder, caught.value.waited) == (holder.pid, 0.3)
        assert caught.value.path == f"{tmp_path}/meshfw-4-4026531840.lock"
        assert f"by process {holder.pid}" in str(caught.value)


def test_without_time_to_wait_there_is_one_try(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path):
        started = time.monotonic()
        with pytest.raises(LockError):
            take(tmp_path, timeout=0)
        assert time.monotonic() - started < 0.2


def test_a_waiter_gets_the_lock_when_it_is_freed(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        assert holder.stdin is not None
        threading.Timer(0.2, holder.stdin.close).start()
        take(tmp_path, timeout=30)


@pytest.mark.parametrize("lock", ["instance", "xtables"])
def test_waiting_is_not_busy_and_sleeps_to_the_very_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    now, pauses = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables"))

    def taken() -> AbstractContextManager[object]:
        if lock == "xtables":
            return xtables_lock(timeout=1)
        return instance_lock("meshfw", HERE, timeout=1, directory=str(tmp_path))

    with taken():
        monkeypatch.setattr(module, "time", clock)
        with pytest.raises(LockError), taken():
            pass
    assert pauses[:6] == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05]
    assert set(pauses[6:-1]) == {0.05}
    assert 0 < pauses[-1] <= 0.05
    assert now == pytest.approx(1)


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        take(tmp_path, timeout=30)
    take(tmp_path)  # what it left behind is no obstacle


def test_a_second_thread_waits_too(tmp_path: Path) -> None:
    refused: list[LockError] = []

    def second() -> None:
        try:
            take(tmp_path, timeout=0.1)
        except LockError as error:
            refused.append(error)

    with instance_lock("meshfw", HERE, timeout=0, directory=str(tmp_path)):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert [error.holder for error in refused] == [os.getpid()]
    take(tmp_path)


def test_the_lock_is_not_reentrant(tmp_path: Path) -> None:
    with instance_lock("meshfw", HERE, timeout=0, directory=str(tmp_path)), pytest.raises(LockError):
        take(tmp_path)


@pytest.mark.parametrize(
    ("owner", "namespace"), [("other", HERE), ("meshfw", Namespace(device=4, inode=4026531841, boot_id="b"))]
)
def test_other_owners_and_other_namespaces_do_not_wait(tmp_path: Path, owner: str, namespace: Namespace) -> None:
    with instance_lock("meshfw", HERE, timeout=0, directory=str(tmp_path)):
        take(tmp_path, owner=owner, namespace=namespace)


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), instance_lock("meshfw", HERE, timeout=0, directory=str(tmp_path)):
        _ = 1 / 0
    take(tmp_path)


def test_never_two_at_once_though_each_takes_the_file_away(tmp_path: Path) -> None:
    inside, most, entries = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, entries
        for _ in range(30):
            with instance_lock("meshfw", HERE, timeout=60, directory=str(tmp_path)):
                with guard:
                    inside, most, entries = inside + 1, max(most, inside + 1), entries + 1
                time.sleep(0.0005)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entries) == (1, 120)


def test_waiting_and_refusing_leak_no_descriptor(tmp_path: Path) -> None:
    with instance_lock("meshfw", HERE, timeout=0, directory=str(tmp_path)):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(LockError):
                take(tmp_path)
        assert len(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir("/proc/self/fd")) == before - 2  # the file and its directory


def test_a_symbolic_link_is_never_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="ascii")
    (tmp_path / "meshfw-4-4026531840.lock").symlink_to(victim)
    with pytest.raises(KernelError) as caught:
        take(tmp_path)
    assert caught.value.errno == errno.ELOOP
    assert victim.read_text(encoding="ascii") == "precious"


def test_a_directory_that_can_not_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=f"{tmp_path}/a/b") as caught:
        take(tmp_path / "a" / "b")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.remedy


@pytest.mark.parametrize("owner", ["../escape", "a\0b"])
def test_an_owner_can_not_leave_the_directory(tmp_path: Path, owner: str) -> None:
    with pytest.raises(BackendError):
        take(tmp_path, owner=owner)


def test_the_first_writable_directory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RUN", f"{tmp_path}/run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with instance_lock("meshfw", HERE, timeout=0) as path:
        assert path.startswith(f"{tmp_path}/run/")
    monkeypatch.setattr(module, "_RUN", "/proc/meshfw")  # nobody can write there
    with instance_lock("meshfw", HERE, timeout=0) as path:
        assert path.startswith(f"{tmp_path}/meshfw/")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with instance_lock("meshfw", HERE, timeout=0) as path:
        assert path.startswith(f"{tmp_path}/meshfw-{module._outer_user()}/")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o705])
def test_a_directory_open_to_others_is_not_trusted_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setattr(module, "_RUN", "/proc/meshfw")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planted = tmp_path / f"meshfw-{module._outer_user()}"
    planted.mkdir()
    planted.chmod(mode)
    with pytest.raises(BackendError, match="open to others"):
        take_anywhere()
    planted.chmod(0o700)
    take_anywhere()


def test_where_no_file_can_be_made_a_spare_one_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netns: Netns
) -> None:
    monkeypatch.setattr(module, "_RUN", "/proc/meshfw")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc"])
    with pytest.raises(BackendError, match="nor any temporary directory can be written"):
        take_anywhere()
    with instance_lock("meshfw", HERE, timeout=0, spare=netns.path) as path:
        assert path == netns.path
        with (
            pytest.raises(LockError) as caught,
            instance_lock("other", HERE, timeout=0, spare=f"/proc/self/root{netns.path}"),
        ):
            pass
        assert caught.value.holder == os.getpid()
        with instance_lock("meshfw", HERE, timeout=0, spare="/proc/thread-self/ns/net"):
            pass  # another namespace
    with instance_lock("meshfw", HERE, timeout=0, spare=netns.path):
        pass
    with pytest.raises(KernelError, match="No such file"), instance_lock("meshfw", HERE, timeout=0, spare="/proc/none"):
        pass


@pytest.mark.kernel
@pytest.mark.parametrize("filled", ["bytes", "files"])
def test_a_full_file_system_leaves_a_lock(filled: str, requires: Callable[..., None]) -> None:
    code = FULL.replace("FILLED", filled)
    requires("unshare", "mount")
    argv = ["unshare", "--mount", "--net", sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("/run/meshfw/\n" if filled == "bytes" else "/proc/thread-self/ns/net\n")


FULL = """
import os, subprocess
size = {"bytes": "size=4k", "files": "nr_inodes=2"}["FILLED"]
subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", "/run"], check=True)
os.mkdir("/run/meshfw")
if "FILLED" == "bytes":
    with open("/run/full", "wb") as file:
        file.write(bytes(4096))
from meshfw.kernel.lock import instance_lock
from meshfw.kernel.netns import Namespace
with instance_lock("meshfw", Namespace.current(), timeout=0, spare="/proc/thread-self/ns/net") as path:
    print(path.partition("meshfw-")[0])
"""


def take_anywhere() -> None:
    with instance_lock("meshfw", HERE, timeout=0):
        pass
