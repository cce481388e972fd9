"""The states of probes: what is sent before a packet, or what the packet is, so that conntrack says one thing of it.

A packet of a connection goes behind its first packets, an ICMP error behind the packet that it quotes; a segment that
opens nothing is invalid, and what the road's table takes out of tracking is untracked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import msgspec

from meshfw.extensions.icmp import ICMP, ICMPV6
from meshfw.extensions.sctp import SCTP
from meshfw.extensions.tcp import FLAGS, TCP
from meshfw.extensions.udp import UDP
from meshfw.model import Ends, Family, Packet
from meshfw.testing.judge.addresses import OWN, side
from meshfw.testing.judge.edges import Edges
from meshfw.testing.judge.frames import ERRORS, ICMPS, PORTED, UDPLITE, Probe

SYN, ACK, RST, FIN, PSH, URG = (FLAGS[name] for name in ("SYN", "ACK", "RST", "FIN", "PSH", "URG"))

_FIRST: Final = {ACK, ACK | PSH, ACK | URG, ACK | PSH | URG}
"""TCP flags that open a connection in the middle of it (nf_conntrack_tcp_loose)."""
_VALID: Final = {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG}
"""Flags that may stand together, PSH aside (nf_conntrack_proto_tcp.c, tcp_valid_flags)."""
_ONGOING: Final = (ACK, ACK | PSH, ACK | URG, FIN | ACK)
_OPENING: Final = {Family.IPV4: {8, 13, 15, 17}, Family.IPV6: {128, 139}}
_NEVER_TRACKED: Final = {130, 131, 132, 133, 134, 135, 136, 143}  # nf_conntrack_proto_icmpv6.c, noct_valid_new
_STATES: Final = ("new",) * 11 + ("established",) * 4 + ("invalid",) * 2 + ("related", "untracked", "untracked")
_EVEN: Final = ("new", "established", "invalid", "related", "untracked")
_TOLD_APART: Final = {ICMP, ICMPV6, TCP, UDP, UDPLITE, SCTP}


Sized = Callable[[Packet, Edges, Packet | None], Packet]
"""Gives a packet its length, near a rule's edges, with what an ICMP error of it quotes."""


class Connecting:
    """Gives packets of one family their states, no two of them in one connection."""

    def __init__(self, family: Family, chance: random.Random, *, routed: bool, sized: Sized) -> None:
        self._family = family
        self._chance = chance
        self._routed = routed
        self._sized = sized
        self._flows: set[Any] = set()

    def claimed(self, packet: Packet) -> bool:
        """Whether nobody had the packet's connection before; now it's this packet's."""
        flow = _flow(packet)
        if flow in self._flows:
            return False
        if flow is not None:
            self._flows.add(flow)
        return True

    def made(self, start: str, packet: Packet, near: Edges) -> Probe | None:
        """A probe of the packet in a random state; None where the one drawn can't be had."""
        wish = self._chance.choice(_EVEN if near.states else _STATES)
        if self._routed and packet.protocol not in _TOLD_APART and self._chance.random() < 0.9:
            wish = "untracked"  # connections without ports run into one another, all the more where they are translated
        if wish == "untracked":
            return self._probe(start, packet, near, state="UNTRACKED", ct_mark=None)
        if wish == "established" and (packet.protocol in (TCP, UDP) or self._goes_on(packet)):
            return self._established(start, packet, near)
        if packet.protocol == ICMPS[self._family] and packet.icmp and packet.icmp[0] in ERRORS[self._family]:
            return self._error(start, packet, near, related=wish == "related")
        if wish == "invalid" and packet.protocol == TCP and not near.flags:
            packet = msgspec.structs.replace(packet, tcp_flags=self._chance.choice((RST, FIN | ACK, 0, SYN | FIN)))
        return self._lone(start, packet, near)

    def _goes_on(self, packet: Packet) -> bool:
        """Whether two packets of a protocol make a connection, which may then run into others."""
        return not self._routed and packet.protocol not in (ICMP, ICMPV6, SCTP)

    def _probe(self, start: str, packet: Packet, near: Edges, **fields: Any) -> Probe:
        return Probe(packet=self._sized(msgspec.structs.replace(packet, **fields), near, None), start=start)

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
        if not self.claimed(about):
            return None
        state = "RELATED" if related else "INVALID"
        fields: dict[str, Any] = {"state": state, "ct_mark": 0 if related else None}
        if related:
            fields |= {"snat": False, "dnat": False, "direction": None, "origin": None}
        made = self._sized(msgspec.structs.replace(packet, **fields), near, about)
        prior = (self._prior(sender, about, 0),) if related else ()
        return Probe(packet=made, start=start, about=about, prior=prior)


def _flow(packet: Packet) -> Any:
    """What conntrack would take for the same connection, in either direction; None where that does no harm."""
    if packet.protocol not in PORTED:
        return None
    ends = (packet.source, packet.sport), (packet.destination, packet.dport)
    return (packet.protocol, *sorted(ends, key=repr))


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
