"""A packet at one hook: the walk through tables, chains and rules, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from meshfw.errors import ModelError
from meshfw.model import (
    ACCEPTED,
    DROPPED,
    ChainKey,
    Dispatcher,
    DispatcherKey,
    Elements,
    Family,
    Fate,
    Goto,
    Hook,
    Jump,
    Match,
    Packet,
    Place,
    Policy,
    Return,
    Rule,
    Ruleset,
    Table,
    Target,
    Translation,
    Verdict,
)
from meshfw.worlds import World, altered, joined, told, translated

TABLES: Final[Mapping[Hook, tuple[Table, ...]]] = {
    Hook.PREROUTING: (Table.RAW, Table.MANGLE, Table.NAT),
    Hook.INPUT: (Table.MANGLE, Table.FILTER, Table.SECURITY, Table.NAT),
    Hook.FORWARD: (Table.MANGLE, Table.FILTER, Table.SECURITY),
    Hook.OUTPUT: (Table.RAW, Table.MANGLE, Table.NAT, Table.FILTER, Table.SECURITY),
    Hook.POSTROUTING: (Table.MANGLE, Table.NAT),
}
"""The tables of each hook in the order of their priorities (netfilter_ipv4.h): nat is last where it changes sources."""


class Spot(msgspec.Struct, frozen=True):
    """A place in a ruleset: hook, table, chain and the rule's number from 1.

    Without a chain it is in the dispatcher of that ``place``, where number 0 is the policy behind its rules; without
    either it is the whole table.
    """

    hook: Hook
    table: Table
    chain: str = ""
    number: int = 0
    place: Place | None = None

    def __str__(self) -> str:
        chain = self.chain or (self.hook if self.place is None else f"{self.hook}/{self.place}")
        tail = f" rule {self.number}" if self.number else "" if self.place is None else " policy"
        return f"{self.table} {chain}{tail}"


class Unknown(msgspec.Struct, frozen=True):
    """What can't be told of the packet, and where that was asked: a match, or the name of something else."""

    what: Match | str
    spot: Spot


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, or a policy, that the packet meets; or may meet, where that isn't ``sure``.

    ``did`` is what is done with it, in words; ``depth`` is how many chains lead here.
    """

    spot: Spot
    rule: Rule | None = None
    sure: bool = True
    did: str = ""
    depth: int = 0


class Ending(msgspec.Struct, frozen=True):
    """One possible end: the verdict, the packet as it then is, and what became of its connection's ends.

    ``spot`` is the rule or policy that ended its way; None where it passed.
    """

    verdict: Verdict
    packet: Packet
    translations: tuple[Translation, ...] = ()
    spot: Spot | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing held the packet up."""
        return self.verdict.fate is Fate.ACCEPT


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A packet at one hook: the rules on its way, how it may end there, and what can't be told of it."""

    hook: Hook
    path: tuple[Step, ...] = ()
    endings: tuple[Ending, ...] = ()
    unknowns: tuple[Unknown, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The possible verdicts, each once; a single one where all that matters is known."""
        return tuple(sorted({ending.verdict for ending in self.endings}))

    @property
    def passed(self) -> tuple[World, ...]:
        """What the packet may be when the hook lets it pass."""
        return tuple(World(held.packet, held.translations) for held in self.endings if held.passed)


class Firewall:
    """A ruleset made ready for walks: its chains, dispatchers and sets by their names."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.chains: dict[ChainKey, tuple[Rule, ...]] = {chain.key: chain.rules for chain in ruleset.chains}
        self.dispatchers: dict[DispatcherKey, Dispatcher] = {held.key: held for held in ruleset.dispatchers()}
        self.sets: dict[Family, dict[str, Elements]] = {family: {} for family in Family}
        for entry in ruleset.sets:
            self.sets[entry.family][entry.name] = entry.elements

    def passage(self, hook: Hook, worlds: Sequence[World], *, sure: bool = True) -> Passage:
        """What becomes of a packet, as it may be, at one hook; it isn't ``sure`` where it may not come here at all."""
        return _Walk(self, hook, family=worlds[0].packet.family, sure=sure).passage(worlds)

    def dispatched(self, family: Family, table: Table, hook: Hook) -> list[Dispatcher]:
        """The dispatchers of a table on a hook, in order."""
        keys = (DispatcherKey(family, table, hook, place) for place in Place)
        return [self.dispatchers[key] for key in keys if key in self.dispatchers]


_DEEP: Final = 200
"""Chains in chains: more than any kernel takes in one ruleset of nft (16), and far less than Python does."""


class _Walk:
    """One packet on its way through one hook; while things aren't known, several worlds at once."""

    def __init__(self, firewall: Firewall, hook: Hook, *, family: Family, sure: bool) -> None:
        self._firewall = firewall
        self._hook = hook
        self._family = family
        self._sets = firewall.sets[family]
        self._sure = sure
        self._path: list[Step] = []
        self._unknowns: dict[Unknown, None] = {}
        self._notes: list[str] = []
        self._gone: dict[Ending, None] = {}
        self._accepted: list[World] = []
        """Those which left the table that is being walked through by an accept."""

    def passage(self, worlds: Sequence[World]) -> Passage:
        """What the hook comes to."""
        for table in TABLES[self._hook]:
            held = self._firewall.dispatched(self._family, table, self._hook)
            if held and worlds:
                worlds = self._through(table, held, worlds)
        endings = [*self._gone, *(Ending(ACCEPTED, world.packet, world.translations) for world in worlds)]
        return Passage(
            hook=self._hook,
            path=tuple(self._path),
            endings=tuple(endings),
            unknowns=tuple(self._unknowns),
            notes=tuple(self._notes),
        )

    # --- tables ---

    def _through(self, table: Table, held: Sequence[Dispatcher], worlds: Sequence[World]) -> Sequence[World]:
        """The worlds behind a table that has dispatchers here."""
        if table is Table.RAW:
            return self._raw(held, worlds)
        if table is Table.NAT:
            return self._nat(held, worlds)
        return self._table(table, held, worlds)

    def _raw(self, held: Sequence[Dispatcher], worlds: Sequence[World]) -> Sequence[World]:
        """Table raw comes before connection tracking, so the packet has no connection there (but by lo)."""
        before = worlds[0].packet
        if before.in_interface == "lo":
            return self._table(Table.RAW, held, worlds)
        bare = {"state": "INVALID", "snat": None, "dnat": None, "direction": None, "origin": None, "ct_mark": None}
        behind = self._table(Table.RAW, held, [altered(world, bare) for world in worlds])
        tracked = {field: getattr(before, field) for field in bare}
        return [altered(world, tracked) if world.packet.state == "INVALID" else world for world in behind]

    def _nat(self, held: Sequence[Dispatcher], worlds: Sequence[World]) -> Sequence[World]:
        """Table nat sees a connection's first packet; what it decides is then done to all that follow."""
        first = [world for world in worlds if _opens(world.packet) is not False]
        behind = [world for world in worlds if _opens(world.packet) is not True]
        if any(world.packet.tracked is not False for world in behind):
            self._notes.append("table nat: it is translated as the first packet of its connection was")
        if any(_opens(world.packet) is None for world in worlds):
            self._unknowns[Unknown("whether it is the first of its connection", Spot(self._hook, Table.NAT))] = None
        if not first:
            return worlds
        sure, self._sure = self._sure, self._sure and not behind
        came = self._table(Table.NAT, held, first)
        self._sure = sure
        return joined(behind, came)

    def _table(self, table: Table, held: Sequence[Dispatcher], worlds: Sequence[World]) -> Sequence[World]:
        for dispatcher in held:
            spot = Spot(self._hook, table, place=dispatcher.key.place)
            worlds = self._chain(spot, dispatcher.rules, worlds, sure=True, depth=0)
            if worlds and dispatcher.policy is not Policy.RETURN:
                self._path.append(Step(spot=spot, sure=self._certain, did=str(dispatcher.policy)))
                self._end(DROPPED if dispatcher.policy is Policy.DROP else ACCEPTED, worlds, spot)
                worlds = []
        worlds, self._accepted = joined(worlds, self._accepted), []
        return worlds

    # --- chains ---

    @property
    def _certain(self) -> bool:
        """Whether the packet comes to where the walk now is, whatever isn't known."""
        return self._sure and not self._gone and not self._accepted

    def _chain(
        self, chain: Spot, rules: Iterable[Rule], worlds: Sequence[World], *, sure: bool, depth: int
    ) -> Sequence[World]:
        """The worlds that come back from a chain to its caller."""
        back: Sequence[World] = []
        for number, rule in enumerate(rules, 1):
            if not worlds:
                break
            met, rest, doubts = self._split(rule, worlds)
            if not met:
                continue
            spot = Spot(chain.hook, chain.table, chain.chain, number, chain.place)
            self._unknowns.update(dict.fromkeys(Unknown(doubt, spot) for doubt in doubts))
            certain = sure and not rest and not back and self._certain
            at = len(self._path)
            self._path.append(Step(spot=spot, rule=rule, sure=certain, depth=depth))
            target = rule.target
            if isinstance(target, Jump | Goto):
                did = target.label
                came = self._into(chain.table, target.chain, met, sure=certain, depth=depth + 1)
            elif isinstance(target, Return):
                did, came = "return", met
            else:
                did, came = self._hit(target, met, spot)
            self._path[at] = Step(spot=spot, rule=rule, sure=certain, did=did, depth=depth)
            if isinstance(target, Goto | Return):
                back, worlds = joined(back, came), rest
            else:
                worlds = joined(rest, came)
        return joined(back, worlds)

    def _into(self, table: Table, name: str, worlds: Sequence[World], *, sure: bool, depth: int) -> Sequence[World]:
        if depth > _DEEP:
            raise ModelError(f"more than {_DEEP} chains in chains", where=f"{self._family} {table} {name}")
        rules = self._firewall.chains[ChainKey(self._family, table, name)]
        return self._chain(Spot(self._hook, table, name), rules, worlds, sure=sure, depth=depth)

    def _split(self, rule: Rule, worlds: Sequence[World]) -> tuple[list[World], list[World], dict[Match | str, None]]:
        """Those that may meet the rule, those that may not, and the conditions of which it isn't known."""
        met, rest = [], []
        doubts: dict[Match | str, None] = {}
        for world in worlds:
            answer = rule.meets(world.packet, self._sets)
            if answer is not False:
                met.append(world)
            if answer is not True:
                rest.append(world)
            if answer is None:
                answers = rule.answers(world.packet, self._sets)
                doubts.update(dict.fromkeys(condition for condition, known in answers if known is None))
        return met, rest, doubts

    # --- targets ---

    def _hit(self, target: Target | None, worlds: Sequence[World], spot: Spot) -> tuple[str, Sequence[World]]:
        """What a target does in words, and the worlds that go on behind it."""
        if target is None:
            return "goes on", worlds
        onward: list[World] = []
        words: dict[str, None] = {}
        for world in worlds:
            verdicts = target.verdicts(world.packet)
            if len(verdicts) > 1:
                self._unknowns[Unknown(f"what {target.label} does", spot)] = None
            translation = target.translation(world.packet)
            after = translated(World(target.applied(world.packet), world.translations), translation)
            for verdict in verdicts:
                words[told(world.packet, after.packet, verdict, translation)] = None
                if verdict is None:
                    onward.append(after)
                else:
                    self._end(verdict, [after], spot)
        return " or ".join(words), joined((), onward)

    def _end(self, verdict: Verdict, worlds: Sequence[World], spot: Spot) -> None:
        if verdict.fate is Fate.ACCEPT:
            self._accepted.extend(worlds)
            return
        for world in worlds:
            self._gone[Ending(verdict, world.packet, world.translations, spot)] = None


def _opens(packet: Packet) -> bool | None:
    """Whether table nat sees it as the first packet of a connection (nf_nat_core.c, nf_nat_inet_fn)."""
    if packet.state is None:
        return None
    if packet.in_interface == "lo":  # its connection was translated when it left
        return False
    if packet.state == "RELATED":  # ICMP errors belong to the connection they tell of
        return None if packet.protocol is None else False if packet.protocol in (1, 58) else None
    return packet.state == "NEW"
