"""Hints of writers to the legacy tables: each turn at the lock is told when it ends, ours is not, some are named."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import meshfw.backends.lock_watch as module
from meshfw.backend import Backend, Event, Site, Watch
from meshfw.backends.iptables import iptables_legacy
from meshfw.backends.lock_watch import LockWatch, lock_watch
from meshfw.extensions import Language, builtin_extensions
from meshfw.files import inotify
from meshfw.files.inotify import Inotify
from meshfw.kernel.command import run
from meshfw.kernel.lock import xtables_lock
from meshfw.model import Family, Ruleset
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import compact, compact_changed

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
ONE, OTHER = compact(tuple(Family)), compact_changed(tuple(Family))

HOLDER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run" / "xtables.lock"
    path.parent.mkdir()
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    return path


@pytest.fixture
def watch(lock: Path) -> Iterator[LockWatch]:
    made = lock_watch()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def iptables(netns: Netns, requires: Callable[..., None]) -> Callable[[str], int]:
    requires("iptables-legacy-restore", "ip6tables-legacy-restore")

    def call(command: str) -> int:
        with netns.entered():
            return run(("iptables-legacy", "-w", *command.split()), timeout=20).pid

    return call


@pytest.fixture
def backend(netns: Netns, lock: Path, requires: Callable[..., None]) -> Iterator[Backend]:
    requires("iptables-legacy-restore", "ip6tables-legacy-restore")
    made = iptables_legacy(Site(owner="meshfw", language=LANGUAGE, netns=netns.path))
    yield made
    made.close()


def readable(watch: Watch, milliseconds: int = 0) -> bool:
    poller = select.poll()
    poller.register(watch.fileno(), select.POLLIN)
    return bool(poller.poll(milliseconds))


def test_each_writer_s_turn_is_a_hint(watch: LockWatch, iptables: Callable[[str], int]) -> None:
    assert not readable(watch)
    for command in ("-N a", "-A a -j ACCEPT", "-F a"):
        iptables(command)
        assert readable(watch)
        (event,) = watch.events()
        assert (event.own, event.near, event.generation) == (False, True, 0)
        assert not readable(watch)


def test_whoever_holds_the_lock_when_we_look_is_named(watch: LockWatch, lock: Path) -> None:
    with subprocess.Popen(
        (sys.executable, "-c", HOLDER, str(lock)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        assert readable(watch)
        assert watch.events() == (), "its turn is not over"
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        assert not readable(watch)
        holder.stdin.close()
        assert readable(watch, 5000)
        assert watch.events() == (Event(holder.pid, name),)


def test_whoever_is_gone_is_not_named(watch: LockWatch, iptables: Callable[[str], int]) -> None:
    iptables("-N a")
    assert watch.events() == (Event(),)


def test_one_who_has_opened_the_file_and_not_locked_it_yet_is_named(
    watch: LockWatch, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_YOUNG", 2000)  # other tests start processes meanwhile
    opener = HOLDER.replace("fcntl.flock", "(lambda *_: None)")
    with subprocess.Popen(
        (sys.executable, "-c", opener, str(lock)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        watch.events()
        holder.stdin.close()
        assert readable(watch, 5000)
        assert [event.pid for event in watch.events()] == [holder.pid]


def test_our_own_turn_is_none(backend: Backend) -> None:
    watch = backend.watch()
    assert watch is not None
    for ruleset in (ONE, OTHER, Ruleset()):
        apply(backend, ruleset)
        assert not readable(watch)
        assert watch.events() == ()


def test_another_instance_s_turn_is_a_hint_like_a_tool_s(
    backend: Backend, netns: Netns, iptables: Callable[[str], int]
) -> None:
    apply(backend, ONE)
    watch = backend.watch()
    assert watch is not None
    other = iptables_legacy(Site(owner="meshfw", language=LANGUAGE, netns=netns.path))
    apply(other, OTHER)
    other.close()
    assert readable(watch)
    assert watch.events()
    iptables("-N a")
    apply(backend, ONE)
    assert readable(watch), "what came before our own turn is still to be told"
    assert watch.events() == (Event(),)
    assert not readable(watch)


def test_a_turn_that_ends_as_ours_begins_is_told(watch: LockWatch, lock: Path) -> None:
    with watch.sparing() as taken:
        with xtables_lock(timeout=5):  # somebody else of our kind, for whom we wait
            pass
        with xtables_lock(timeout=5):
            taken()
    assert readable(watch)
    assert watch.events() == (Event(),)


def test_a_file_that_is_taken_away_and_made_again_is_followed(
    watch: LockWatch, lock: Path, iptables: Callable[[str], int]
) -> None:
    lock.unlink()
    watch.events()
    for _ in range(2):
        iptables("-L")
        assert readable(watch)
        assert watch.events()


def test_what_happens_beside_the_file_is_no_hint(watch: LockWatch, lock: Path) -> None:
    (lock.parent / "other.lock").write_text("")
    watch.events()
    assert (lock.stat().st_size, watch.events()) == (0, ())


def test_lost_events_are_a_hint(watch: LockWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inotify, "read", lambda self: [inotify.Told(-1, inotify.OVERFLOW, "")])
    assert watch.events() == (Event(),)


def test_without_a_directory_there_is_no_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "missing" / "xtables.lock"))
    before = len(os.listdir("/proc/self/fd"))
    assert lock_watch() is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_closed_it_tells_of_nothing(watch: LockWatch) -> None:
    watch.close()
    watch.close()
    assert watch.fileno() == -1
    assert watch.events() == ()
