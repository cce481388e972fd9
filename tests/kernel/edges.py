"""Packets at the edges of a ruleset: made of its own constants, one before and one behind each of them included."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from meshfw.extensions.codecs import Ports, sign
from meshfw.extensions.icmp import IcmpType
from meshfw.extensions.iprange import AddressRange
from meshfw.extensions.tcp import FLAGS
from meshfw.model import (
    ChainKey,
    Family,
    Goto,
    Hook,
    Interface,
    Jump,
    Network,
    Not,
    Rule,
    Ruleset,
    SetRef,
    format_address,
)
from meshfw.testing.frames import PROTOCOLS, Packet
from meshfw.testing.probes import Result
from meshfw.testing.topology import MESH_ADDRESS, WAN, WAN_ADDRESS
from tests.kernel.worlds import WORDS

SYN, ACK, RST, FIN = (FLAGS[name] for name in ("SYN", "ACK", "RST", "FIN"))
_FLAGS: Final = (SYN, ACK, RST, 0, SYN | ACK, FIN | ACK)
_QUIET: Final = {Family.IPV4: ((8, 0), (0, 0), (13, 0), (14, 0)), Family.IPV6: ((128, 0), (129, 0))}
"""Types of ICMP that quote no packet, and that no kernel takes for a neighbour's word."""
_LINKS: Final = tuple(
    ipaddress.ip_interface(f"{address}/{length}").network
    for addresses in (MESH_ADDRESS, WAN_ADDRESS)
    for address, length in zip(addresses.values(), (24, 64), strict=True)
)
_NEAR: Final = ("peer", "host", "host2", "other", "gateway", "wan", "alias")
_FIELDS: Final = {
    "source": {"source"},
    "destination": {"destination"},
    "sport": {"sport", "sports", "ports"},
    "dport": {"dport", "dports", "ports"},
}
"""By field of a packet, the fields of rules and matches that state conditions on it."""


class Spots(msgspec.Struct, frozen=True):
    """Values of one field of a packet: those at the edges that meet a rule's conditions, and those that just don't."""

    inside: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()


class _Place(msgspec.Struct, frozen=True):
    """A rule and the way there: the rules that lead to its chain, and the hook where they begin."""

    rules: tuple[Rule, ...]
    hook: Hook | None


