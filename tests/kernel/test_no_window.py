"""A change of rules is one step: packets that come all the while meet the old rules or the new ones, nothing between.

What is written in one transaction shows at once: all tables of both families on nft, one table of one family on
iptables. That a window would be noticed is shown by a client that takes everything away and puts it back rule by rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from meshfw.backend import Atomicity, Backend, Committed, Fingerprint, Transaction
from meshfw.model import Family, Hook, Policy, Ruleset, Table
from meshfw.reconcile import apply
from meshfw.testing.wrapping import Wrapped
from tests.kernel.builder import Builder, both
from tests.kernel.stream import DROPPED, Change, Flow, Stream, windows
from tests.kernel.worlds import BACKENDS, WORDS, Maker, World, tool_of, worlds

pytestmark = pytest.mark.kernel

ROUNDS, MOST = 10, 400
"""Changes there and back, at least and at most."""
ENOUGH: Final = 50
"""Packets that must have been sent while commits were under way."""
LONG: Final = 500
"""Rules of a long chain."""


@pytest.fixture
def make_world(request: pytest.FixtureRequest, kernel_room: object, tmp_path: Path) -> Iterator[Maker]:
    with worlds(request, tmp_path) as make:
        yield make


@pytest.fixture(params=BACKENDS)
def world(request: pytest.FixtureRequest, make_world: Maker) -> World:
    return make_world(Family.IPV6, request.param)


class Clocked(Wrapped):
    """A backend that notes when its last commit began and ended."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.begin = self.end = 0

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        self.begin = time.monotonic_ns()
        try:
            return self.inner.commit(transaction, based_on=based_on)
        finally:
            self.end = time.monotonic_ns()


# --- states, and what packets meet under them --------------------------------------------------------------

Pair = tuple[Callable[[Builder], None], Callable[[Builder], None]]


class Scene(msgspec.Struct, frozen=True):
    """Two rulesets, and for each port where its packets go under each of them, and which table decides that."""

    one: Callable[[Builder], None]
    other: Callable[[Builder], None]
    ports: tuple[tuple[int, str, str, Table], ...]

    def flows(self, backend: Backend) -> tuple[Flow, ...]:
        together = backend.capabilities.atomicity is Atomicity.RULESET
        return tuple(
            Flow(
                "all" if together else (family, table),
                family,
                port,
                _where(family, port, one),
                _where(family, port, other),
            )
            for port, one, other, table in self.ports
            for family in Family
        )


PASS, STOP, AWAY = "pass", "stop", "away"


def _where(family: Family, port: int, fate: str) -> str:
    words = WORDS[family]
    return {PASS: f"{words['host']} {port}", STOP: DROPPED, AWAY: f"{words['host2']} 8080"}[fate]


def allow(*ports: int) -> list[str]:
    return [f"-p udp -m udp --dport {port} -j ACCEPT" for port in ports]


def deny(*ports: int) -> list[str]:
    return [f"-p udp -m udp --dport {port} -j DROP" for port in ports]


def forward(*texts: str, policy: Policy = Policy.DROP) -> Callable[[Builder], None]:
    def build(b: Builder) -> None:
        b.chain("fw", *texts)
        b.attach("fw", Hook.FORWARD, policy=policy)

    return build


def long_chain(middle: Sequence[str]) -> list[str]:
    """A chain in which packets pass at its head and its end, and one of its rules denies what a later one allows."""
    filler = [f"-p tcp -m tcp --dport {2000 + number} -j DROP" for number in range(LONG - 4 - len(middle))]
    half = len(filler) // 2
    return [*allow(1001), *deny(1005), *filler[:half], *middle, *filler[half:], *allow(1003, 1005)]


def translated(*, on: bool) -> Callable[[Builder], None]:
    """Packets to one port let through or not by table filter, those to another sent elsewhere or not by table nat."""

    def build(b: Builder) -> None:
        forward(*allow(1001, 1006, 8080), *(allow(1002) if on else allow(1012)))(b)
        rule = "-p udp -m udp --dport {port} -j DNAT --to-destination {{host_port}}"
        b.chain("in", rule.format(port=1006 if on else 1016), table=Table.NAT)
        b.attach("in", Hook.PREROUTING, table=Table.NAT)

    return build


F, N = Table.FILTER, Table.NAT
SCENES: Final = {
    "one rule of a long chain": Scene(
        forward(*long_chain(allow(1002))),
        forward(*long_chain(allow(1012))),
        (
            (1001, PASS, PASS, F),
            (1002, PASS, STOP, F),
            (1012, STOP, PASS, F),
            (1003, PASS, PASS, F),
            (1005, STOP, STOP, F),
        ),
    ),
    "the policy": Scene(
        forward(*allow(1001), *deny(1005)),
        forward(*allow(1001), *deny(1005), policy=Policy.ACCEPT),
        ((1001, PASS, PASS, F), (1004, STOP, PASS, F), (1005, STOP, STOP, F)),
    ),
    "the order": Scene(
        forward(*allow(1001, 1002), *deny(1002, 1003), *allow(1003), *deny(1005), *allow(1007, 1005)),
        forward(*deny(1005), *allow(1003, 1007), *deny(1003, 1002), *allow(1005, 1002, 1001)),
        (
            (1001, PASS, PASS, F),
            (1002, PASS, STOP, F),
            (1003, STOP, PASS, F),
            (1005, STOP, STOP, F),
            (1007, PASS, PASS, F),
        ),
    ),
    "two tables": Scene(
        translated(on=True),
        translated(on=False),
        ((1001, PASS, PASS, F), (1002, PASS, STOP, F), (1012, STOP, PASS, F), (1006, AWAY, PASS, N)),
    ),
}


