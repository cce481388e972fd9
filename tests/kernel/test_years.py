"""What years of reconciles take: no process, no reading and no memory, also beside somebody who never stops writing."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from meshfw.backend import Backend, Outcome
from meshfw.kernel.libnftables import Libnftables
from meshfw.reconcile import apply
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns
from tests.kernel.test_process_budgets import LANGUAGE, MAKERS, Room

pytestmark = pytest.mark.kernel

RECONCILES: Final = 100_000 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 5_000
WRITTEN: Final = RECONCILES // 20
"""Reconciles behind a commit of somebody else's."""
RULES: Final = 200
SPARE: Final = 1 << 20
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(params=MAKERS)
def room(
    request: pytest.FixtureRequest, netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Room]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    request.getfixturevalue("requires")("iptables-legacy-restore", "ip6tables-nft-restore", "nft")
    made = Room(request.param, netns)
    yield made
    made.close()


@pytest.fixture
def bump(netns: Netns) -> Iterator[Callable[[], object]]:
    """One commit of somebody else's."""
    with Libnftables(netns.path) as nft:
        nft.run("add table inet theirs; add chain inet theirs c; add rule inet theirs c counter accept")
        yield lambda: nft.run("insert rule inet theirs c drop; flush chain inet theirs c")


def resident() -> int:
    """The memory of this process that isn't waiting to be given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def assert_flat(run: Callable[[int], None], times: int) -> None:
    run(times // 10)
    before = resident()
    run(times)
    assert resident() - before < SPARE


def test_idle_reconciles_start_no_process_and_take_no_memory(room: Room) -> None:
    ruleset, backend = mesh_ruleset(RULES, language=LANGUAGE), room.backend
    apply(backend, ruleset)
    assert room.counted(ruleset, times=1000)[0] == 0

    def idle(times: int) -> None:
        for _ in range(times):
            assert apply(backend, ruleset).outcome is Outcome.IDLE

    assert_flat(idle, RECONCILES)


def test_reconciles_beside_a_writer_start_no_process_and_take_no_memory(room: Room, bump: Callable[[], object]) -> None:
    ruleset, backend = mesh_ruleset(RULES, language=LANGUAGE), room.backend
    apply(backend, ruleset)
    bump()
    apply(backend, ruleset)
    reads = backend.cache.costs.reads

    def beside(times: int) -> None:
        for _ in range(times):
            bump()
            assert apply(backend, ruleset).outcome is Outcome.IDLE

    with ProcessCounter() as counter:
        beside(100)
    assert counter.count.forks == 0
    assert_flat(beside, WRITTEN)
    assert backend.cache.costs.reads == reads


def test_changes_there_and_back_take_no_memory(room: Room) -> None:
    ruleset = mesh_ruleset(RULES, language=LANGUAGE)
    smaller = mesh_ruleset(RULES - 10, language=LANGUAGE)
    backend: Backend = room.backend

    def change(times: int) -> None:
        for number in range(times):
            apply(backend, smaller if number % 2 else ruleset)

    assert_flat(change, RECONCILES // 100)
