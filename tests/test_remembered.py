"""Laws of what auto remembers: a file of the right hands and shape, or nothing, and never an obstacle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshfw.backends import remembered

# --- what is remembered ---


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory that isn't there yet."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in a namespace that somebody just made; what they ask is of the host's."""
    monkeypatch.setattr(remembered, "_is_the_hosts", lambda: True)


def test_a_namespace_without_a_name_is_not_the_hosts(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_is_the_hosts", lambda: False)
    assert "no lasting name" in remembered.remember("edge", None, "nft")
    assert remembered.recall("edge", None) == ("", "")
    assert not state.exists()


def test_what_is_remembered_is_recalled_and_forgotten(state: Path) -> None:
    assert remembered.recall("edge", None) == ("", "")
    assert remembered.forget("edge", None) == ""
    assert not state.exists()
    assert remembered.remember("edge", None, "nft") == ""
    assert remembered.recall("edge", None) == ("nft", "")
    assert (state / "edge.json").read_text("utf-8") == '{"backend":"nft"}\n'
    assert [oct(path.stat().st_mode & 0o7777) for path in (state, state / "edge.json")] == ["0o700", "0o600"]
    assert remembered.remember("edge", None, "iptables-nft") == ""
    assert remembered.recall("edge", None) == ("iptables-nft", "")
    assert os.listdir(state) == ["edge.json"]
    assert remembered.forget("edge", None) == ""
    assert remembered.recall("edge", None) == ("", "")


def test_owners_and_namespaces_are_remembered_apart(state: Path) -> None:
    places = [(owner, netns) for owner in ("edge", "mesh") for netns in (None, "room", "/run/rooms/one", "r@m%")]
    for number, place in enumerate(places):
        remembered.remember(*place, f"b{number}")
    assert [remembered.recall(*place)[0] for place in places] == [f"b{number}" for number in range(len(places))]
    for path in ("/run/netns/room", "/var/run/netns/room", "/run/netns/../netns/room"):
        assert remembered.recall("edge", path)[0] == "b1"


def test_a_namespace_without_a_lasting_name_is_not_remembered(state: Path) -> None:
    for path in ("/proc/7/ns/net", "/proc/self/fd/3", "/dev/fd/3"):
        assert "no lasting name" in remembered.remember("edge", path, "nft")
        assert remembered.recall("edge", path) == ("", "")
        assert remembered.forget("edge", path) == ""
    assert not state.exists()


def test_what_is_remembered_already_is_not_written_again(state: Path) -> None:
    remembered.remember("edge", None, "nft")
    before = (state / "edge.json").stat()
    remembered.remember("edge", None, "nft")
    after = (state / "edge.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


ODD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"nft\n",
    "a list": b'["nft"]',
    "no name": b'{"backend": ""}',
    "a number": b'{"backend": 7}',
    "more": b'{"backend": "nft", "owner": "edge"}',
    "other": b'{"owner": "edge"}',
    "no text": b'{"backend": "\xff"}',
    "long": b'{"backend": "' + b"x" * 9000 + b'"}',
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_content_is_ignored_with_a_warning_and_replaced(state: Path, content: bytes) -> None:
    state.mkdir(0o700)
    (state / "edge.json").write_bytes(content)
    name, warning = remembered.recall("edge", None)
    assert name == ""
    assert warning.startswith(f"{state}/edge.json is ignored: ")
    assert remembered.remember("edge", None, "nft") == ""
    assert remembered.recall("edge", None) == ("nft", "")


def test_links_pipes_and_what_others_may_write_are_ignored_with_a_warning(state: Path, tmp_path: Path) -> None:
    state.mkdir(0o700)
    good = tmp_path / "good.json"
    good.write_text('{"backend": "nft"}')
    path = state / "edge.json"

    def warning() -> str:
        name, said = remembered.recall("edge", None)
        assert name == ""
        return said

    path.symlink_to(good)
    assert "symbolic link" in warning()
    remembered.remember("edge", None, "nft")  # the link is replaced, and not followed
    assert (path.is_symlink(), good.read_text()) == (False, '{"backend": "nft"}')
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "no plain file" in warning()
    path.unlink()
    path.write_text('{"backend": "nft"}')
    path.chmod(0o666)
    assert "may be written by others" in warning()
    path.chmod(0o600)
    assert remembered.recall("edge", None)[0] == "nft"
    state.chmod(0o777)
    assert "its directory may be written by others" in warning()
    assert "may be written by others" in remembered.remember("edge", None, "iptables-nft")
    state.chmod(0o700)
    state.rename(tmp_path / "moved")
    state.symlink_to(tmp_path / "moved")
    assert warning().startswith(f"{path} is ignored: ")
    assert remembered.remember("edge", None, "nft") != ""
    assert remembered.forget("edge", None) != ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_somebody_else_is_ignored_with_a_warning(state: Path) -> None:
    remembered.remember("edge", None, "nft")
    os.chown(state / "edge.json", 1234, 1234)
    assert remembered.recall("edge", None) == ("", f"{state}/edge.json is ignored: it belongs to user 1234")
    os.chown(state, 1234, 1234)
    assert "its directory belongs to user 1234" in remembered.recall("edge", None)[1]


def test_where_nothing_can_be_written_there_is_a_reason_and_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "none" / "deeper"))
    assert "No such file" in remembered.remember("edge", None, "nft")
    assert remembered.recall("edge", None) == ("", "")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert "too long" in remembered.remember("edge", "x" * 300, "nft")
    assert remembered.recall("edge", "x" * 300) == ("", "")


@pytest.mark.parametrize(
    ("value", "directory"),
    [("/a:/b", "/a"), ("/a", "/a"), ("", remembered.DIRECTORY), ("relative", remembered.DIRECTORY)],
)
def test_the_directory_is_systemd_s_first_or_our_own(
    monkeypatch: pytest.MonkeyPatch, value: str, directory: str
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", value)
    assert remembered.state_directory() == directory


def test_no_test_leaves_anything_for_this_host_s_next_time() -> None:
    assert remembered.state_directory() != remembered.DIRECTORY
