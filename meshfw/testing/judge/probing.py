"""Probes on both sides of the bounds of a ruleset's rules, each distinct, and each in a state that is known.

A probe is made for one rule on one hook: it takes its fields from the rule's edges mostly, and otherwise from those of
all rules or at random, so that most probes meet all conditions of a rule but one. Its state comes of what is sent
before the rules are there (a packet of the same connection), of the packet's own nature (a TCP reset without a
connection is invalid), or of the road's table (untracked).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from meshfw.extensions.icmp import ICMP, ICMPV6
from meshfw.extensions.sctp import SCTP
from meshfw.extensions.tcp import TCP
from meshfw.extensions.udp import UDP
from meshfw.model import Elements, Family, Hook, Interface, Packet, Rule
from meshfw.testing.judge.addresses import MACS, OWN, any_address, usable, visible
from meshfw.testing.judge.connecting import ACK, RST, SYN, Connecting
from meshfw.testing.judge.edges import Edges, edges
from meshfw.testing.judge.frames import AH, ICMPS, PORTED, UDPLITE, Probe, build
from meshfw.testing.topology import MESH, WAN

HOPS: Final = 64
"""The usual time to live."""

_OTHERS: Final = (SCTP, UDPLITE, 33, 50, 47)
_CHOICE: Final = (TCP,) * 8 + (UDP,) * 8 + (0,) * 3 + _OTHERS  # 0 is the family's ICMP
_NOT_SENT: Final = {Family.IPV4: {5}, Family.IPV6: {2}}  # what changes routes
_INWARD: Final = {"client": MESH, "server": WAN, "gateway": ""}
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")
_ON_THE_WAY: Final = {43, 44, AH, 60, 135}  # RFC 8200, 4.1
_TRIES: Final = 40
_EAGER: Final = 8  # of which so many for a packet that meets the rule; where none does, nobody looks for one again
_CLIMBS: Final = {True: 5, False: 25}  # the field's rules state more at once than random ones, and are judged once
_TOGETHER: Final = (
    *(("source", "source_type"), ("destination", "destination_type"), ("in_interface", "mac")),
    *(("protocol", "sport", "dport", "tcp_flags", "icmp"), ("mark",), ("tos",), ("ttl",)),
)
"""Fields that stand or fall together."""


class Aim(NamedTuple):
    """A rule on one of the hooks by which packets come to it."""

    rule: Rule
    hook: Hook


class ProbeMaker:
    """Makes probes of one family at random, none twice, for a list of aims.

    Every other one has to meet the aim's rule, as far as that can be told. Without ``tracked`` none has a state,
    with ``fragments`` many are second or further fragments of IPv4, without ``routed`` those for prerouting may bear
    addresses that no router takes.
    """

    def __init__(
        self,
        aims: Sequence[Aim],
        *,
        family: Family,
        sets: Mapping[str, Elements],
        chance: random.Random,
        tracked: bool = True,
        fragments: bool = False,
        routed: bool = True,
    ) -> None:
        self._family = family
        self._chance = chance
        self._sets = sets
        self._tracked = tracked and not fragments
        self._fragments = fragments
        self._routed = routed
        self._aims = [(aim, edges(aim.rule, family=family, sets=sets)) for aim in aims]
        self._all = Edges()
        for _, found in self._aims:
            self._all.add(found)
        self._taken: set[Any] = set()
        self._hopeless = {aim for aim in aims if _is_elsewhere(aim.rule)}
        self._lengths: dict[Any, int] = {}
        self._connecting = Connecting(family, chance, routed=routed, sized=self._sized)

    def make(self, count: int) -> list[Probe]:
        """So many distinct probes, shared among the aims; fewer where there are none left to find."""
        found: list[Probe] = []
        rounds = 0
        while len(found) < count and rounds < count:
            rounds += 1
            for aim, near in self._aims or [(Aim(Rule(), Hook.FORWARD), Edges())]:
                probe = self.one(aim, near, meeting=rounds % 2 > 0)
                if probe is not None:
                    found.append(probe)
        return found[:count]

    def one(self, aim: Aim, near: Edges, *, meeting: bool = False) -> Probe | None:
        """A new probe for an aim, ``meeting`` its rule if it can; None where a few tries find none."""
        eager = _EAGER if meeting and aim not in self._hopeless else 0
        for attempt in range(_TRIES):
            drawn = self._climbed(aim, near) if attempt < eager else self._bare(aim, near)
            probe = None if drawn is None else self._finished(*drawn, near)
            if probe is None or (attempt < eager and self._unmet(aim, probe.packet)):
                if attempt == _EAGER - 1:
                    self._hopeless.add(aim)
                continue
            key = (probe.packet, probe.start)
            if key not in self._taken and self._connecting.claimed(probe.packet):
                self._taken.add(key)
                return probe
        return None

    def _unmet(self, aim: Aim, packet: Packet) -> int:
        """How many conditions of the aim's rule the packet is known not to meet."""
        return sum(answer is False for _, answer in aim.rule.answers(packet, self._sets))

    def _climbed(self, aim: Aim, near: Edges) -> tuple[str, Packet] | None:
        """A packet that meets as many conditions as a few draws have met: each gives it the fields that help."""
        drawn = self._bare(aim, near)
        if drawn is None:
            return None
        start, packet = drawn
        unmet = self._unmet(aim, packet)
        for _ in range(_CLIMBS[self._routed]):
            if not unmet:
                break
            other = self._bare(aim, near)
            if other is None:
                continue
            for fields in _TOGETHER:
                taken = {field: getattr(other[1], field) for field in fields}
                moved = other[0] if "in_interface" in fields else start
                tried = msgspec.structs.replace(packet, **taken)
                left = self._unmet(aim, tried)
                if left < unmet and self._can_start(moved, tried):
                    start, packet, unmet = moved, tried, left
        return start, packet

    # --- drawing ---

    def _bare(self, aim: Aim, near: Edges) -> tuple[str, Packet] | None:
        """Where a probe starts, and its packet without a state; None where nobody could send it."""
        start, packet = self._ends(aim, near)
        if not self._can_start(start, packet):
            return None
        packet = self._transport(packet, near, aim.rule)
        return start, msgspec.structs.replace(packet, **self._header(packet, near))

    def _can_start(self, start: str, packet: Packet) -> bool:
        """Whether the gateway neither gets its own packets back nor talks to itself."""
        own = OWN[self._family]
        return packet.destination not in own if start == "gateway" else packet.source not in own

    def _finished(self, start: str, packet: Packet, near: Edges) -> Probe | None:
        """The probe of a packet, with its state and length."""
        if self._tracked:
            return self._connecting.made(start, packet, near)
        packet = msgspec.structs.replace(packet, state=None)
        if self._cut(start, packet):
            nothing = {"sport": None, "dport": None, "tcp_flags": None, "icmp": None}
            packet = msgspec.structs.replace(packet, fragment=True, **nothing)
        return Probe(packet=self._sized(packet, near), start=start)

    def _cut(self, start: str, packet: Packet) -> bool:
        """Whether the packet is to be a later fragment, as IPv4 routers pass them on; their receiver waits for more."""
        through = start != "gateway" and packet.destination not in OWN[self._family]
        return through and self._fragments and self._family is Family.IPV4 and self._chance.random() < 0.4

    def _pick(self, field: str, near: Edges) -> Any:
        """A value of the rule's own edges, or now and then of another rule's; None where there is none."""
        roll = self._chance.random()
        own = getattr(near, field)
        if own and roll < 0.85:
            return self._chance.choice(own)
        values = getattr(self._all, field)
        return self._chance.choice(values) if values and roll > 0.7 else None

    def _ends(self, aim: Aim, near: Edges) -> tuple[str, Packet]:
        """Where the probe starts, and a packet with its addresses."""
        chance, family = self._chance, self._family
        outward = aim.hook is Hook.OUTPUT or (aim.hook is Hook.POSTROUTING and chance.random() < 0.3)
        inward = aim.hook is Hook.INPUT or (aim.hook is Hook.PREROUTING and chance.random() < 0.3)
        start = "gateway" if outward else "client" if chance.random() < 0.6 else "server"
        names = near.inward
        if names and not outward and chance.random() < 0.7:
            start = "server" if any(WAN.startswith(name.rstrip("+")) for name in names) else "client"
        source, destination = self._pick("source", near), self._pick("destination", near)
        far = "server" if start == "client" or (outward and chance.random() < 0.6) else "client"
        if source is None or not self._bears(aim, source):
            source = any_address(start, family, chance)
        if destination is None or not self._bears(aim, destination):
            destination = any_address("gateway" if inward else far, family, chance)
        packet = Packet(
            family=family,
            source=source,
            destination=destination,
            source_type=self._type(source),
            destination_type=self._type(destination),
            in_interface=_INWARD[start],
            mac=self._mac(start, near),
            ttl=HOPS,
            tos=0,
        )
        return start, packet

    def _type(self, address: int) -> str | None:
        """What routing takes an address for (linux/rtnetlink.h, RTN_*)."""
        if address in OWN[self._family]:
            return "LOCAL"
        return "UNICAST" if usable(address, self._family) else None

    def _mac(self, start: str, near: Edges) -> str:
        macs = [word for word in near.words if _MAC.match(word)]
        if macs and start in MACS and self._chance.random() < 0.6:
            return self._chance.choice(macs)
        return MACS.get(start, "")

    def _bears(self, aim: Aim, address: int) -> bool:
        if aim.hook is Hook.PREROUTING and not self._routed:
            return visible(address, self._family)
        return usable(address, self._family)

    def _transport(self, packet: Packet, near: Edges, rule: Rule) -> Packet:
        chance, family = self._chance, self._family
        protocol = self._pick("protocols", near) if near.protocols and chance.random() < 0.9 else None
        if (
            protocol is None
            or (protocol == AH and family is Family.IPV6)
            or protocol not in (*_CHOICE, AH, ICMPS[family])
        ):
            protocol = chance.choice(_CHOICE) or ICMPS[family]
        fields: dict[str, Any] = {"protocol": protocol}
        if protocol in PORTED:
            for field in ("sport", "dport"):
                value = self._pick(field, near)
                fields[field] = value or chance.choice((chance.randint(1, 0xFFFF), chance.randint(20000, 60000)))
        if protocol == TCP:
            flags = self._pick("flags", near)
            fields["tcp_flags"] = chance.choice((SYN, SYN, ACK, SYN | ACK, RST)) if flags is None else flags & 0x3F
        if protocol in (ICMP, ICMPV6):
            kind = self._pick("icmp", near)
            if kind is None or kind[0] in _NOT_SENT[family]:
                kind = chance.choice(
                    ((8, 0), (0, 0), (3, 1)) if family is Family.IPV4 else ((128, 0), (129, 0), (1, 4))
                )
            if family is Family.IPV4 and kind == (3, 4):
                kind = (3, 3)
            fields["icmp"] = kind
        return msgspec.structs.replace(packet, **fields)

    def _sendable(self, protocol: int) -> bool:
        """Whether the protocol's packets are what they say: in IPv6 some numbers are those of headers on the way."""
        known = (*_CHOICE, AH, ICMPS[self._family]) if self._routed else range(1, 256)
        return protocol in known and (self._family is Family.IPV4 or protocol not in _ON_THE_WAY)

    def _header(self, packet: Packet, near: Edges) -> dict[str, Any]:
        """Mark, type of service and time to live."""
        chance = self._chance
        fields: dict[str, Any] = {"mark": self._pick("marks", near) or 0}
        number = self._pick("numbers", near)
        if number is None:
            return fields
        roll = chance.random()
        if roll < 0.3:
            fields["ttl"] = min(max(number, 1), 254)  # with 255 neighbour discovery would be heeded
        elif roll < 0.6:
            fields["tos"] = number & 0xFF
        elif roll < 0.8:
            fields["tos"] = number << 2 & 0xFF | chance.choice((0, 0, 1, 2, 3))
        elif near.marks or roll < 0.82:
            fields["mark"] = number & 0xFFFFFFFF
        return fields

    def _sized(self, packet: Packet, near: Edges, about: Packet | None = None) -> Packet:
        """The packet with its length, a bound of the rule's where it can be."""
        kind = (packet.protocol, packet.fragment, about and about.protocol)
        least = self._lengths.get(kind)
        if least is None:
            bare = msgspec.structs.replace(packet, length=None)
            least = self._lengths[kind] = len(build(Probe(packet=bare, about=about), 0))
        wanted = self._pick("numbers", near)
        grows = about is None and not packet.fragment and packet.protocol != SCTP
        length = wanted if grows and wanted is not None and least <= wanted <= 1400 else least
        return msgspec.structs.replace(packet, length=length)


def _is_elsewhere(rule: Rule) -> bool:
    """Whether a rule is about an interface that the road doesn't have."""
    stated = (rule.in_interface, rule.out_interface)
    return any(isinstance(held, Interface) and not (held.holds(MESH) or held.holds(WAN)) for held in stated)
