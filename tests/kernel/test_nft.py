"""Laws of the nft backend on a real kernel: what it leaves there, what it repairs, what it never touches."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import meshfw
from meshfw.backend import Observed, Outcome, Site
from meshfw.backends.nft import NftBackend
from meshfw.errors import BackendError, ConcurrentChangeError, UnsupportedError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import (
    Attachment,
    Chain,
    ChainKey,
    ElementType,
    Family,
    Hook,
    Policy,
    Rule,
    Ruleset,
    Set,
    Table,
)
from meshfw.model import Place as Position
from meshfw.plan import Plan, diff
from meshfw.reconcile import apply, plan
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

ROOT: Final = Path(meshfw.__file__).parents[1]
LANGUAGE: Final = Language.of(builtin_extensions())
NFT: Final = {Family.IPV4: "ip", Family.IPV6: "ip6"}
LOOPBACK: Final = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}

FOREIGN: Final = """
table ip nat {
	chain DOCKER {
		iifname "docker0" counter return
		iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80
	}
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter jump DOCKER
	}
}
table inet foreign {
	set s {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8 }
	}
	map m {
		type inet_service : verdict
		elements = { 22 : accept }
	}
	counter c { }
	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr @s counter name c accept comment "not ours"
		tcp dport vmap @m
	}
}
table ip6 meshfw2 {
	chain filter-fw {
		counter drop
	}
}
"""


def rule(text: str, family: Family = Family.IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def rules(family: Family, *texts: str) -> tuple[Rule, ...]:
    return tuple(rule(text, family) for text in texts)


def host(family: Family, number: int) -> str:
    return f"10.4.{number >> 8}.{number & 255}" if family is Family.IPV4 else f"fd00:4::{number:x}"


def wanted(families: Sequence[Family] = tuple(Family), *, peers: int = 4) -> Ruleset:
    """A small ruleset with something of everything in each family."""
    chains: list[Chain] = []
    sets: list[Set] = []
    attachments: list[Attachment] = []
    for family in families:
        fw = rules(
            family,
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-i lo -p udp -m udp --dport 1001 -j ACCEPT",
            "-i lo -p udp -m udp --dport 1002 -j ACCEPT",
            "-s @peers -j peers",
            "-p tcp -m tcp --dport @web -m comment --comment web -j ACCEPT",
            "-i lo -p udp -m udp --dport 1003 -j ACCEPT",
            "-m limit --limit 5/sec -j LOG --log-prefix dropped",
            "-i lo -p udp -m udp --dport 1004 -j ACCEPT",
        )
        each = [f"-s {host(family, index)} -p udp -m udp --dport 51820 -j ACCEPT" for index in range(1, peers + 1)]
        chains += [
            Chain(family=family, table=Table.FILTER, name="fw", rules=fw),
            Chain(family=family, table=Table.FILTER, name="peers", rules=rules(family, *each)),
            Chain(family=family, table=Table.NAT, name="out", rules=rules(family, "-o eth+ -j MASQUERADE")),
        ]
        sets += [
            Set.of(family, "peers", [host(family, 1), host(family, 2), f"{host(family, 16)}/{family.bits - 4}"]),
            Set.of(family, "web", ["80", "443"], type=ElementType.PORT),
        ]
        attachments += [
            Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain="fw", policy=Policy.DROP),
            Attachment(family=family, table=Table.NAT, hook=Hook.POSTROUTING, chain="out"),
        ]
    return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))


def with_rules(ruleset: Ruleset, name: str, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> Ruleset:
    """The ruleset with the rules of a filter chain changed in both families; everything else the same values."""
    chains = tuple(
        msgspec.structs.replace(chain, rules=change(chain.rules)) if chain.name == name else chain
        for chain in ruleset.chains
    )
    return msgspec.structs.replace(ruleset, chains=chains)


class Room:
    """A network namespace, what a foreign tool can do and see there, and backends."""

    def __init__(self, netns: Netns) -> None:
        self.netns = netns
        self._nft = Libnftables(netns.path)
        self.netlink = Nfnetlink(netns.path)
        self._backends: list[NftBackend] = []

    def close(self) -> None:
        for backend in self._backends:
            backend.close()
        self._nft.close()
        self.netlink.close()

    def backend(self, owner: str = "meshfw", **options: object) -> NftBackend:
        backend = NftBackend(Site(owner=owner, language=LANGUAGE, netns=self.netns.path, options=options))
        self._backends.append(backend)
        return backend

    def nft(self, text: str) -> str:
        """Run something as somebody else."""
        return self._nft.run(text)

    def listing(self, what: str = "ruleset") -> str:
        """Rules and sets as nft lists them, without what counting changes."""
        return self._nft.run(f"list {what}", stateless=True, handles=False)

    def bytes(self, *tables: str) -> str:
        """Foreign tables to the last byte, counters and handles included."""
        return "".join(self._nft.run(f"list table {table}") for table in tables)

    def generation(self) -> int:
        return self.netlink.generation()

    def handles(self, family: Family, chain: str) -> list[int]:
        return [held.handle for held in self.netlink.rules(NFT[family], "meshfw", chain)]

    def packets(self, backend: NftBackend, family: Family, chain: str = "fw") -> list[int]:
        held = backend.observe().snapshot.lists[ChainKey(family, Table.FILTER, chain)]
        return [entry.packets for entry in held.rules]

    def send(self, family: Family, port: int, times: int = 1) -> None:
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        with self.netns.entered(), socket.socket(kind, socket.SOCK_DGRAM) as channel:
            for _ in range(times):
                channel.sendto(b"x", (LOOPBACK[family], port))


@pytest.fixture
def room(netns: Netns, requires: Callable[..., None]) -> Iterator[Room]:
    requires("nft")
    room = Room(netns)
    yield room
    room.close()


def text_of(found: Plan) -> str:
    return found.text(lambda rule, family: format_rule(rule, family=family, language=LANGUAGE))


def assert_holds(room: Room, ruleset: Ruleset) -> None:
    """A backend that knows nothing reads the kernel and finds nothing to do."""
    assert text_of(plan(room.backend(), ruleset)) == ""


# --- what stands in the kernel ---


LAYOUT: Final = """\
table ip meshfw {
	set set-peers {
		type ipv4_addr
		elements = { 10.4.0.1 }
	}

	chain filter-fw {
		ip saddr @set-peers counter jump filter-a.2eb
		tcp dport 22 counter goto filter-a.2eb
		counter log
	}

	chain filter-a.2eb {
		counter accept
	}

	chain nat-out {
		oifname "eth0" counter masquerade
	}

	chain filter.input.first {
		type filter hook input priority -5; policy drop;
		counter jump filter-fw
	}

	chain filter.forward.last {
		type filter hook forward priority 5; policy accept;
		iifname "wg*" counter jump filter-fw
	}

	chain nat.postrouting.first {
		type nat hook postrouting priority 95; policy accept;
		counter jump nat-out
	}

	chain mangle.output.first {
		type route hook output priority -155; policy accept;
		counter jump mangle-m
	}

	chain mangle-m {
		counter
	}
}
"""


def blocks(listing: str) -> set[str]:
    """The chains and sets of a listing, whatever their order."""
    return set(re.findall(r"^\t(?:chain|set) .*?^\t\}", listing, re.MULTILINE | re.DOTALL))


def test_names_and_priorities_are_those_of_the_layout(room: Room) -> None:
    family = Family.IPV4
    fw = rules(family, "-s @peers -j a.b", "-p tcp --dport 22 -g a.b", "-j LOG")
    ruleset = Ruleset(
        chains=(
            Chain(family=family, table=Table.FILTER, name="fw", rules=fw),
            Chain(family=family, table=Table.FILTER, name="a.b", rules=rules(family, "-j ACCEPT")),
            Chain(family=family, table=Table.NAT, name="out", rules=rules(family, "-o eth0 -j MASQUERADE")),
            Chain(family=family, table=Table.MANGLE, name="m", rules=rules(family, "")),
        ),
        sets=(Set.of(family, "peers", ["10.4.0.1"]),),
        attachments=(
            Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain="fw", policy=Policy.DROP),
            Attachment(
                family=family,
                table=Table.FILTER,
                hook=Hook.FORWARD,
                chain="fw",
                place=Position.LAST,
                when=rule("-i wg+"),
            ),
            Attachment(family=family, table=Table.NAT, hook=Hook.POSTROUTING, chain="out"),
            Attachment(family=family, table=Table.MANGLE, hook=Hook.OUTPUT, chain="m"),
        ),
    )
    apply(room.backend(), ruleset)
    assert blocks(room.listing()) == blocks(LAYOUT)
    assert [(table.family, table.name) for table in room.netlink.tables()] == [("ip", "meshfw")]


def test_both_families_are_one_transaction(room: Room) -> None:
    backend = room.backend()
    before = room.generation()
    report = apply(backend, wanted())
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 1)
    assert room.generation() == before + 1
    assert {table.family for table in room.netlink.tables()} == {"ip", "ip6"}
    assert_holds(room, wanted())


@pytest.mark.parametrize("family", Family, ids=str)
def test_one_family_makes_one_table(room: Room, family: Family) -> None:
    apply(room.backend(), wanted([family]))
    assert [table.family for table in room.netlink.tables()] == [NFT[family]]
    assert_holds(room, wanted([family]))


def test_a_family_that_loses_everything_loses_its_table_alone(room: Room) -> None:
    backend = room.backend()
    apply(backend, wanted())
    kept = room.bytes("ip meshfw")
    before = room.generation()
    apply(backend, wanted([Family.IPV4]))
    assert [table.family for table in room.netlink.tables()] == ["ip"]
    assert room.bytes("ip meshfw") == kept
    assert room.generation() == before + 1


def test_the_empty_ruleset_leaves_no_trace(room: Room) -> None:
    room.nft(FOREIGN)
    before = room.listing()
    backend = room.backend()
    apply(backend, wanted())
    assert apply(backend, Ruleset()).outcome is Outcome.CHANGED
    assert room.listing() == before
    assert apply(backend, Ruleset()).outcome is not Outcome.CHANGED


def test_an_empty_table_of_ours_is_a_trace(room: Room) -> None:
    room.nft('add table ip meshfw { comment "meshfw"; }')
    apply(room.backend(), Ruleset())
    assert room.netlink.tables() == ()


# --- quiet ---


def test_a_second_apply_reads_and_writes_nothing(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    before = room.generation()
    for _ in range(100):
        assert apply(backend, ruleset).outcome is Outcome.IDLE
    assert not apply(backend, wanted()).plan  # other values of the same meaning
    assert room.generation() == before


def test_a_new_backend_adopts_what_is_there(room: Room) -> None:
    apply(room.backend(), wanted())
    before = room.generation()
    report = apply(room.backend(), wanted())
    assert (report.outcome, report.commits) == (Outcome.CLEAN, 0)
    assert room.generation() == before


def test_two_owners_for_a_hundred_ticks_write_nothing(room: Room) -> None:
    backends = [room.backend(owner) for owner in ("one", "two")]
    rulesets = [wanted(), wanted(peers=7)]
    for backend, ruleset in zip(backends, rulesets, strict=True):
        apply(backend, ruleset)
    before = room.generation()
    for _ in range(100):
        for backend, ruleset in zip(backends, rulesets, strict=True):
            assert not apply(backend, ruleset).plan
    assert room.generation() == before


def test_no_process_is_spawned_whatever_happens(room: Room) -> None:
    ruleset = wanted()
    with ProcessCounter() as counter:
        backend = room.backend()
        apply(backend, ruleset)
        apply(backend, ruleset)
        apply(backend, with_rules(ruleset, "fw", lambda held: (*held[:3], rule("-j DROP"), *held[3:])))
        room.nft("flush chain ip meshfw filter-fw")
        apply(backend, ruleset)
        room.nft("delete table ip6 meshfw")
        apply(backend, ruleset)
        room.nft("add element ip meshfw set-web { 8080 }")
        apply(room.backend(), ruleset)
        with pytest.raises(UnsupportedError):
            apply(
                backend, with_rules(ruleset, "fw", lambda held: (*held, rule("-m string --algo bm --string x -j DROP")))
            )
        apply(backend, Ruleset())
    assert counter.count.commands == ()
    assert counter.count.forks == 0


# --- repair ---


def _replace(index: int, text: str) -> Callable[[Room, Family], str]:
    return lambda room, family: (
        f"replace rule {NFT[family]} meshfw filter-fw handle {room.handles(family, 'filter-fw')[index]} {text}"
    )


def _delete(*indices: int) -> Callable[[Room, Family], str]:
    return lambda room, family: "\n".join(
        f"delete rule {NFT[family]} meshfw filter-fw handle {room.handles(family, 'filter-fw')[index]}"
        for index in indices
    )


def _run(text: str) -> Callable[[Room, Family], str]:
    """nft text with T for our table and A for the type of an address."""
    return lambda room, family: text.replace("T", f"{NFT[family]} meshfw").replace(
        "A", "ipv4_addr" if family is Family.IPV4 else "ipv6_addr"
    )


def _swap(room: Room, family: Family) -> str:
    second = room.handles(family, "filter-fw")[1]
    place = f"{NFT[family]} meshfw filter-fw"
    return f'delete rule {place} handle {second}\nadd rule {place} iifname "lo" udp dport 1001 counter accept'


def _in_the_middle(room: Room, family: Family) -> str:
    place = f"{NFT[family]} meshfw filter-fw"
    return f"add rule {place} position {room.handles(family, 'filter-fw')[3]} counter drop"


def _deleted_chain(room: Room, family: Family) -> str:
    table = f"{NFT[family]} meshfw"
    return f"flush chain {table} filter-fw\nflush chain {table} filter-peers\ndelete chain {table} filter-peers"


BASE: Final = "delete chain T filter.input.first\nadd chain T filter.input.first"
DRIFTS: Final[dict[str, Callable[[Room, Family], str]]] = {
    "first rule deleted": _delete(0),
    "rule in the middle deleted": _delete(3),
    "last rule deleted": _delete(-1),
    "several rules deleted": _delete(1, 2, 5),
    "rule edited in place": _replace(2, 'iifname "lo" udp dport 1022 counter accept'),
    "rule widened in place": _replace(2, "counter accept"),
    "verdict turned in place": _replace(2, 'iifname "lo" udp dport 1002 counter drop'),
    "comment changed in place": _replace(4, 'tcp dport @set-web counter accept comment "gone"'),
    "rule of an unknown kind in place": _replace(5, "meta hour 1-2 counter accept"),
    "rule inserted at the head": _run("insert rule T filter-fw counter accept"),
    "rule inserted in the middle": _in_the_middle,
    "rule appended": _run("add rule T filter-fw counter drop"),
    "two rules reordered": _swap,
    "rule duplicated": _run('add rule T filter-fw iifname "lo" udp dport 1004 counter accept'),
    "chain flushed": _run("flush chain T filter-fw"),
    "every chain flushed": _run("flush table T"),
    "chain deleted": _deleted_chain,
    "jump deleted": _run("flush chain T filter.input.first"),
    "jump duplicated": _run("add rule T filter.input.first counter jump filter-fw"),
    "something before the jump": _run("insert rule T filter.input.first counter accept"),
    "policy changed": _run("add chain T filter.input.first { policy accept; }"),
    "base chain at another priority": _run(BASE + " { type filter hook input priority 7; policy drop; }"),
    "base chain at another hook": _run(BASE + " { type filter hook output priority -5; policy drop; }"),
    "base chain made a regular one": _run(BASE),
    "base chain deleted": _run("delete chain T filter.input.first"),
    "base chain added": _run("add chain T filter.output.first { type filter hook output priority -5; policy drop; }"),
    "chain added": _run("add chain T mine"),
    "chain of our naming added": _run("add chain T filter-mine\nadd rule T filter-mine counter drop"),
    "table made dormant": _run("add table T { flags dormant; }"),
    "table deleted": _run("delete table T"),
    "table emptied and kept": _run("delete table T\nadd table T"),
    "whole ruleset flushed": _run("flush ruleset"),
    "map added": _run("add map T m { type inet_service : verdict; }"),
    "set added": _run("add set T s { type A; }"),
    "set of our naming added": _run("add set T set-mine { type A; }"),
    "counter added": _run("add counter T c"),
    "quota added": _run("add quota T q { over 10 mbytes; }"),
    "element added": _run("add element T set-web { 8080 }"),
    "element deleted": _run("delete element T set-web { 443 }"),
    "set emptied": _run("flush set T set-peers"),
    "set of another type": _run("flush chain T filter-fw\ndelete set T set-web\nadd set T set-web { type A; }"),
    "set with a timeout": _run(
        "flush chain T filter-fw\ndelete set T set-web\nadd set T set-web { type inet_service; timeout 1h; }"
    ),
    "set deleted": _run("flush chain T filter-fw\ndelete set T set-web"),
    "nat rule deleted": _run("flush chain T nat-out"),
    "nat turned into another": _run(
        'flush chain T nat-out\nadd rule T nat-out oifname "eth0" counter masquerade random'
    ),
}


@pytest.mark.parametrize("family", Family, ids=str)
@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_seen_and_repaired(room: Room, drift: str, family: Family) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    good = blocks(room.listing())
    room.nft(DRIFTS[drift](room, family))
    if drift != "whole ruleset flushed":
        room.nft(FOREIGN)
    foreign = "" if drift == "whole ruleset flushed" else room.bytes("ip nat", "inet foreign", "ip6 meshfw2")
    assert text_of(plan(room.backend(), ruleset))
    report = apply(backend, ruleset)
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 1)
    assert text_of(report.plan)
    assert_holds(room, ruleset)
    assert apply(backend, ruleset).outcome is Outcome.IDLE
    if foreign:
        assert room.bytes("ip nat", "inet foreign", "ip6 meshfw2") == foreign
        room.nft("delete table ip nat\ndelete table inet foreign\ndelete table ip6 meshfw2")
    assert blocks(room.listing()) == good


def test_drift_in_one_family_leaves_the_other_alone(room: Room) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    other = room.bytes("ip6 meshfw")
    room.nft("delete table ip meshfw")
    apply(backend, ruleset)
    assert room.bytes("ip6 meshfw") == other


def test_foreign_changes_alone_are_no_drift(room: Room) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    ours = room.bytes("ip meshfw", "ip6 meshfw")
    room.nft(FOREIGN)
    before = room.generation()
    report = apply(backend, ruleset)
    assert (report.outcome, report.cache) == (Outcome.CLEAN, "the kernel changed")
    assert room.generation() == before
    assert room.bytes("ip meshfw", "ip6 meshfw") == ours


def test_changes_of_every_kind_leave_foreign_tables_as_they_are(room: Room) -> None:
    room.nft(FOREIGN)
    foreign = room.bytes("ip nat", "inet foreign", "ip6 meshfw2")
    backend, ruleset = room.backend(), wanted()
    for step in (
        ruleset,
        with_rules(ruleset, "fw", lambda held: held[::-1]),
        with_rules(ruleset, "fw", lambda held: held[2:]),
        wanted(peers=40),
        wanted([Family.IPV6]),
        ruleset,
        Ruleset(),
    ):
        apply(backend, step)
        assert_holds(room, step)
        assert room.bytes("ip nat", "inet foreign", "ip6 meshfw2") == foreign


# --- counters ---


@pytest.mark.parametrize("family", Family, ids=str)
@pytest.mark.parametrize("place", [0, 1, 4, 6, 8])
def test_counters_of_untouched_rules_go_on(room: Room, family: Family, place: int) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    counted = {1: 2, 2: 3, 5: 4, 7: 5}  # the rules for ports 1001 to 1004, and how many packets to send to each
    for index, (_, times) in enumerate(counted.items()):
        room.send(family, 1001 + index, times)
    expected = [counted.get(index, 0) for index in range(8)]
    assert [expected[at] for at in counted] == [room.packets(backend, family)[at] for at in counted]
    changed = with_rules(ruleset, "fw", lambda held: (*held[:place], rule("-i none -j DROP"), *held[place:]))
    apply(backend, changed)
    assert_holds(room, changed)
    room.send(family, 1003)
    expected[5] += 1
    found = room.packets(backend, family)
    assert found[place] == 0
    del found[place]
    assert [found[at] for at in counted] == [expected[at] for at in counted]


@pytest.mark.parametrize("family", Family, ids=str)
def test_a_moved_rule_takes_its_counters_along(room: Room, family: Family) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    room.send(family, 1001, 7)
    apply(backend, with_rules(ruleset, "fw", lambda held: (held[0], *held[2:], held[1])))
    assert room.packets(backend, family)[-1] == 7


@pytest.mark.parametrize("family", Family, ids=str)
def test_repair_of_another_rule_keeps_counters(room: Room, family: Family) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    room.send(family, 1001, 2)
    room.send(family, 1004, 3)
    room.nft(_delete(3)(room, family))
    apply(backend, ruleset)
    found = room.packets(backend, family)
    assert (found[1], found[7]) == (2, 3)


# --- errors, and others who write ---


def test_a_refused_transaction_says_where_and_changes_nothing(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    listing, before = room.listing(), room.generation()
    todo = backend.compile(plan(backend, wanted(peers=9)))
    (step,) = todo.steps
    broken = msgspec.structs.replace(step, input=step.input + "add rule ip meshfw filter-fw counter jump nowhere\n")
    with pytest.raises(BackendError) as caught:
        backend.commit(msgspec.structs.replace(todo, steps=(broken,)), based_on=backend.fingerprint())
    said = str(caught.value)
    line = broken.input.count("\n")
    assert f"line {line}: Error: Could not process rule: No such file or directory" in said
    assert re.search(r"jump nowhere\n +\^+", said), said
    assert "nothing was changed" in said
    assert (room.listing(), room.generation()) == (listing, before)
    assert apply(backend, wanted(peers=9)).outcome is Outcome.CHANGED


def test_what_cannot_be_said_is_refused_before_anything_happens(room: Room) -> None:
    backend = room.backend()
    before = room.generation()
    with pytest.raises(UnsupportedError) as caught:
        apply(backend, with_rules(wanted(), "fw", lambda held: (*held, rule("-m string --algo bm --string x -j DROP"))))
    assert "ipv4 filter fw, rule 9" in str(caught.value)
    assert "string" in str(caught.value)
    assert room.generation() == before
    assert room.netlink.tables() == ()


def test_a_commit_based_on_an_old_reading_is_refused(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    seen = backend.observe()
    todo = backend.compile(plan(backend, ruleset))
    room.nft("add table ip foreign")
    with pytest.raises(ConcurrentChangeError):
        backend.commit(todo, based_on=seen.fingerprint)
    assert [table.name for table in room.netlink.tables()] == ["foreign"]
    assert apply(backend, ruleset).outcome is Outcome.CHANGED


def test_a_write_that_slips_in_before_our_commit_is_seen_and_repaired(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruleset, backend = wanted(), room.backend()
    apply(backend, ruleset)
    commit = backend._nft.run

    def run(text: str, **options: Any) -> str:
        monkeypatch.undo()
        room.nft("insert rule ip meshfw nat-out counter drop")  # in a chain that our commit doesn't touch
        return commit(text, **options)

    monkeypatch.setattr(backend._nft, "run", run)
    changed = wanted(peers=200)
    report = apply(backend, changed)
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 2)
    assert_holds(room, changed)


def test_a_foreign_write_after_every_reading_only_delays_us(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.nft("add table ip foreign\nadd chain ip foreign c")
    backend = room.backend()
    observe = backend.observe

    def observe_and_be_late(keys: Any = None) -> Observed:
        seen = observe(keys)
        room.nft("add rule ip foreign c counter")
        return seen

    monkeypatch.setattr(backend, "observe", observe_and_be_late)
    report = apply(backend, wanted())
    assert (report.outcome, report.commits) == (Outcome.CHANGED, 1)
    assert_holds(room, wanted())


WRITER: Final = """
import sys, time
from meshfw.kernel.libnftables import Libnftables
nft = Libnftables(sys.argv[1])
nft.run("add table ip foreign\\nadd chain ip foreign c\\nadd set ip foreign s { type ipv4_addr; }")
print("ready", flush=True)
due = time.monotonic()
while True:
    for text in ("add rule ip foreign c counter", "flush chain ip foreign c"):
        nft.run(text)
        due += 1 / 200
        time.sleep(max(0, due - time.monotonic()))
