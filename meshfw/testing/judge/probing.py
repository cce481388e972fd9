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
from meshfw.extensions.tcp import FLAGS, TCP
from meshfw.extensions.udp import UDP
from meshfw.model import Elements, Ends, Family, Hook, Packet, Rule
from meshfw.testing.judge.addresses import MACS, OWN, any_address, side, usable, visible
from meshfw.testing.judge.edges import Edges, edges
from meshfw.testing.judge.frames import AH, ERRORS, ICMPS, PORTED, UDPLITE, Probe, build
from meshfw.testing.topology import MESH, WAN

SYN, ACK, RST, FIN, PSH, URG = (FLAGS[name] for name in ("SYN", "ACK", "RST", "FIN", "PSH", "URG"))
HOPS: Final = 64
"""The usual time to live."""

_OTHERS: Final = (SCTP, UDPLITE, 33, 50, 47)
_CHOICE: Final = (TCP,) * 8 + (UDP,) * 8 + (0,) * 3 + _OTHERS  # 0 is the family's ICMP
_FIRST: Final = {ACK, ACK | PSH, ACK | URG, ACK | PSH | URG}
"""TCP flags that open a connection in the middle of it (nf_conntrack_tcp_loose)."""
_VALID: Final = {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG}
"""Flags that may stand together, PSH aside (nf_conntrack_proto_tcp.c, tcp_valid_flags)."""
_ONGOING: Final = (ACK, ACK | PSH, ACK | URG, FIN | ACK)
_OPENING: Final = {Family.IPV4: {8, 13, 15, 17}, Family.IPV6: {128, 139}}
_NEVER_TRACKED: Final = {130, 131, 132, 133, 134, 135, 136, 143}  # nf_conntrack_proto_icmpv6.c, noct_valid_new
_NOT_SENT: Final = {Family.IPV4: {5}, Family.IPV6: {2}}  # what changes routes
_STATES: Final = ("new",) * 11 + ("established",) * 4 + ("invalid",) * 2 + ("related", "untracked", "untracked")
_EVEN: Final = ("new", "established", "invalid", "related", "untracked")
_INWARD: Final = {"client": MESH, "server": WAN, "gateway": ""}
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")
_TOLD_APART: Final = {ICMP, ICMPV6, TCP, UDP, UDPLITE, SCTP}
_ON_THE_WAY: Final = {43, 44, 50, AH, 60, 135}  # RFC 8200, 4.1
_TRIES: Final = 40


class Aim(NamedTuple):
    """A rule on one of the hooks by which packets come to it."""

    rule: Rule
    hook: Hook


