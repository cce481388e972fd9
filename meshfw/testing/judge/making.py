"""Random rulesets, made of the conditions and targets that rules given as texts hold.

The texts are the cases of the language's own extensions, so a new extension comes in with its cases. What no packet
can judge alone is left out by name, with the reason: see :data:`MATCHES_LEFT_OUT` and :data:`TARGETS_LEFT_OUT`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from meshfw.errors import InexpressibleError, MeshfwError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import render_rule
from meshfw.model import (
    ACCEPT,
    DROP,
    RETURN,
    Attachment,
    Chain,
    Comment,
    Elements,
    ElementType,
    Family,
    Goto,
    Hook,
    Interface,
    Jump,
    Match,
    Network,
    Not,
    OpaqueMatch,
    OpaqueTarget,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
    Target,
)
from meshfw.testing.topology import MESH, WAN

MATCHES_LEFT_OUT: Final[Mapping[str, str]] = {
    "time": "it looks at the clock",
    "statistic": "it draws lots",
    "owner": "it looks at the socket that sent the packet",
    "socket": "it looks at sockets of the host",
    "cgroup": "it looks at the socket that sent the packet",
    "set": "its elements stand outside the ruleset",
    "physdev": "no bridge is on the road",
    "cpu": "it looks at the processor",
    "ipvs": "it looks at connections of a load balancer",
    "rateest": "it measures",
}
"""Matches without a state of their own whose answer comes from somewhere else than the packet."""
TARGETS_LEFT_OUT: Final[Mapping[str, str]] = {
    "LOG": "it writes into the host's log",
    "TRACE": "it writes into the host's log",
    "AUDIT": "it writes into the host's log",
    "TEE": "it makes a second packet",
    "NFQUEUE": "a program decides",
    "QUEUE": "a program decides",
    "CLUSTERIP": "its hash begins with a secret",
    "SET": "it changes what stands outside the ruleset",
    "TPROXY": "it needs a socket",
    "SYNPROXY": "it answers in the server's place",
    "HMARK": "its hash begins with a secret",
    "IDLETIMER": "it makes a timer",
    "RATEEST": "it makes a measurement",
    "LED": "it needs a lamp",
    "CT": "zones, helpers and timeouts give a connection another name than the probe's state was made for",
    "SECMARK": "it needs a policy of SELinux",
    "CONNSECMARK": "it needs a policy of SELinux",
}
"""Targets whose effect is no packet's, or not the same in every run."""