"""


@pytest.fixture
def writer(room: Room) -> Iterator[subprocess.Popen[str]]:
    """Somebody who commits 200 times a second to a table of his own."""
    argv = (sys.executable, "-c", WRITER, room.netns.path)
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_busy_foreign_writer_does_not_prevent_convergence(room: Room, writer: subprocess.Popen[str]) -> None:
    backend = room.backend()
    began, first = time.monotonic(), room.generation()
    own, ruleset = 0, wanted()
    for count in range(12):
        ruleset = wanted(peers=50 if count % 2 else 3 + count)
        report = apply(backend, ruleset)
        own += report.commits
        assert report.outcome is Outcome.CHANGED
        assert_holds(room, ruleset)
    while room.generation() - first - own < 100:
        assert time.monotonic() < began + 30, "the other writer does write"
        apply(backend, ruleset)
    assert writer.poll() is None


# --- a sudden end ---


def many(turn: int) -> Ruleset:
    """One of two rulesets of some 400 rules that differ in rules, sets and policies of both families."""
    ruleset = wanted(peers=200)
    if not turn:
        return ruleset
    other = with_rules(ruleset, "peers", lambda held: (*held[::-2], *held[:50]))
    sets = tuple(msgspec.structs.replace(entry, elements=entry.elements[:1]) for entry in other.sets)
    attachments = tuple(msgspec.structs.replace(entry, policy=Policy.RETURN) for entry in other.attachments)
    return Ruleset(chains=other.chains, sets=sets, attachments=attachments)


VICTIMS: Final = """
import os, sys
from meshfw.backend import Site
from meshfw.backends.nft import NftBackend
from meshfw.reconcile import apply
from tests.kernel.test_nft import LANGUAGE, many
rulesets = many(0), many(1)
for _ in sys.stdin:
    pid = os.fork()
    if not pid:
        backend = NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=sys.argv[1]))
        print(os.getpid(), flush=True)
        while True:
            for ruleset in rulesets:
                apply(backend, ruleset)
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_old_rules_or_the_new(room: Room) -> None:
    chance = random.Random(1)  # noqa: S311 - moments, no secrets
    rulesets = many(0), many(1)
    backend = room.backend()
    apply(backend, rulesets[0])
    left = []
    argv = (sys.executable, "-c", VICTIMS, room.netns.path)
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victims:
        assert victims.stdin is not None
        assert victims.stdout is not None
        for _ in range(20):
            victims.stdin.write("\n")
            victims.stdin.flush()
            pid = int(victims.stdout.readline())
            time.sleep(chance.uniform(0.02, 0.15))
            os.kill(pid, signal.SIGKILL)
            assert victims.stdout.readline() == "dead\n"
            seen = backend.observe().snapshot
            needed = [diff(seen, ruleset) for ruleset in rulesets]
            assert not all(needed), "neither the old nor the new:\n" + text_of(needed[0])[:2000]
            left.append([bool(todo) for todo in needed].index(False))
            apply(backend, rulesets[chance.randrange(2)])
        victims.stdin.close()
    assert set(left) == {0, 1}, "the kills met both states"
    apply(backend, rulesets[0])
    assert_holds(room, rulesets[0])