class ProbeMaker:
    """Makes probes of one family at random, none twice, for a list of aims.

    Every other one has to meet the aim's rule, as far as that can be told. Without ``tracked`` the probes may be
    fragments, without ``routed`` those for prerouting may bear addresses that no router takes.
    """

    def __init__(
        self,
        aims: Sequence[Aim],
        *,
        family: Family,
        sets: Mapping[str, Elements],
        chance: random.Random,
        tracked: bool = True,
        routed: bool = True,
    ) -> None:
        self._family = family
        self._chance = chance
        self._sets = sets
        self._tracked = tracked
        self._routed = routed
        self._aims = [(aim, edges(aim.rule, family=family, sets=sets)) for aim in aims]
        self._all = Edges()
        for _, found in self._aims:
            self._all.add(found)
        self._taken: set[Any] = set()
        self._flows: set[Any] = set()
        self._lengths: dict[Any, int] = {}

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
        for attempt in range(_TRIES):
            probe = self._draw(aim, near)
            if probe is None or (meeting and attempt < _TRIES // 2 and not self._may_meet(aim, probe.packet)):
                continue
            key = (probe.packet, probe.start)
            flow = self._flow(probe.packet)
            if key not in self._taken and flow not in self._flows:
                self._taken.add(key)
                if flow is not None:
                    self._flows.add(flow)
                return probe
        return None

    def _may_meet(self, aim: Aim, packet: Packet) -> bool:
        return aim.rule.meets(packet, self._sets) is not False

    def _flow(self, packet: Packet) -> Any:
        """What conntrack would take for the same connection, in either direction; None where that does no harm."""
        if packet.protocol not in PORTED:
            return None
        ends = (packet.source, packet.sport), (packet.destination, packet.dport)
        return (packet.protocol, *sorted(ends, key=repr))

    # --- drawing ---

    def _draw(self, aim: Aim, near: Edges) -> Probe | None:
        start, packet = self._ends(aim, near)
        if packet is None:
            return None
        packet = self._transport(packet, near, aim.rule)
        packet = msgspec.structs.replace(packet, **self._header(packet, near))
        if not self._tracked:
            packet = msgspec.structs.replace(packet, state=None)
            if self._cut(start, packet):
                packet = msgspec.structs.replace(
                    packet, fragment=True, sport=None, dport=None, tcp_flags=None, icmp=None
                )
            return Probe(packet=self._sized(packet, near), start=start)
        return self._with_state(start, packet, near)

    def _cut(self, start: str, packet: Packet) -> bool:
        """Whether the packet is to be a later fragment, as IPv4 routers pass them on; their receiver waits for more."""
        through = start != "gateway" and packet.destination not in OWN[self._family]
        return through and self._family is Family.IPV4 and self._chance.random() < 0.3

    def _pick(self, field: str, near: Edges) -> Any:
        """A value of the rule's own edges, or now and then of another rule's; None where there is none."""
        roll = self._chance.random()
        own = getattr(near, field)
        if own and roll < 0.85:
            return self._chance.choice(own)
        values = getattr(self._all, field)
        return self._chance.choice(values) if values and roll > 0.7 else None

    def _ends(self, aim: Aim, near: Edges) -> tuple[str, Packet | None]:
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
        if start == "gateway" and destination in OWN[family]:
            return start, None
        if start != "gateway" and source in OWN[family]:
            return start, None
        packet = Packet(
            family=family,
            source=source,
            destination=destination,
            in_interface=_INWARD[start],
            mac=self._mac(start, near),
            ttl=HOPS,
            tos=0,
        )
        return start, packet

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
            fields["ttl"] = min(max(number, 3), 254)  # with 255 neighbour discovery would be heeded
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

    # --- states ---

    def _with_state(self, start: str, packet: Packet, near: Edges) -> Probe | None:
        wish = self._chance.choice(_EVEN if near.states else _STATES)
        if packet.protocol not in _TOLD_APART and self._chance.random() < 0.9:
            wish = "untracked"  # connections without ports run into one another, all the more where they are translated
        if wish == "untracked":
            return self._probe(start, packet, near, state="UNTRACKED", ct_mark=None)
        if wish == "established" and packet.protocol in (TCP, UDP):
            return self._established(start, packet, near)
        if packet.protocol == ICMPS[self._family] and packet.icmp and packet.icmp[0] in ERRORS[self._family]:
            return self._error(start, packet, near, related=wish == "related")
        if wish == "invalid" and packet.protocol == TCP and not near.flags:
            packet = msgspec.structs.replace(packet, tcp_flags=self._chance.choice((RST, FIN | ACK, 0, SYN | FIN)))
        return self._lone(start, packet, near)

    def _probe(self, start: str, packet: Packet, near: Edges, **fields: Any) -> Probe:
        return Probe(packet=self._sized(msgspec.structs.replace(packet, **fields), near), start=start)

    def _lone(self, start: str, packet: Packet, near: Edges) -> Probe:
        """A packet that no other came before."""
        state = first_state(packet)
        if state == "NEW":
            return self._probe(start, packet, near, **_opened(packet))
        return self._probe(start, packet, near, state=state, ct_mark=None)

    def _established(self, start: str, packet: Packet, near: Edges) -> Probe | None:
        """A packet of a connection whose first packets went before it, in one direction or the other."""
        replying = self._chance.random() < 0.5
        flags = packet.tcp_flags
        if packet.protocol == TCP:
            flags = flags if flags in _ONGOING else self._chance.choice(_ONGOING)
        far = side(packet.destination or 0, self._family)
        out = packet if not replying else _turned(packet)
        there, back = (start, far) if not replying else (far, start)
        if "gateway" in (there, back) and OWN[self._family] >= {packet.source, packet.destination}:
            return None
        packet = msgspec.structs.replace(packet, tcp_flags=flags)
        steps = [(there, out, SYN), (back, _turned(out), SYN | ACK)]
        steps += [(there, out, ACK)] if packet.protocol == TCP else []
        if packet.protocol == UDP and replying:
            steps = steps[:1]
        prior = tuple(self._prior(place, held, on) for place, held, on in steps)
        fields = {"state": "ESTABLISHED", "ct_mark": 0, "snat": False, "dnat": False}
        made = self._probe(
            start, packet, near, **fields, direction="REPLY" if replying else "ORIGINAL", origin=_ends(out)
        )
        return msgspec.structs.replace(made, prior=prior)

    def _prior(self, place: str, packet: Packet, flags: int) -> Probe:
        """A plain packet of a probe's connection, sent before."""
        bare = Packet(
            family=packet.family,
            source=packet.source,
            destination=packet.destination,
            protocol=packet.protocol,
            sport=packet.sport,
            dport=packet.dport,
            tcp_flags=flags if packet.protocol == TCP else None,
        )
        return Probe(packet=bare, start=place)

    def _error(self, start: str, packet: Packet, near: Edges, *, related: bool) -> Probe | None:
        """An ICMP error about a packet that its receiver sent before, or about one that nobody saw."""
        family = self._family
        sender = side(packet.destination or 0, family)
        if sender == start or (sender == "gateway" and packet.source in OWN[family]):
            return None
        about = Packet(
            family=family,
            source=packet.destination,
            destination=packet.source,
            protocol=UDP,
            sport=self._chance.randint(1024, 0xFFFF),
            dport=self._chance.randint(1, 0xFFFF),
        )
        flow = self._flow(about)
        if flow in self._flows:
            return None
        self._flows.add(flow)
        state = "RELATED" if related else "INVALID"
        fields: dict[str, Any] = {"state": state, "ct_mark": 0 if related else None}
        if related:
            fields |= {"snat": False, "dnat": False, "direction": None, "origin": None}
        made = self._sized(msgspec.structs.replace(packet, **fields), near, about)
        prior = (self._prior(sender, about, 0),) if related else ()
        return Probe(packet=made, start=start, about=about, prior=prior)


def first_state(packet: Packet) -> str | None:
    """What conntrack makes of a packet that belongs to no connection; None where that isn't known here."""
    if packet.protocol == TCP:
        flags = packet.tcp_flags or 0
        if flags & ~PSH not in _VALID:
            return "INVALID"
        return "NEW" if flags & ~PSH in (SYN, SYN | URG) or flags in _FIRST else "INVALID"
    if packet.protocol == ICMPS[packet.family]:
        kind = packet.icmp[0] if packet.icmp else 8
        if packet.family is Family.IPV6 and kind in _NEVER_TRACKED:
            return "UNTRACKED"
        return "NEW" if kind in _OPENING[packet.family] else "INVALID"
    return "NEW" if packet.protocol in (UDP, SCTP) else None


def _opened(packet: Packet) -> dict[str, Any]:
    """What is known of a connection that the packet opens."""
    known = {"state": "NEW", "ct_mark": 0, "snat": False, "dnat": False, "direction": "ORIGINAL"}
    return known | {"origin": _ends(packet)}


def _ends(packet: Packet) -> Ends:
    return Ends(source=packet.source, destination=packet.destination, sport=packet.sport, dport=packet.dport)


def _turned(packet: Packet) -> Packet:
    """The packet's way back."""
    return msgspec.structs.replace(
        packet, source=packet.destination, destination=packet.source, sport=packet.dport, dport=packet.sport
    )
