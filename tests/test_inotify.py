"""Word of files that change: by name, along the whole way to them, through renames, links and missing directories."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshfw.files import inotify
from meshfw.files.inotify import FileChanges, Inotify
from meshfw.source import Changes


def readable(changes: FileChanges, milliseconds: int = 5000) -> bool:
    poller = select.poll()
    poller.register(changes.fileno(), select.POLLIN)
    return bool(poller.poll(milliseconds))


def told(changes: FileChanges) -> bool:
    """Whether a change is told, and only once."""
    found = readable(changes, 0) and changes.drain()
    assert not readable(changes, 0)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "etc" / "rules.v4"
    made.parent.mkdir()
    made.write_text("old")
    return made


@pytest.fixture
def changes(path: Path) -> Iterator[FileChanges]:
    made = FileChanges([str(path)])
    yield made
    made.close()


def replaced(path: Path, text: str = "new") -> None:
    other = path.with_name(f".{path.name}.swp")
    other.write_text(text)
    other.rename(path)


def overwritten(path: Path) -> None:
    path.write_text("new")


def turned_around(path: Path) -> None:
    """As some editors save: the old file goes aside, a new one takes its name."""
    path.rename(path.with_name("rules.v4~"))
    path.write_text("new")


def emptied(path: Path) -> None:
    path.unlink()


def closed_off(path: Path) -> None:
    path.chmod(0)


def moved_with_all(path: Path) -> None:
    path.parent.rename(path.parent.with_name("etc.old"))


def by_another_name(path: Path) -> None:
    (path.parent / "other").hardlink_to(path)
    with (path.parent / "other").open("a") as file:
        file.write("new")


WAYS = (replaced, overwritten, turned_around, emptied, closed_off, moved_with_all, by_another_name)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_change_a_file_is_told_of(way: Callable[[Path], None], path: Path, changes: FileChanges) -> None:
    assert isinstance(changes, Changes)
    assert not readable(changes, 0)
    way(path)
    assert told(changes)


def test_a_file_that_was_replaced_is_watched_again(path: Path, changes: FileChanges) -> None:
    for _ in range(5):
        replaced(path)
        assert told(changes)
        overwritten(path)
        assert told(changes)


def test_reading_a_file_is_no_change(path: Path, changes: FileChanges) -> None:
    path.read_text()
    assert not told(changes)


def test_what_happens_to_its_neighbours_is_no_change(path: Path, changes: FileChanges) -> None:
    (path.parent / "rules.v6").write_text("new")
    (path.parent.parent / "other").mkdir()
    assert readable(changes, 0)
    assert not changes.drain()
    assert not readable(changes, 0)


def test_missing_directories_come_later(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "rules.v4"
    changes = FileChanges([str(path)])
    try:
        (tmp_path / "a").mkdir()
        assert told(changes)
        (tmp_path / "a" / "b").mkdir()
        assert told(changes)
        path.write_text("new")
        assert told(changes)
        overwritten(path)
        assert told(changes)
    finally:
        changes.close()


def test_all_that_comes_at_once_is_watched_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "rules.v4"
    changes = FileChanges([str(path)])
    try:
        path.parent.mkdir(parents=True)
        path.write_text("new")
        assert told(changes)
        overwritten(path)
        assert told(changes)
    finally:
        changes.close()


def test_links_are_followed_and_turned(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.v4").write_text(name)
    (tmp_path / "etc").mkdir()
    data = tmp_path / "etc" / "..data"
    data.symlink_to("../one")
    (tmp_path / "etc" / "rules.v4").symlink_to("..data/rules.v4")
    changes = FileChanges([str(tmp_path / "etc" / "rules.v4")])
    try:
        overwritten(tmp_path / "one" / "rules.v4")
        assert told(changes)
        # As the kubelet swaps a ConfigMap: the new link is made aside and renamed over the old one.
        aside = tmp_path / "etc" / "..data_tmp"
        aside.symlink_to(tmp_path / "two")
        aside.rename(data)
        assert told(changes)
        overwritten(tmp_path / "two" / "rules.v4")
        assert told(changes)
        overwritten(tmp_path / "one" / "rules.v4")
        assert not told(changes), "nobody reads that one now"
    finally:
        changes.close()


def test_links_that_go_in_a_circle_are_watched_until_they_dont(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    changes = FileChanges([str(tmp_path / "a")])
    try:
        (tmp_path / "b").unlink()
        (tmp_path / "b").write_text("new")
        assert told(changes)
        overwritten(tmp_path / "b")
        assert told(changes)
    finally:
        changes.close()


def test_several_files_share_one_descriptor(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("rules.v4", "rules.v6")]
    changes = FileChanges(map(str, paths))
    try:
        for path in paths:
            path.write_text("new")
            assert told(changes)
    finally:
        changes.close()


def test_lost_events_are_a_change(changes: FileChanges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inotify, "read", lambda self: [inotify.Told(-1, inotify.OVERFLOW, "")])
    assert changes.drain()


def test_a_flood_is_read_in_bounded_parts_and_ends(path: Path, changes: FileChanges) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for _ in range(limit // 2 + 10):  # opened for writing and closed: two events each time, of alternating watches
        os.close(os.open(path, os.O_WRONLY))
    assert changes.drain()
    for _ in range(1000):
        if not readable(changes, 0):
            break
        changes.drain()
    assert not readable(changes, 0)
    overwritten(path)
    assert told(changes)


def test_what_may_not_be_watched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Inotify.add

    def guarded(self: Inotify, place: str, mask: int) -> int:
        if place == str(tmp_path / "secret"):
            raise PermissionError(13, "Permission denied")
        return add(self, place, mask)

    monkeypatch.setattr(Inotify, "add", guarded)
    (tmp_path / "secret").mkdir()
    changes = FileChanges([str(tmp_path / "secret" / "rules.v4")])
    try:
        assert changes.unwatched == (str(tmp_path / "secret"),)
    finally:
        changes.close()


def test_closed_it_tells_of_nothing(path: Path) -> None:
    changes = FileChanges([str(path)])
    changes.close()
    changes.close()
    assert changes.fileno() == -1
    assert not changes.drain()