# --- what is asked of the kernel ---

READER: Final = """
import sys
from meshfw.backend import Site
from meshfw.backends.nft import NftBackend
from meshfw.model import Ruleset
from meshfw.reconcile import apply
from tests.kernel.test_nft import LANGUAGE, wanted, with_rules
backend, ruleset = NftBackend(Site(owner="meshfw", language=LANGUAGE)), wanted()
steps = {
    "apply": lambda: apply(backend, ruleset),
    "change": lambda: apply(backend, with_rules(ruleset, "fw", lambda held: (*held[:2], *held[3:]))),
    "adopt": lambda: apply(NftBackend(Site(owner="meshfw", language=LANGUAGE)), ruleset),
    "clean": lambda: apply(backend, Ruleset()),
}
for line in sys.stdin:
    steps[line.strip()]()
    print("done", flush=True)
"""
STEPS: Final = (
    ("", "apply"),
    ("", "change"),
    ("flush chain ip meshfw filter-fw", "apply"),
    ("delete table ip6 meshfw", "apply"),
    ("add table ip elsewhere", "adopt"),
    ("", "clean"),
)
_MESSAGE: Final = re.compile(r"NFT_MSG_(\w+), nlmsg_flags=[A-Z_|]+(.*?)(?=nlmsg_type=|$)", re.MULTILINE)