class Edges:
    """The constants of one family's rules, and packets made of them."""

    def __init__(self, ruleset: Ruleset, family: Family, chance: random.Random, *, fragments: bool = False) -> None:
        self._family = family
        self._chance = chance
        self._fragments = fragments and family is Family.IPV4
        self._sets = {held.name: held.elements for held in ruleset.sets if held.family is family}
        chains = [chain for chain in ruleset.chains if chain.family is family]
        self._rules = [(chain.key, rule) for chain in chains for rule in chain.rules if rule != Rule()]
        self._callers: dict[ChainKey, list[tuple[ChainKey | None, Rule, Hook | None]]] = {}
        for chain in chains:
            for rule in chain.rules:
                if isinstance(rule.target, Jump | Goto):
                    key = ChainKey(family, chain.table, rule.target.chain)
                    self._callers.setdefault(key, []).append((chain.key, rule, None))
        for item in ruleset.attachments:
            if item.family is family:
                key = ChainKey(family, item.table, item.chain)
                self._callers.setdefault(key, []).append((None, item.when, item.hook))
        words = WORDS[family]
        near = tuple(int(ipaddress.ip_address(words[name])) for name in _NEAR)
        self._all = {"source": near, "destination": near, "sport": (0, 53, 1024), "dport": (1, 9, 53, 80, 8080)}
        for field in self._all:
            for _, rule in self._rules:
                spots = self._spots(field, rule)
                self._all[field] += spots.inside + spots.outside

    def packets(self, count: int) -> list[Packet]:
        """So many packets, all different."""
        found: dict[Packet, None] = {}
        for attempt in range(50 * count):
            if len(found) == count:
                break
            key, rule = self._rules[attempt % len(self._rules)]
            found.setdefault(self._packet(self._place(key, rule)))
        return list(found)

    def _place(self, key: ChainKey | None, rule: Rule) -> _Place:
        """A rule, and one of the ways that lead there."""
        rules, hook = [rule], None
        while key is not None and self._callers.get(key):
            key, caller, hook = self._chance.choice(self._callers[key])
            rules.append(caller)
        return _Place(tuple(rules), hook)

    def _packet(self, place: _Place) -> Packet:
        """A packet that a rule is about: it meets the conditions, misses one by one, or has whatever others name."""
        chance = self._chance
        names = tuple(self._all)
        missed = chance.choice(((), (), (chance.choice(names),), (chance.choice(names),), names))
        numbers = {field: self._number(field, place.rules, missed=field in missed) for field in names}
        protocol = self._protocol(place.rules)
        start = self._start(place)
        source, destination = self._ends(numbers, place, start)
        fields: dict[str, Any] = {}
        fragment = any(rule.fragment for rule in place.rules) or chance.random() < 0.1
        if self._fragments and fragment and start != "gateway":
            fields["fragment"] = True
        elif protocol == "icmp":
            fields["icmp"] = self._icmp(place.rules)
        else:
            fields = {field: numbers[field] or 0 for field in ("sport", "dport")}
        if protocol == "tcp":
            fields["flags"] = chance.choice((SYN, SYN, SYN, *_FLAGS))
        return Packet(
            family=self._family, protocol=protocol, source=source, destination=destination, start=start, **fields
        )

    def _number(self, field: str, rules: Iterable[Rule], *, missed: bool) -> int | None:
        """A value for a field: of the first rule that has a condition on it; None where any will do."""
        for rule in rules:
            spots = self._spots(field, rule)
            pool = spots.outside if missed else spots.inside
            if pool:
                return self._chance.choice(pool)
        return self._chance.choice(self._all[field]) if missed or field == "dport" else None

    def _protocol(self, rules: Iterable[Rule]) -> str:
        names = {number: name for name, number in PROTOCOLS[self._family].items()}
        for rule in rules:
            if isinstance(rule.protocol, int) and rule.protocol in names and self._chance.random() < 0.95:
                return names[rule.protocol]
        return self._chance.choice(("udp", "udp", "tcp", "tcp", "icmp", "sctp"))

    def _icmp(self, rules: Iterable[Rule]) -> tuple[int, int]:
        quiet = _QUIET[self._family]
        own = [(kind.type, kind.code or 0) for rule in rules for kind in _values(rule.matches, IcmpType)]
        return self._chance.choice([*(kind for kind in own if kind in quiet), *quiet])

    def _start(self, place: _Place) -> str:
        if place.hook is Hook.OUTPUT:
            return "gateway"
        for rule in place.rules:
            if isinstance(rule.in_interface, Interface) and self._chance.random() < 0.9:
                return "server" if rule.in_interface.name == WAN else "client"
        return self._chance.choice(("client",) * 6 + ("server", "gateway"))

    def _ends(self, numbers: Mapping[str, int | None], place: _Place, start: str) -> tuple[str, str]:
        """Addresses of hosts, for such a packet can't be sent to or from others."""
        words = WORDS[self._family]
        usual = {"client": ("peer", "host"), "server": ("host", "peer"), "gateway": ("wan", "host")}[start]
        found = []
        for field, word in zip(("source", "destination"), usual, strict=True):
            value = numbers[field]
            text = "" if value is None else format_address(value, self._family)
            found.append(text if text and _is_host(text) else words[word])
        if place.hook is Hook.INPUT and numbers["destination"] is None:
            found[1] = words["gateway" if start == "client" else "wan"]
        if start == "gateway":  # its own address, and a host that is neither itself nor its neighbour
            found[0] = words[self._chance.choice(("wan", "gateway"))]
            if any(ipaddress.ip_address(found[1]) in link for link in _LINKS):
                found[1] = words["host"]
        return found[0], found[1]

    # --- the constants of a rule ---

    def _spots(self, field: str, rule: Rule) -> Spots:
        """The edges of a rule's conditions on a field of a packet, and of where it would send one."""
        top = 0xFFFF if "port" in field else (1 << self._family.bits) - 1
        inside: list[int] = []
        outside: list[int] = []
        for holder in (rule, *rule.matches):
            for name in set(holder.__struct_fields__) & _FIELDS[field]:
                negated, value = sign(getattr(holder, name))
                for low, high in self._ranges(value):
                    within = [low, high]
                    beyond = [each for each in (low - 1, high + 1) if 0 <= each <= top]
                    inside += beyond if negated else within
                    outside += within if negated else beyond
        to = getattr(rule.target, "to", None)
        if to is not None and field in {"destination", "dport"}:
            target = to.addresses if field == "destination" else to.ports
            outside += [edge for low, high in self._ranges(target) for edge in (low, high)]
        return Spots(tuple(inside), tuple(outside))

    def _ranges(self, value: object) -> Iterator[tuple[int, int]]:
        for net in _values(value, Network):
            yield net.address, net.address | ~net.mask & (1 << net.family.bits) - 1
        for kind in (AddressRange, Ports):
            yield from ((held.low, held.high) for held in _values(value, kind))
        for reference in _values(value, SetRef):
            yield from self._sets[reference.name]


def _values(value: object, kind: type[Any]) -> Iterator[Any]:
    """The values of a kind within another one."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Not):
        yield from _values(value.value, kind)
    elif isinstance(value, tuple):
        for item in value:
            yield from _values(item, kind)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _values(getattr(value, name), kind)


def _is_host(text: str) -> bool:
    """Whether it is the address of a host somewhere, not of a group, of nobody or of oneself."""
    address = ipaddress.ip_address(text)
    odd = address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local
    return not odd and address.packed[0] < 0xF0 if address.version == 4 else not odd


def account(packet: Packet, result: Result) -> tuple[object, ...]:
    """What is compared: the packet that arrived, changes included, and the kind and ends of the answer.

    A source port that translation had to change is one out of many: only that it did is told.
    """
    seen, answer = result.arrived, result.answer
    sport = None if seen is None else seen.sport if seen.sport == result.packet.sport or not packet.sport else "another"
    return (
        result.verdict,
        seen and (seen.kind, seen.source, seen.destination, sport, seen.dport),
        answer and (answer.kind, answer.source, answer.destination),
    )


def kinds(accounts: Iterable[tuple[object, ...]]) -> set[str]:
    """The verdicts without the addresses and ports in them."""
    return {" ".join(str(verdict).split(" from ")[0].split(" to ")[0].split()) for verdict, *_ in accounts}
