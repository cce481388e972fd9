"""An apply beside others who hold the lock, or who write all the time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from meshfw.errors import LockError
from meshfw.kernel.lock import xtables_lock
from meshfw.model import Family
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.kernel.damage import ONE, OTHER, VARIANTS, House, house

pytestmark = pytest.mark.kernel

ROUNDS: Final = 50
HOLDER: Final = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT, 0o600)
fcntl.flock(held, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def home(
    request: pytest.FixtureRequest, requires: Callable[..., None], kernel_room: Callable[[], Netns], tmp_path: Path
) -> Iterator[House]:
    variant: str = request.param
    requires(f"iptables-{variant}-restore", f"ip6tables-{variant}-restore")
    with house(variant, kernel_room, tmp_path) as made:
        yield made


@contextmanager
def held(path: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock until the end of the block, or until it's told a line."""
    argv = (sys.executable, "-c", HOLDER, path)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("home", ["legacy"], indirect=True)
@pytest.mark.parametrize("known", [True, False], ids=["a commit", "a reading"])
def test_a_lock_that_somebody_keeps_is_an_error_with_his_number(home: House, known: bool) -> None:
    with home.backend(wait=1) as backend:
        apply(backend, ONE)
        before = home.saved()
        with home.backend(wait=1) as fresh, held(os.environ["XTABLES_LOCKFILE"]) as holder:
            with pytest.raises(LockError) as caught:
                apply(backend if known else fresh, OTHER)
            assert caught.value.holder == holder.pid
            assert caught.value.waited == 1
            assert f"is held by process {holder.pid} for more than 1 s" in str(caught.value)
        assert home.saved() == before
        apply(backend, OTHER)
    home.assert_held(OTHER)


@pytest.mark.parametrize("home", ["legacy"], indirect=True)
@pytest.mark.parametrize("known", [True, False], ids=["a commit", "a reading"])
def test_a_lock_that_somebody_gives_back_is_waited_for(home: House, known: bool) -> None:
    with home.backend(wait=30) as backend:
        apply(backend, ONE)
        with home.backend(wait=30) as fresh, held(os.environ["XTABLES_LOCKFILE"]) as holder:
            done: list[bool] = []
            waiting = threading.Thread(target=lambda: done.append(bool(apply(backend if known else fresh, OTHER))))
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive(), "it didn't wait for the lock"
            holder.communicate("\n")
            waiting.join()
        assert done == [True]
    home.assert_held(OTHER)


@pytest.mark.parametrize("home", ["nft"], indirect=True)
def test_nf_tables_needs_no_lock(home: House) -> None:
    with home.backend(wait=1) as backend, held(os.environ["XTABLES_LOCKFILE"]):
        apply(backend, ONE)
        apply(backend, OTHER)
    home.assert_held(OTHER)


# --- the lock itself ---------------------------------------------------------------------------------------


def test_only_tools_started_under_the_lock_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    with xtables_lock(timeout=0) as lock:
        assert path.exists()
        with pytest.raises(LockError) as caught, xtables_lock(timeout=0):
            pass
        assert caught.value.holder == os.getpid()
        monkeypatch.setenv("XTABLES_LOCKFILE", lock.environment["XTABLES_LOCKFILE"])
        with xtables_lock(timeout=0):  # what they lock is free, though the other is not
            pass
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    with xtables_lock(timeout=0):
        pass


def test_who_inherits_the_lock_holds_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    with xtables_lock(timeout=0) as lock:
        heir = subprocess.Popen(("cat",), stdin=subprocess.PIPE, pass_fds=(lock.descriptor,))
    with pytest.raises(LockError), xtables_lock(timeout=0):
        pass
    heir.communicate()
    with xtables_lock(timeout=0):
        pass


def test_the_lock_leaks_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with xtables_lock(timeout=0), pytest.raises(LockError), xtables_lock(timeout=0):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


# --- others who write --------------------------------------------------------------------------------------


class Busybody:
    """Somebody who adds rules to a built-in chain and takes them away again, until he's stopped.

    He adds them at its end: who always writes before our jump is fought, and that ends as an error.
    """

    def __init__(self, home: House, family: Family) -> None:
        self._home = home
        self._family = family
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.kept: list[str] = []
        self.rounds = 0

    def __enter__(self) -> Busybody:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _rule(self, number: int) -> tuple[str, ...]:
        return ("INPUT", "-p", "udp", "-m", "comment", "--comment", f"busy {number}")

    def _work(self) -> None:
        while not self._stop.is_set():
            self.rounds += 1
            self._home.iptables(self._family, "-A", *self._rule(self.rounds))
            self.kept.append(f'"busy {self.rounds}"')
            if len(self.kept) > 3:
                number = self.kept.pop(0).strip('"').split()[1]
                self._home.iptables(self._family, "-D", *self._rule(int(number)))

    def leave(self) -> None:
        """Take the rest away."""
        for name in self.kept:
            self._home.iptables(self._family, "-D", *self._rule(int(name.strip('"').split()[1])))

    def rules(self) -> list[str]:
        """What of his stands, in the order in which he wrote it."""
        text = self._home.iptables(self._family, "-S", "INPUT")
        found = [line.partition("--comment ")[2] for line in text.splitlines() if '"busy ' in line]
        return sorted(found, key=lambda name: int(name.strip('"').split()[1]))


@pytest.mark.parametrize("home", VARIANTS, indirect=True)
@pytest.mark.parametrize("family", Family)
def test_whoever_writes_meanwhile_nothing_of_anybody_is_lost(home: House, family: Family) -> None:
    before = home.foreign()
    with home.backend() as backend, Busybody(home, family) as other:
        for number in range(ROUNDS // 2):
            for wanted in (ONE, OTHER):
                apply(backend, wanted)
            if number % 5 == 0:
                with home.backend() as fresh:
                    apply(fresh, ONE)
    assert other.rounds > 3
    assert other.rules() == other.kept
    with home.backend() as backend:
        apply(backend, OTHER)
    home.assert_held(OTHER)
    other.leave()
    assert home.foreign() == before