def asked_for(room: Room, steps: Sequence[tuple[str, str]], trace: Path) -> dict[str, list[set[str]]]:
    """What our program asks of nf_tables, by kind of message, each with the names in it; others write in between."""
    strace = ("strace", "-f", "-xx", "-s", "65536", "-e", "trace=sendto,sendmsg", "-o", str(trace))
    with room.netns.entered():
        program = subprocess.Popen(
            (*strace, sys.executable, "-c", READER),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        for foreign, step in steps:
            room.nft(foreign)
            program.stdin.write(f"{step}\n")
            program.stdin.flush()
            assert program.stdout.readline() == "done\n"
        program.stdin.close()
    found: dict[str, list[set[str]]] = {}
    for kind, rest in _MESSAGE.findall(trace.read_text()):
        quoted = re.findall(r'"((?:\\x[0-9a-f]{2})*)"', rest)
        names = {bytes.fromhex(word.replace("\\x", "")).rstrip(b"\0").decode(errors="replace") for word in quoted}
        found.setdefault(kind, []).append(names)
    return found


def test_rules_and_elements_of_foreign_tables_are_never_loaded(
    room: Room, requires: Callable[..., None], tmp_path: Path
) -> None:
    # Their names, their chains and the declarations of their sets are: libnftables 1.0.6 does it before each write.
    requires("strace")
    room.nft(FOREIGN)
    asked = asked_for(room, STEPS, tmp_path / "trace")
    assert asked.keys() >= {"GETRULE", "GETSETELEM", "GETCHAIN", "NEWRULE", "DELTABLE"}, "the trace shows what matters"
    for kind in ("GETRULE", "GETSETELEM", "NEWRULE", "DELRULE", "NEWSETELEM", "DELCHAIN", "DELTABLE"):
        for names in asked.get(kind, []):
            assert "meshfw" in names, f"{kind} {names}"


def test_elements_of_foreign_tables_are_not_loaded_when_ours_change(
    room: Room, requires: Callable[..., None], tmp_path: Path
) -> None:
    requires("strace")
    room.nft(FOREIGN)
    steps = (("", "apply"), ("add element ip meshfw set-web { 8080 }", "apply"))
    asked = asked_for(room, steps, tmp_path / "trace")
    assert all("meshfw" in names for names in asked["GETRULE"])
    assert [names for names in asked["GETSETELEM"] if "meshfw" not in names] == []


# --- namespaces and privileges ---


def test_a_backend_stays_in_its_namespace(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> None:
    requires("nft")
    with kernel_room() as here, kernel_room() as there:
        with here.entered():
            own = NftBackend(Site(owner="meshfw", language=LANGUAGE))
        other = NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=there.path))
        try:
            with there.entered():
                apply(own, wanted())
            with here.entered():
                apply(other, wanted([Family.IPV6]))
            assert own.fingerprint() != other.fingerprint()
            for netns, families in ((here, {"ip", "ip6"}), (there, {"ip6"})):
                with Nfnetlink(netns.path) as channel:
                    assert {table.family for table in channel.tables()} == families
        finally:
            own.close()
            other.close()


