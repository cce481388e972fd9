"""Laws of few edits as a batch of our own: what it leaves is what libnftables would, and nothing is ever lost by it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import pytest
from hypothesis import settings

from meshfw.backend import Outcome, Transaction
from meshfw.errors import BackendError, ConcurrentChangeError, KernelError
from meshfw.kernel import nfbatch
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import NfRule
from meshfw.kernel.nfbatch import NewRule, rule_of, write
from meshfw.kernel.nfmessage import NfObject, rule_question
from meshfw.kernel.scratch import Scratch
from meshfw.model import Chain, ChainKey, Family, Hook, Rule, Ruleset, Set, Table
from meshfw.plan import diff
from meshfw.reconcile import apply, plan
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import CATALOGUE, rules_of, sample
from tests.kernel.test_nft import LANGUAGE, NFT, Room, assert_holds, rule, text_of, wanted, with_rules

pytestmark = pytest.mark.kernel

FULL: Final = settings.get_current_profile_name() == "full"
FW: Final = ChainKey(Family.IPV4, Table.FILTER, "fw")


@pytest.fixture
def rooms(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[tuple[Room, Room]]:
    """Two rooms with one history: one is edited by batches, in the other libnftables runs the same text."""
    requires("nft")
    with kernel_room() as first, kernel_room() as second:
        made = Room(first), Room(second)
        yield made
        for room in made:
            room.close()


@pytest.fixture
def room(netns: Netns, requires: Callable[..., None]) -> Iterator[Room]:
    requires("nft")
    made = Room(netns)
    yield made
    made.close()


def raw(room: Room) -> dict[tuple[str, str], tuple[NfRule, ...]]:
    """The rules of all our chains to the last byte, with handles and places."""
    return {
        (family, chain.name): room.netlink.rules(family, "meshfw", chain.name)
        for family in NFT.values()
        for chain in room.netlink.chains(family)
        if chain.table == "meshfw"
    }


def with_chain(ruleset: Ruleset, key: ChainKey, rules: Sequence[Rule]) -> Ruleset:
    chains = tuple(
        msgspec.structs.replace(chain, rules=tuple(rules)) if chain.key == key else chain for chain in ruleset.chains
    )
    return msgspec.structs.replace(ruleset, chains=chains)


def is_batch(backend: Any, transaction: Transaction) -> bool:
    """Whether the backend would send messages of its own for it."""
    return backend._edits.prepared(transaction) is not None


def step_by(backend: Any, ruleset: Ruleset, other: Room) -> bool:
    """One apply by a batch, and its text in another room; whether it was one."""
    observed = backend.observe()
    found = diff(observed.snapshot, ruleset)
    transaction = backend.compile(found)
    batch = is_batch(backend, transaction)
    committed = backend.commit(transaction, based_on=observed.fingerprint)
    assert committed.exclusive
    for step in transaction.steps:
        other.nft(step.input)
    return batch


# --- the same as the slow way ---


@pytest.mark.parametrize("family", Family, ids=str)
@pytest.mark.parametrize(
    ("table", "name", "hook"),
    [
        (Table.FILTER, "fw", Hook.INPUT),
        (Table.NAT, "out", Hook.POSTROUTING),
        (Table.NAT, "in", Hook.PREROUTING),
        (Table.MANGLE, "mark", Hook.PREROUTING),
    ],
    ids=str,
)
def test_every_kind_of_rule_is_byte_for_byte_what_libnftables_writes(
    rooms: tuple[Room, Room], family: Family, table: Table, name: str, hook: Hook
) -> None:
    (room, other), base = rooms, sample(LANGUAGE)
    key = ChainKey(family, table, name)
    chain = base.chain(key)
    assert chain is not None
    backend = room.backend()
    for place in (apply(backend, base), apply(other.backend(), base)):
        assert place.outcome is Outcome.CHANGED
    jumps = ("-d {host} -j rest",) if table is Table.FILTER else ()
    each = rules_of((*CATALOGUE, *_NAMING, *jumps), family=family, table=table, hooks=[hook], language=LANGUAGE)
    assert len(each) > 15
    batches = 0
    for extra in each:
        middle = len(chain.rules) // 2
        batches += step_by(backend, with_chain(base, key, (*chain.rules[:middle], extra, *chain.rules[middle:])), other)
        assert raw(room) == raw(other)
        batches += step_by(backend, base, other)
        assert raw(room) == raw(other)
    assert batches == 2 * len(each)
    assert_holds(room, base)


_NAMING: Final = ("-s @peers -j DROP", "-p tcp -m tcp --dport @web -j RETURN", "-s @nobody -j ACCEPT")


def shuffled(chance: random.Random, rules: Sequence[Rule], spare: Sequence[Rule]) -> list[Rule]:
    """The rules after a few insertions, deletions, replacements and moves."""
    found = list(rules)
    for _ in range(chance.randrange(1, 5)):
        kind, at = chance.randrange(4), chance.randrange(len(found) + 1)
        if kind == 0 or not found:
            found.insert(at, chance.choice(spare))
        elif kind == 1:
            del found[at - 1]
        elif kind == 2:
            found[at - 1] = chance.choice(spare)
        else:
            found.insert(chance.randrange(len(found)), found.pop(at - 1))
    return found


def test_any_few_edits_leave_what_libnftables_would(rooms: tuple[Room, Room]) -> None:
    (room, other), ruleset = rooms, wanted(peers=12)
    chance = random.Random(4)  # noqa: S311 - edits, no secrets
    backend = room.backend()
    apply(backend, ruleset)
    apply(other.backend(), ruleset)
    batches, rounds = 0, 400 if FULL else 40
    for number in range(rounds):
        for chain in ruleset.chains:
            if chain.name != "out" and chance.random() < 0.6:
                spare = [
                    rule(f"-s {'10.9.0.' if chain.family is Family.IPV4 else 'fd00:9::'}{at} -j DROP", chain.family)
                    for at in range(5)
                ]
                ruleset = with_chain(ruleset, chain.key, shuffled(chance, chain.rules, spare))
        sets = [with_elements(entry, chance) for entry in ruleset.sets]
        ruleset = msgspec.structs.replace(ruleset, sets=tuple(sets))
        if diff(backend.observe().snapshot, ruleset):
            batches += step_by(backend, ruleset, other)
        assert raw(room) == raw(other), number
        assert room.listing() == other.listing(), number
    assert batches > rounds // 2
    assert_holds(room, ruleset)


def with_elements(entry: Set, chance: random.Random) -> Set:
    """A set of ports with others in it."""
    if entry.intervals:
        return entry
    ports = sorted(chance.sample(range(1, 50), chance.randrange(1, 20)))
    return msgspec.structs.replace(entry, elements=tuple((port, port) for port in ports))


@pytest.mark.parametrize("family", Family, ids=str)
def test_elements_of_a_set_without_intervals_change_one_by_one(room: Room, family: Family) -> None:
    hosts = [f"10.4.{at >> 8}.{at & 255}" if family is Family.IPV4 else f"fd00:4::{at:x}" for at in range(1, 1500)]
    base = wanted([family])
    first, second = (
        msgspec.structs.replace(base, sets=(Set.of(family, "peers", held), base.sets[1]))
        for held in (hosts, [*hosts[:700], *hosts[701:], "10.99.0.1" if family is Family.IPV4 else "fd00:99::1"])
    )
    backend = room.backend()
    apply(backend, first)
    reads = backend.cache.costs.reads
    report = apply(backend, second)
    assert report.commits == 1
    assert backend.cache.costs.reads == reads
    assert_holds(room, second)
    apply(backend, first)
    assert_holds(room, first)


# --- quiet ---


def test_a_rule_in_the_middle_is_one_commit_and_no_reading(room: Room) -> None:
    backend, ruleset = room.backend(), wanted(peers=300)
    apply(backend, ruleset)
    costs = backend.cache.costs
    reads, commits = costs.reads, costs.commits
    changes: tuple[Callable[[tuple[Rule, ...]], tuple[Rule, ...]], ...] = (
        lambda held: (*held[:150], held[0], *held[150:]),
        lambda held: (*held[:50], *held[51:]),
        lambda held: (*held[:99], rule("-p 47 -j DROP"), *held[100:]),
        lambda held: (*held[:10], *held[11:200], held[10], *held[200:]),
    )
    for at, change in enumerate(changes):
        before, handles = room.generation(), room.handles(Family.IPV4, "filter-peers")
        key = ChainKey(Family.IPV4, Table.FILTER, "peers")
        chain = ruleset.chain(key)
        assert chain is not None
        ruleset = with_chain(ruleset, key, change(chain.rules))
        report = apply(backend, ruleset)
        assert (report.outcome, report.cache, report.commits) == (Outcome.CHANGED, "hit", 1)
        assert room.generation() == before + 1
        assert len(set(room.handles(Family.IPV4, "filter-peers")) - set(handles)) <= 1, "no other rule is written"
        assert (costs.reads, costs.commits) == (reads, commits + at + 1)
        assert_holds(room, ruleset)
    assert apply(backend, ruleset).outcome is Outcome.IDLE
    assert costs.commit_seconds > 0


def test_rules_of_other_chains_and_tables_are_not_asked_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, ruleset = room.backend(), wanted(peers=50)
    apply(backend, ruleset)
    ruleset = with_rules(ruleset, "fw", lambda held: held[:-1])
    apply(backend, ruleset)  # who stands beside us is looked at once

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the host's rules were asked for")

    monkeypatch.setattr(backend._nft, "run", refused)
    for name in ("tables", "chains", "rules"):
        monkeypatch.setattr(backend._netlink, name, refused)
    changed = with_rules(ruleset, "peers", lambda held: (*held[:25], *held[26:]))
    assert apply(backend, changed).commits == 1
    longer = with_rules(changed, "peers", lambda held: (*held[:9], *ruleset.chains[0].rules[1:2], *held[9:]))
    assert apply(backend, longer).commits == 1
    monkeypatch.undo()
    assert_holds(room, longer)


def test_a_moved_rule_keeps_the_packets_of_the_last_moment(room: Room) -> None:
    backend, ruleset = room.backend(), wanted(peers=40)
    apply(backend, ruleset)
    reads = backend.cache.costs.reads
    room.send(Family.IPV4, 1001, 7)
    turned = with_rules(ruleset, "fw", lambda held: (held[0], *held[2:], held[1]))
    apply(backend, turned)
    assert backend.cache.costs.reads == reads
    assert room.packets(backend, Family.IPV4)[-1] == 7


def test_the_text_is_what_nft_could_run(room: Room) -> None:
    backend, ruleset = room.backend(), wanted([Family.IPV4])
    apply(backend, ruleset)
    h = room.handles(Family.IPV4, "filter-fw")
    changed = with_rules(
        ruleset, "fw", lambda held: (held[0], rule("-p 47 -j DROP"), held[1], *held[3:7], held[2], rule("-j RETURN"))
    )
    transaction = backend.compile(plan(room.backend(), changed))
    assert transaction.steps[0].input == (
        f"delete rule ip meshfw filter-fw handle {h[2]}\n"
        f"delete rule ip meshfw filter-fw handle {h[7]}\n"
        f"insert rule ip meshfw filter-fw handle {h[1]} meta l4proto 47 counter drop\n"
        f'add rule ip meshfw filter-fw iifname "lo" udp dport 1002 counter accept\n'
        f"add rule ip meshfw filter-fw counter return\n"
    )
    assert transaction.rewrites == ()
    room.nft(transaction.steps[0].input)
    assert_holds(room, changed)


# --- where it can't be done so ---


def test_without_a_room_of_its_own_libnftables_does_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise KernelError("make a network namespace: Operation not permitted", errno=1)

    monkeypatch.setattr("meshfw.backends.nft_edits.Scratch", refused)
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    changed = with_rules(ruleset, "fw", lambda held: (*held[:3], rule("-p 47 -j DROP"), *held[3:]))
    transaction = backend.compile(plan(room.backend(), changed))
    assert not is_batch(backend, transaction)
    assert set(transaction.rewrites) == {FW, msgspec.structs.replace(FW, family=Family.IPV6)}
    assert apply(backend, changed).commits == 1
    assert_holds(room, changed)


def test_a_batch_that_the_kernel_refuses_goes_by_libnftables(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    broken = nfbatch._nested
    monkeypatch.setattr(nfbatch, "_nested", lambda kind, data: broken(kind, data.replace(b"counter", b"kounter")))
    changed = with_rules(ruleset, "fw", lambda held: (*held[:3], rule("-p 47 -j DROP"), *held[3:]))
    before = room.generation()
    assert apply(backend, changed).commits == 1
    assert room.generation() == before + 1
    assert_holds(room, changed)
    assert not is_batch(backend, backend.compile(plan(room.backend(), ruleset))), "and never again"


def test_a_batch_that_nobody_could_carry_out_is_no_reason_for_distrust(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    made = backend.compile(plan(room.backend(), with_rules(ruleset, "fw", lambda held: held[1:])))
    room.nft("flush chain ip meshfw filter-fw")
    with pytest.raises(BackendError, match="No such file"):
        backend.commit(made, based_on=None)
    apply(backend, ruleset)
    changed = with_rules(ruleset, "fw", lambda held: held[2:])
    assert is_batch(backend, backend.compile(plan(room.backend(), changed)))


def test_without_another_thread_libnftables_does_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    changed = with_rules(ruleset, "fw", lambda held: (*held[:3], rule("-p 47 -j DROP"), *held[3:]))
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert apply(backend, changed).commits == 1
    assert_holds(room, changed)


def test_answers_left_over_from_an_interrupted_call_are_nobodys(room: Room) -> None:
    apply(room.backend(), wanted())
    place, generation = NfObject("ip", "meshfw", "filter-fw"), room.netlink.settled()
    first, second, *_ = room.netlink.rules("ip", "meshfw", "filter-fw")

    def interrupted() -> None:
        for handle in (1 << 40, first.handle):
            asked = rule_question(msgspec.structs.replace(place, handle=handle), 1 << 30)
            room.netlink._socket.send(asked)

    interrupted()
    found = rule_of(room.netlink, msgspec.structs.replace(place, handle=second.handle))
    assert found is not None
    assert found.handle == second.handle
    interrupted()
    one = NewRule(place.family, place.table, place.chain, first.expressions, first.userdata)
    written = write(room.netlink, [one], generation)
    assert not written.refusals
    assert [item.handle for item in written.rules] == [room.netlink.rules("ip", "meshfw", "filter-fw")[-1].handle]


def test_a_rule_that_comes_out_otherwise_is_noticed_and_mended(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    monkeypatch.setattr(
        "meshfw.backends.nft_edits.write",
        lambda link, changes, generation: write(link, [_other(item) for item in changes], generation),
    )
    changed = with_rules(ruleset, "fw", lambda held: (*held[:3], rule("-p 47 -j DROP"), *held[3:]))
    assert apply(backend, changed).commits == 2
    assert_holds(room, changed)


def _other(change: nfbatch.Change) -> nfbatch.Change:
    """A rule with another comment."""
    return msgspec.structs.replace(change, userdata=b"\0\2x\0") if isinstance(change, NewRule) else change


def test_another_transaction_than_the_compiled_one_is_run_as_its_text(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    changed = with_rules(ruleset, "fw", lambda held: held[1:])
    made = backend.compile(plan(room.backend(), changed))
    again = msgspec.structs.replace(made, notes=("a copy",))
    assert is_batch(backend, made)
    assert not is_batch(backend, again)
    backend.commit(again, based_on=backend.fingerprint())
    assert_holds(room, changed)


# --- others who write ---


def test_a_batch_for_an_old_generation_changes_nothing_at_all(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    place = NfObject("ip", "meshfw", "filter-fw")
    (first, *_), before = room.netlink.rules("ip", "meshfw", "filter-fw"), room.netlink.settled()
    one = NewRule(place.family, place.table, place.chain, first.expressions, first.userdata)
    room.nft("add table ip foreign")
    listing = room.listing()
    assert write(room.netlink, [one], before).stale
    assert room.listing() == listing
    refused = write(room.netlink, [one, msgspec.structs.replace(place, handle=1 << 40)], room.netlink.settled())
    assert [(item.index, str(item)) for item in refused.refusals] == [(1, "No such file or directory")]
    assert room.listing() == listing
    (new,) = write(room.netlink, [one], room.netlink.settled()).rules
    assert new == room.netlink.rules("ip", "meshfw", "filter-fw")[-1] or new.position == 0


def test_a_write_between_reading_and_commit_has_the_batch_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    observed = backend.observe()
    changed = with_rules(ruleset, "fw", lambda held: held[1:])
    transaction = backend.compile(diff(observed.snapshot, changed))
    settled = backend._netlink.settled

    def late() -> int:
        found = settled()
        room.nft("add rule ip meshfw filter-fw counter drop")
        return found

    monkeypatch.setattr(backend._netlink, "settled", late)
    with pytest.raises(ConcurrentChangeError):
        backend.commit(transaction, based_on=observed.fingerprint)
    monkeypatch.undo()
    assert len(room.handles(Family.IPV4, "filter-fw")) == 9
    assert apply(backend, changed).commits == 1
    assert_holds(room, changed)


class Hostile(threading.Thread):
    """Somebody who writes into our chains and tables of his own, at any moment, and remembers what he wrote where."""

    def __init__(self, path: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._nft = Libnftables(path)
        self._chance = random.Random(seed)  # noqa: S311 - moments, no secrets
        self._nft.run("add table ip foreign\nadd chain ip foreign c\nadd set ip foreign s { type inet_service; }")
        self.rules = 0
        self.ports: set[int] = set()
        self.go = threading.Event()
        self.done = threading.Event()
        self.ended = False

    def run(self) -> None:
        while self.go.wait() and not self.ended:
            self.go.clear()
            threading.Event().wait(self._chance.random() * 0.004)
            self._write()
            self.done.set()

    def _write(self) -> None:
        kind = self._chance.randrange(5)
        if kind == 0:
            self._nft.run("add rule ip foreign c counter")
            self.rules += 1
        elif kind == 1:
            port = self._chance.randrange(1, 60000)
            self._nft.run(f"add element ip foreign s {{ {port} }}")
            self.ports.add(port)
        elif kind == 2:
            self._nft.run("insert rule ip meshfw filter-peers counter drop")
        elif kind == 3:
            self._nft.run("add rule ip meshfw filter-fw counter accept")
        else:
            self._nft.run("flush chain ip meshfw filter-peers")

    def end(self) -> None:
        self.ended = True
        self.go.set()
        self.join()
        self._nft.close()


def test_a_hostile_writer_at_any_moment_loses_nothing_and_breaks_nothing(room: Room) -> None:
    backend, ruleset = room.backend(), wanted(peers=20)
    apply(backend, ruleset)
    witness = room.backend()
    hostile = Hostile(room.netns.path, seed=9)
    hostile.start()
    chance = random.Random(3)  # noqa: S311 - edits, no secrets
    repaired, key = 0, ChainKey(Family.IPV4, Table.FILTER, "peers")
    try:
        for number in range(2000 if FULL else 60):
            chain = ruleset.chain(key)
            assert chain is not None
            spare = [rule(f"-s 10.9.{number % 250}.{at} -j DROP") for at in range(3)]
            ruleset = with_chain(ruleset, key, shuffled(chance, chain.rules, spare)[:30])
            hostile.done.clear()
            hostile.go.set()
            repaired += apply(backend, ruleset).commits
            assert hostile.done.wait(10)
            repaired += apply(backend, ruleset).commits
            held = room.netlink.rules("ip", "foreign", "c")
            assert len(held) == hostile.rules, f"round {number}: a foreign rule was lost"
            assert text_of(diff(witness.observe().snapshot, ruleset)) == "", f"round {number}"
    finally:
        hostile.end()
    assert repaired > (2000 if FULL else 60)
    listed = set(map(int, room.nft("list set ip foreign s").partition("elements = {")[2].partition("}")[0].split(",")))
    assert listed == hostile.ports


def test_a_body_is_compiled_without_the_host(room: Room) -> None:
    scratch = Scratch()
    try:
        before = room.generation()
        (jump, listed) = scratch.bodies(
            "ip",
            ["ip saddr @set-peers counter jump filter-a", "tcp dport { 80, 443 } counter accept"],
            chains=["filter-a"],
            sets={"set-peers": "type ipv4_addr; flags interval;"},
        )
        assert jump is not None
        assert jump.sets == ()
        assert listed is not None
        assert [held.name for held in listed.sets] == ["__set0"]
        with pytest.raises(KernelError):
            scratch.bodies("ip", ["counter jump nowhere"])
        assert room.generation() == before
    finally:
        scratch.close()
        scratch.close()


def test_new_chains_go_the_usual_way(room: Room) -> None:
    backend, ruleset = room.backend(), wanted()
    apply(backend, ruleset)
    more = (*ruleset.chains, Chain(family=Family.IPV4, table=Table.FILTER, name="new"))
    assert not is_batch(backend, backend.compile(plan(room.backend(), msgspec.structs.replace(ruleset, chains=more))))
