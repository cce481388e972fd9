"""The processes of a reconcile, counted from outside: what happened says how many, never the number of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import pytest

from meshfw.backend import Backend, Outcome, Report, Site
from meshfw.backends.iptables import iptables_legacy, iptables_nft
from meshfw.backends.nft import NftBackend
from meshfw.extensions import Language, builtin_extensions
from meshfw.model import DROP, Chain, Family, Network, Rule, Ruleset
from meshfw.reconcile import apply
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns
from meshfw.testing.perrule import PerRuleClient, lines_of
from meshfw.testing.rulesets import copied
from meshfw.testing.wrapping import Recording

pytestmark = pytest.mark.kernel

LANGUAGE: Final = Language.of(builtin_extensions())
SIZES: Final = (10, 10_000)
MAKERS: Final[Mapping[str, Callable[[Site], Backend]]] = {
    "iptables-legacy": iptables_legacy,
    "iptables-nft": iptables_nft,
    "nft": NftBackend,
}
RESTORES: Final = {"iptables-legacy": 1, "iptables-nft": 1, "nft": 0}
"""The processes that a change takes for each changed family."""
NEW: Final = Rule(source=Network.parse("198.51.100.7"), target=DROP)


class Room:
    """A namespace with one backend at work in it, and the processes of each of its reconciles."""

    def __init__(self, name: str, netns: Netns) -> None:
        self.name = name
        self.each = RESTORES[name]
        self._netns = netns
        self._opened: list[Backend] = []
        self.backend = self.fresh()

    def fresh(self) -> Backend:
        """One more backend, which knows nothing."""
        made = MAKERS[self.name](Site(owner="meshfw", language=LANGUAGE, netns=self._netns.path))
        self._opened.append(made)
        return made

    def close(self) -> None:
        for held in self._opened:
            held.close()

    def counted(self, ruleset: Ruleset, backend: Backend | None = None, *, times: int = 1) -> tuple[int, Report]:
        """Processes of some applies in a row, and the last one's report."""
        with ProcessCounter() as counter:
            reports = [apply(backend or self.backend, ruleset) for _ in range(times)]
        return counter.count.forks, reports[-1]


@pytest.fixture(params=MAKERS)
def room(
    request: pytest.FixtureRequest, netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Room]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    request.getfixturevalue("requires")("iptables-legacy-restore", "ip6tables-nft-restore")
    made = Room(request.param, netns)
    yield made
    made.close()


def longest(ruleset: Ruleset) -> Chain:
    return max((chain for chain in ruleset.chains if chain.family is Family.IPV4), key=lambda chain: len(chain.rules))


def edited(ruleset: Ruleset, edit: Callable[[list[Rule]], object]) -> Ruleset:
    chain = longest(ruleset)
    rules = list(chain.rules)
    edit(rules)
    new = msgspec.structs.replace(chain, rules=tuple(rules))
    return msgspec.structs.replace(ruleset, chains=tuple(new if held is chain else held for held in ruleset.chains))


EDITS: Final[Mapping[str, Callable[[list[Rule]], object]]] = {
    "one more at the end": lambda rules: rules.append(NEW),
    "one more in the middle": lambda rules: rules.insert(len(rules) // 2, NEW),
    "one less at the end": lambda rules: rules.pop(),
    "one less at the beginning": lambda rules: rules.pop(0),
    "one edited in its place": lambda rules: rules.__setitem__(len(rules) // 2, NEW),
    "two change places": lambda rules: rules.append(rules.pop(-2)),
}


@pytest.mark.parametrize("size", SIZES)
def test_what_happened_alone_says_how_many_processes_it_takes(room: Room, size: int) -> None:
    mesh, each = mesh_ruleset(size, language=LANGUAGE), room.each
    families = len(mesh.families)
    cold, report = room.counted(mesh)
    assert (cold, report.outcome) == (each * families, Outcome.CHANGED)
    idle, report = room.counted(mesh, times=100)
    assert (idle, report.outcome) == (0, Outcome.IDLE)
    same, report = room.counted(copied(mesh))
    assert (same, report.outcome) == (0, Outcome.CLEAN)
    for name, edit in EDITS.items():
        changed = edited(mesh, edit)
        assert room.counted(changed)[0] == each, name
        assert room.counted(mesh)[0] == each, f"back from {name}"
    adopted, report = room.counted(mesh, room.fresh())
    assert (adopted, report.outcome) == (each * families, Outcome.CLEAN)
    apply(room.fresh(), edited(mesh, list.pop))
    repaired, report = room.counted(mesh)
    assert report.outcome is Outcome.CHANGED
    assert repaired <= 2 * each
    cleaned, report = room.counted(Ruleset())
    assert (cleaned, report.outcome) == (each * families, Outcome.CHANGED)


def test_an_iptables_backend_counts_what_it_spends(room: Room) -> None:
    if not room.each:
        return
    mesh, costs = mesh_ruleset(10, language=LANGUAGE), room.backend.cache.costs
    with ProcessCounter() as counter:
        apply(room.backend, mesh)
        apply(room.backend, edited(mesh, list.pop))
        room.backend.observe()
    assert costs.processes == counter.count.forks > 0
    assert costs.commits == 2
    assert costs.reads == 4  # before and behind the first commit, behind the second, and one more
    assert 0 < costs.commit_seconds < 60
    assert (costs.lock_seconds > 0) == (room.name == "iptables-legacy")


def test_a_client_of_one_process_a_rule_takes_two_for_each(
    netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires: Callable[..., None]
) -> None:
    requires("iptables-nft", "ip6tables-nft")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    backend = Recording(iptables_nft(Site(owner="meshfw", language=LANGUAGE, netns=netns.path)))
    apply(backend, mesh_ruleset(20, language=LANGUAGE))
    lines = lines_of(backend.transactions[0].steps)
    apply(backend, Ruleset())
    backend.close()
    client = PerRuleClient(netns, lines)
    with ProcessCounter() as first:
        client.sync()
    with ProcessCounter() as idle:
        client.sync()
    rules = sum(line.letter != "N" for line in lines)
    assert first.count.forks == 2 * rules + len(lines) - rules
    assert idle.count.forks == len(lines)