def test_a_namespace_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="there is no network namespace"):
        NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=str(tmp_path / "none")))


ORDINARY: Final = """
import ctypes, os, socket, sys
from tests.kernel.test_nft import LANGUAGE, NftBackend, Site, Ruleset, apply, wanted
import codecs, ctypes.util, ipaddress, msgspec.json, shutil, tempfile  # what comes late can't be read any more
codecs.lookup("ascii")
libc = ctypes.CDLL(None, use_errno=True)
with open("/proc/self/uid_map") as file:
    whole = file.read().split() == ["0", "0", "4294967295"]
if whole and os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
uid, gid = os.getuid(), os.getgid()
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is ours again
assert libc.unshare(0x10000000 | 0x40000000) == 0, os.strerror(ctypes.get_errno())  # CLONE_NEWUSER, CLONE_NEWNET
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
backend = NftBackend(Site(owner="meshfw", language=LANGUAGE))
ruleset = wanted(peers=int(sys.argv[1]))
report = apply(backend, ruleset)
again = apply(NftBackend(Site(owner="meshfw", language=LANGUAGE)), ruleset)
apply(backend, Ruleset())
print(uid > 0 or not whole, report.outcome, again.outcome, backend.observe().snapshot.rules)
"""


def test_an_ordinary_user_keeps_more_than_a_thousand_rules(requires: Callable[..., None]) -> None:
    requires("nft")
    done = subprocess.run(
        (sys.executable, "-c", ORDINARY, "600"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "changed", "clean", "0"]