_NAT: Final = {
    Family.IPV4: {
        Hook.PREROUTING: (
            "-j DNAT --to-destination 198.51.100.7",
            "-p tcp -j DNAT --to-destination 10.8.0.25:8080",
            "-p udp -j DNAT --to-destination 10.4.0.3:53",
            "-j REDIRECT",
            "-p tcp -j REDIRECT --to-ports 3128",
            "-j NETMAP --to 10.8.0.0/24",
        ),
        Hook.POSTROUTING: ("-j MASQUERADE", "-j SNAT --to-source 203.0.113.1", "-j SNAT --to-source 198.51.100.99"),
        Hook.OUTPUT: ("-j DNAT --to-destination 198.51.100.7", "-p tcp -j DNAT --to-destination 10.8.0.25:8080"),
        Hook.INPUT: ("-j SNAT --to-source 198.51.100.99",),
    },
    Family.IPV6: {
        Hook.PREROUTING: (
            "-j DNAT --to-destination 2001:db8:3::7",
            "-p tcp -j DNAT --to-destination [fd00:8::25]:8080",
            "-p udp -j DNAT --to-destination [fd00:4::3]:53",
            "-j REDIRECT",
            "-p tcp -j REDIRECT --to-ports 3128",
            "-j NETMAP --to fd00:8::/64",
        ),
        Hook.POSTROUTING: ("-j MASQUERADE", "-j SNAT --to-source 2001:db8:1::1", "-j SNAT --to-source 2001:db8:3::99"),
        Hook.OUTPUT: ("-j DNAT --to-destination 2001:db8:3::7", "-p tcp -j DNAT --to-destination [fd00:8::25]:8080"),
        Hook.INPUT: ("-j SNAT --to-source 2001:db8:3::99",),
    },
}
_NETWORKS: Final = {
    Family.IPV4: (
        *("10.4.0.0/16", "10.4.0.4/30", "10.4.0.9", "10.4.0.1/255.255.0.1", "192.0.2.0/24", "192.0.2.4/30"),
        *("198.51.100.0/25", "10.8.0.0/16", "203.0.113.1", "10.5.0.1", "0.0.0.0/1"),
    ),
    Family.IPV6: (
        *("fd00:4::/32", "fd00:4::4/126", "fd00:4::9", "fd00:4::1/ffff:ffff::1", "2001:db8:2::/48"),
        *("2001:db8:2::4/126", "2001:db8:3::/64", "fd00:8::/32", "2001:db8:1::1", "fd00:5::1", "::/1"),
    ),
}
_ELEMENTS: Final = {
    Family.IPV4: ("10.4.0.2-10.4.0.5", "192.0.2.4/30", "198.51.100.7", "203.0.113.1"),
    Family.IPV6: ("fd00:4::2-fd00:4::5", "2001:db8:2::4/126", "2001:db8:3::7", "2001:db8:1::1"),
}
_PORTS: Final = ("53", "80-90", "443", "1000-2000", "65535")
_VERDICTS: Final[tuple[Target | None, ...]] = (ACCEPT, ACCEPT, DROP, RETURN, None)
_HOOKS: Final = {
    Table.RAW: ((Hook.PREROUTING, Hook.OUTPUT), 3),
    Table.MANGLE: (tuple(Hook), 3),
    Table.NAT: ((Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING), 4),
    Table.FILTER: ((Hook.INPUT, Hook.FORWARD, Hook.OUTPUT), 9),
}
_SHARE: Final = {Table.RAW: 0.6, Table.MANGLE: 0.5, Table.NAT: 0.7, Table.FILTER: 0.9}
_DCCP: Final = 33  # kernels since 6.16 know no connections of it: they translate its addresses and leave its ports
_UNTOLD: Final = 0.1  # with more of these the evaluation has hardly an opinion on any probe
_TRIES: Final = 60


class Kind(StrEnum):
    """What a random ruleset is about.

    ``fragments`` leaves out conditions on the headers of ports, types and flags, where nf_tables and iptables differ: a
    second or further fragment of IPv4 has no such header, which makes iptables' matches fail, negated or not; nf_tables
    reads what stands in its place (nf_tables_core.c, nft_payload_fast_eval), also where iptables-nft wrote the rule.
    With connection tracking about nobody meets such fragments: it puts packets together first.
    """

    CONNECTIONS = "connections"
    STATELESS = "stateless"
    FRAGMENTS = "fragments"


Accepted = Callable[[Ruleset], bool]
"""Whether every backend can hold a ruleset."""


class Pool(msgspec.Struct, frozen=True):
    """The conditions and targets of one family out of which rules are made."""

    family: Family
    matches: tuple[Match, ...]
    targets: tuple[Target, ...]

    @classmethod
    def of(cls, texts: Iterable[str], *, family: Family, language: Language) -> Pool:
        """All that the texts hold and packets can judge; what doesn't parse in the family is left out."""
        matches: dict[str, Match] = {}
        targets: dict[str, Target] = {}
        for text in texts:
            try:
                rule = parse_rule(text, family=family, language=language)
            except ParseError:
                continue
            for match in rule.matches:
                if _is_judged_match(match, language):
                    matches.setdefault(repr(match), match)
            if rule.target is not None and _is_judged_target(rule.target, language):
                targets.setdefault(repr(rule.target), rule.target)
        return cls(family, tuple(matches.values()), tuple(targets.values()))


def _is_judged_match(match: Match, language: Language) -> bool:
    if isinstance(match, Comment | OpaqueMatch) or match.stateful:
        return False
    return language.by_value[type(match)].name not in MATCHES_LEFT_OUT


def _is_judged_target(target: Target, language: Language) -> bool:
    """Whether packets tell what a target does; those of table nat are made from :data:`_NAT`."""
    if isinstance(target, OpaqueTarget) or type(target) not in language.by_value:
        return False
    if language.by_value[type(target)].name in TARGETS_LEFT_OUT:
        return getattr(target, "notrack", False) is True
    return target.tables is None or Table.NAT not in target.tables