# --- the laws ----------------------------------------------------------------------------------------------


Doing = Callable[[int], Change]
"""What makes a change, given how many packets have met their end before it."""


def changed(stream: Stream, steps: Sequence[Doing]) -> list[Change]:
    """The steps over and over, until enough packets came while they were under way."""
    changes: list[Change] = []
    during = 0
    while len(changes) < ROUNDS * len(steps) or (during < ENOUGH and len(changes) < MOST * len(steps)):
        for step in steps:
            changes.append(step(stream.settled()))
            during += stream.begun(changes[-1])
    assert during >= ENOUGH, "too few packets came at the right time to tell anything"
    return changes


def applying(backend: Clocked, ruleset: Ruleset, flows: tuple[Flow, ...]) -> Doing:
    """A commit."""

    def step(behind: int) -> Change:
        assert apply(backend, ruleset).commits == 1
        return Change(flows, behind, backend.begin, backend.end)

    return step


def doing(work: Callable[[], None], flows: tuple[Flow, ...]) -> Doing:
    """What somebody does."""

    def step(behind: int) -> Change:
        begin = time.monotonic_ns()
        work()
        return Change(flows, behind, begin, time.monotonic_ns())

    return step


def turned(flows: Sequence[Flow]) -> tuple[Flow, ...]:
    return tuple(flow.turned() for flow in flows)


@pytest.mark.parametrize("name", SCENES)
def test_packets_meet_the_old_rules_or_the_new_ones(world: World, name: str) -> None:
    scene, backend = SCENES[name], Clocked(world.backend())
    one, other, flows = both(scene.one), both(scene.other), scene.flows(backend)
    apply(backend, one)
    with Stream(world.topology, flows).flowing() as stream:
        changes = changed(stream, (applying(backend, other, flows), applying(backend, one, turned(flows))))
    assert windows(changes, stream.packets()) == []


@pytest.mark.parametrize("engine", ["iptables-nft", "iptables-legacy"])
def test_families_and_tables_turn_one_after_the_other_where_no_more_is_promised(make_world: Maker, engine: str) -> None:
    world = make_world(Family.IPV6, engine)
    scene, backend = SCENES["two tables"], Clocked(world.backend())
    assert backend.capabilities.atomicity is Atomicity.TABLE
    one, other = both(scene.one), both(scene.other)
    flows = tuple(msgspec.structs.replace(flow, scope="all") for flow in scene.flows(backend))
    apply(backend, one)
    with Stream(world.topology, flows).flowing() as stream:
        changes = changed(stream, (applying(backend, other, flows), applying(backend, one, turned(flows))))
    found = windows(changes, stream.packets())
    assert found, "and a window of a few milliseconds is noticed"
    assert all("old again" in word for word in found), "each packet by itself meets the old rules or the new ones"


# --- chains of ours in the hands of others -----------------------------------------------------------------

SERVICES: Final = (*deny(1005), *allow(1002, 1003, 1004, 1005))


def with_services(b: Builder) -> None:
    """What may pass stands in a chain of its own, but for packets to one port."""
    b.chain("fw", *allow(1001), "-p udp -j services")
    b.chain("services", *SERVICES)
    b.attach("fw", Hook.FORWARD, policy=Policy.DROP)


EMPTIED: Final = Scene(
    with_services,
    forward(*allow(1001)),
    ((1001, PASS, PASS, F), (1002, PASS, STOP, F), (1004, PASS, STOP, F), (1005, STOP, STOP, F)),
)
"""The services, and none of them."""


def edit(world: World, letter: str, rule: str = "") -> None:
    """Empty (F) the chain of services in both families by a tool, or append (A) a rule, each with a process."""
    for family in Family:
        if world.engine == "nft":
            verb = {"F": "flush chain", "A": "add rule"}[letter]
            text = rule.replace("-p udp -m udp --dport", "udp dport").replace("-j ", "").lower()
            words = f"{verb} {'ip' if family is Family.IPV4 else 'ip6'} meshfw filter-services {text}"
            world.run("nft", *words.split())
        else:
            words = f"-w 10 -{letter} meshfw-services {rule}"
            world.run(tool_of(world.engine, family), *words.split())


def test_a_repair_is_one_step(world: World, requires: Callable[..., None]) -> None:
    requires("nft")
    backend, ruleset = Clocked(world.backend()), both(with_services)
    flows = EMPTIED.flows(backend)
    # Somebody empties the chains of one family after the other, whatever ours can do.
    theirs = tuple(msgspec.structs.replace(flow, scope=flow.family) for flow in flows)
    apply(backend, ruleset)
    with Stream(world.topology, flows).flowing() as stream:
        steps = (doing(lambda: edit(world, "F"), theirs), applying(backend, ruleset, turned(flows)))
        changes = changed(stream, steps)
    assert windows(changes, stream.packets()) == []


def test_a_client_that_writes_rule_by_rule_is_caught(world: World, requires: Callable[..., None]) -> None:
    requires("nft")

    def rewrite() -> None:
        edit(world, "F")
        for rule in SERVICES:
            edit(world, "A", rule)

    flows = EMPTIED.flows(world.backend())
    kept = tuple(msgspec.structs.replace(flow, after=flow.before) for flow in flows)
    apply(world.backend(), both(with_services))
    with Stream(world.topology, kept).flowing() as stream:
        changes = changed(stream, (doing(rewrite, kept),))
    found = windows(changes, stream.packets())
    assert any("neither old nor new" in word for word in found)
