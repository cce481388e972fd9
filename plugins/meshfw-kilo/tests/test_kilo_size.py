"""A mesh of 200 nodes: what one node more changes, how many processes that takes, and that else nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from kilo_meshes import LANGUAGE, NOW, Objects, large_mesh, ready_node, rules
from meshfw_kilo.options import Firewall

from meshfw import Backend, MemoryBackend, Outcome, Plan, Plugins, Ruleset, Site, reconcile
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.netns import Netns

NODES: Final = 200
OWN: Final = "n001"  # the leader of dc1
MESH: Final = large_mesh(NODES)
PLAIN: Final = Firewall()
FORWARDING: Final = Firewall(forward_rules=True)
COMPACT: Final = Firewall(forward_rules=True, compact=True)


def more(location: str) -> Objects:
    """The mesh with one node more."""
    node = ready_node("x", "10.99.0.0/24", "10.9.9.9/16", location=location, endpoint="203.0.113.1:1")
    return [*MESH, node]


def edits(before: Ruleset, after: Ruleset) -> int:
    """How many rules and elements of sets one has and the other hasn't; a rule that moves counts twice."""
    backend = MemoryBackend(Site(owner="meshfw", language=LANGUAGE))
    reconcile.apply(backend, before)
    return size(reconcile.plan(backend, after))


def size(plan: Plan) -> int:
    """The rules and elements that a plan adds and removes; a rule that moves counts twice."""
    count = sum(len(change.added) + len(change.removed) for change in plan.sets)
    for change in plan.lists:
        kept = sum(index >= 0 for index in change.kept)
        count += (len(change.old.rules) if change.old is not None else 0) - kept + len(change.rules) - kept
    return count


@pytest.mark.parametrize(
    ("options", "own", "location", "most"),
    [
        (PLAIN, "n001", "dc1", 3),  # its pods, itself, and IPIP from it
        (PLAIN, "n001", "dc2", 2),
        (PLAIN, "n001", "aa", 4),  # a location that comes first takes the first address: they are as many as before + 1
        (FORWARDING, "n005", "dc1", 3),
        (FORWARDING, "n001", "dc1", 7),  # a leader forwards for each, both ways
        (COMPACT, "n001", "dc1", 4),
        (COMPACT, "n001", "dc2", 2),
        (COMPACT, "n001", "aa", 3),
    ],
)
def test_one_node_more_is_a_few_rules_or_elements(options: Firewall, own: str, location: str, most: int) -> None:
    before, after = rules(MESH, own, options), rules(more(location), own, options)
    assert edits(before, after) == most
    assert edits(after, before) == most


# --- in a kernel -------------------------------------------------------------------------------------------

BACKENDS: Final = {"nft": 0, "iptables-nft": 1, "iptables-legacy": 1}
"""The processes of a change for each changed family."""


@pytest.fixture(params=BACKENDS)
def backend(
    request: pytest.FixtureRequest,
    netns: Netns,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requires: Callable[..., None],
) -> Iterator[tuple[Backend, int]]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    site = Site(owner="meshfw", language=LANGUAGE, netns=netns.path)
    made: Backend = Plugins().backend(request.param).factory(site)
    yield made, BACKENDS[request.param]
    made.close()


def counted(backend: Backend, ruleset: Ruleset, *, times: int = 1) -> tuple[int, Any]:
    with ProcessCounter() as counter:
        reports = [reconcile.apply(backend, ruleset) for _ in range(times)]
    return counter.count.forks, reports[-1]


@pytest.mark.kernel
@pytest.mark.parametrize("options", [PLAIN, COMPACT], ids=["plain", "compact"])
def test_one_node_more_takes_no_process_beyond_those_of_a_change(
    backend: tuple[Backend, int], options: Firewall
) -> None:
    works, each = backend
    before, after = rules(MESH, OWN, options), rules(more("dc1"), OWN, options)
    assert counted(works, before)[0] == 2 * each
    assert counted(works, before, times=20)[0] == 0
    same, report = counted(works, rules(MESH, OWN, options))
    assert (same, report.outcome) == (0, Outcome.CLEAN)
    for ruleset in (after, before):
        processes, report = counted(works, ruleset)
        assert (processes, report.commits) == (each, 1)
        if works.name == "nft":
            assert size(report.plan) == (3 if options is PLAIN else 4)
            assert options is PLAIN or not report.plan.lists  # elements alone


def test_a_mesh_is_of_this_hour() -> None:
    late = [ready_node("late", "10.98.0.0/24", "10.9.9.8/16", at=NOW - 60), *MESH]
    assert rules(late, OWN) == rules(MESH, OWN)