class _Seat(NamedTuple):
    """Where a chain is to stand: what packets come to it, how long it is, and the chains that it may lead to."""

    table: Table
    hooks: frozenset[Hook]
    size: int
    kind: Kind
    others: tuple[str, ...] = ()

    def below(self, chains: Iterable[Chain]) -> _Seat:
        """The seat of a chain that may lead to these."""
        return self._replace(others=tuple(chain.name for chain in chains))


class RulesetMaker:
    """Makes random rulesets of one family out of a pool; ``accepted`` keeps what a backend can't hold out of them."""

    def __init__(self, pool: Pool, *, language: Language, accepted: Accepted, chance: random.Random) -> None:
        self._pool = pool
        self._family = pool.family
        self._language = language
        self._accepted = accepted
        self._chance = chance
        told = [match for match in pool.matches if _is_told(match)]
        self._told = told, [match for match in pool.matches if not _is_told(match)]

    def make(self, kind: Kind = Kind.CONNECTIONS) -> Ruleset:
        """A ruleset over several tables and hooks."""
        tracked = kind is Kind.CONNECTIONS
        chains: list[Chain] = []
        attachments: list[Attachment] = []
        for table, (hooks, size) in _HOOKS.items():
            chosen = [hook for hook in hooks if self._chance.random() < _SHARE[table]]
            if not chosen or (table is Table.NAT and not tracked):
                continue
            seat = _Seat(table, frozenset(chosen), size, kind)
            inner = self._inner(seat)
            chains += inner
            for hook in chosen:
                name = f"{table}-{hook}"
                chains.append(self._chain(name, seat.below(inner)._replace(hooks=frozenset({hook}))))
                policy = Policy.RETURN
                if table is Table.FILTER:
                    policy = self._chance.choice((Policy.ACCEPT, Policy.DROP, Policy.RETURN, Policy.RETURN))
                attachments.append(Attachment(family=self._family, table=table, hook=hook, chain=name, policy=policy))
        return Ruleset(chains=tuple(chains), attachments=tuple(attachments), sets=self.sets())

    def sets(self) -> tuple[Set, ...]:
        """The sets that the rules may name."""
        family = self._family
        return (
            Set.of(family, "some", _ELEMENTS[family], intervals=True),
            Set.of(family, "ports", _PORTS, type=ElementType.PORT, intervals=True),
        )

    def _inner(self, seat: _Seat) -> list[Chain]:
        """Chains that others lead into, each into those before it only."""
        made: list[Chain] = []
        for number in range(self._chance.choice((0, 1, 2, 3))):
            made.append(self._chain(f"{seat.table}-{number}", seat.below(made)))
        return made

    def _chain(self, name: str, seat: _Seat) -> Chain:
        count = self._chance.randint(max(1, seat.size // 2), seat.size + 2)
        rules = [self._rule(seat) for _ in range(count)]
        return Chain(family=self._family, table=seat.table, name=name, rules=tuple(rule for rule in rules if rule))

    def _rule(self, seat: _Seat) -> Rule | None:
        """A rule that the model, nft and every backend take; None where many tries find none."""
        for _ in range(_TRIES):
            try:
                rule = self._drawn(seat.table, seat.hooks, seat.others)
                if seat.kind is Kind.FRAGMENTS:
                    rule = msgspec.structs.replace(rule, fragment=self._chance.choice((None, None, True, False)))
                if (
                    rule.losses()
                    or not self._is_of(seat.kind, rule)
                    or (seat.table is Table.NAT and rule.protocol == _DCCP)
                ):
                    continue
                render_rule(rule, family=self._family, language=self._language)
                alone = msgspec.structs.replace(rule, target=None if _leads(rule) else rule.target)
                if self._accepted(self._alone(alone, seat.table, seat.hooks)):
                    return rule
            except (MeshfwError, InexpressibleError):
                continue
        return None

    def _is_of(self, kind: Kind, rule: Rule) -> bool:
        """Whether a rule looks at nothing that the kind leaves out."""
        if kind is Kind.FRAGMENTS and any(match.protocols is not None for match in rule.matches):
            return False
        return kind is Kind.CONNECTIONS or not _looks_at_connections(rule, self._family, self._language)

    def _alone(self, rule: Rule, table: Table, hooks: Iterable[Hook]) -> Ruleset:
        chain = Chain(family=self._family, table=table, name="alone", rules=(rule,))
        attached = [Attachment(family=self._family, table=table, hook=hook, chain="alone") for hook in hooks]
        return Ruleset(chains=(chain,), attachments=tuple(attached), sets=self.sets())

    def _drawn(self, table: Table, hooks: frozenset[Hook], others: Sequence[str]) -> Rule:
        chance = self._chance
        count = chance.choice((0, 1, 1, 1, 1, 2, 2, 3))
        matches = tuple(self._match() for _ in range(count if self._pool.matches else 0))
        target, protocol = self._target(table, hooks, others)
        for match in matches:
            if match.protocols is not None:
                protocol = chance.choice(sorted(match.protocols))
        fields: dict[str, Any] = {"protocol": protocol}
        if protocol is None and chance.random() < 0.3:
            fields["protocol"] = chance.choice((6, 17, 132, Not(6), Not(17), 1 if self._family is Family.IPV4 else 58))
        for field in ("source", "destination"):
            if chance.random() < 0.35:
                fields[field] = self._signed(self._addresses())
        if chance.random() < 0.2 and not hooks & {Hook.OUTPUT, Hook.POSTROUTING}:
            fields["in_interface"] = self._signed(Interface(chance.choice((MESH, WAN, "wg+", "e+"))))
        if chance.random() < 0.2 and not hooks & {Hook.INPUT, Hook.PREROUTING}:
            fields["out_interface"] = self._signed(Interface(chance.choice((MESH, WAN, "wg+", "e+"))))
        return Rule(matches=matches, target=target, **fields)

    def _match(self) -> Match:
        """A match of the pool, mostly one of which the evaluation can tell whether a packet meets it."""
        told, untold = self._told
        if not told or (untold and self._chance.random() < _UNTOLD):
            return self._chance.choice(untold)
        return self._chance.choice(told)

    def _signed(self, value: Any) -> Any:
        return Not(value) if self._chance.random() < 0.25 else value

    def _addresses(self) -> Network | SetRef:
        if self._chance.random() < 0.15:
            return SetRef("some")
        return Network.parse(self._chance.choice(_NETWORKS[self._family]))

    def _target(self, table: Table, hooks: frozenset[Hook], others: Sequence[str]) -> tuple[Target | None, int | None]:
        """A target that fits a table mostly, and the protocol that it needs."""
        chance = self._chance
        if others and chance.random() < 0.3:
            return chance.choice((Jump, Jump, Goto))(chance.choice(others)), None
        if table is Table.NAT:
            texts = _NAT[self._family].get(chance.choice(sorted(hooks)), ())
            if texts and chance.random() < 0.7:
                rule = parse_rule(chance.choice(texts), family=self._family, language=self._language)
                return rule.target, rule.protocol if isinstance(rule.protocol, int) else None
            return chance.choice((ACCEPT, RETURN, None)), None
        fitting = [target for target in self._pool.targets if target.tables is None or table in target.tables]
        if fitting and chance.random() < (0.4 if table is Table.FILTER else 0.8):
            return chance.choice(fitting), None
        if table is not Table.FILTER and chance.random() < 0.8:
            return chance.choice((ACCEPT, RETURN, None)), None
        return chance.choice(_VERDICTS), None


def _is_told(match: Match) -> bool:
    kind = type(match)
    return kind.meets is not Match.meets or kind.meets_among is not Match.meets_among


def _leads(rule: Rule) -> bool:
    return isinstance(rule.target, Jump | Goto)


_CONNECTIONS: Final = frozenset(
    ("conntrack", "state", "connmark", "CONNMARK", "CT", "NOTRACK", "helper", "connbytes", "connlimit", "connlabel")
)


def _looks_at_connections(rule: Rule, family: Family, language: Language) -> bool:
    """Whether a rule brings connection tracking with it."""
    words = format_rule(rule, family=family, language=language).split()
    return any(word in _CONNECTIONS for word in words)


def elements(ruleset: Ruleset, family: Family) -> dict[str, Elements]:
    """The elements of a ruleset's sets of a family, by name."""
    return {entry.name: entry.elements for entry in ruleset.sets if entry.family is family}
