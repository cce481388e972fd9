"""A packet as a firewall looks at it: what is known of its headers, its way and its connection."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshfw.model.kinds import Family


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and ports of a connection in the direction of its first packet, before any translation."""

    source: int | None = None
    destination: int | None = None
    sport: int | None = None
    dport: int | None = None


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """One packet on its way through a host; None stands for what isn't known, or what its protocol doesn't have.

    ``source`` and ``destination`` are addresses as numbers, ``protocol`` is the IP protocol (RFC 5237), ``icmp`` type
    and code of ICMP or ICMPv6, ``tcp_flags`` the bits of a TCP segment (RFC 9293). ``tos`` is the IPv4 type of service
    or IPv6 traffic class, ``ttl`` the time to live or hop limit, which is one less behind routing, ``length`` the IPv4
    total length or IPv6 payload length and header in bytes, ``fragment`` whether it is a second or further IPv4
    fragment, which has no ports to see.

    ``source_type`` and ``destination_type`` are what the host's routing takes the addresses for: LOCAL, UNICAST,
    BROADCAST and so on (linux/rtnetlink.h, RTN_*).

    An empty ``in_interface``, ``out_interface`` or ``mac`` is one that the packet is known not to have: it was made
    here, it ends here, or it came by a link that isn't Ethernet.

    ``state`` is what conntrack says of it: NEW, ESTABLISHED, RELATED, INVALID or UNTRACKED. What else is known of
    its connection is ``ct_mark``, whether its addresses were translated (``snat``, ``dnat``), whose ``direction`` it
    goes in (ORIGINAL or REPLY), and its ``origin``.
    """

    family: Family
    source: int | None = None
    destination: int | None = None
    source_type: str | None = None
    destination_type: str | None = None
    protocol: int | None = None
    sport: int | None = None
    dport: int | None = None
    icmp: tuple[int, int] | None = None
    tcp_flags: int | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    state: str | None = None
    mark: int | None = 0
    ct_mark: int | None = None
    tos: int | None = None
    ttl: int | None = None
    length: int | None = None
    mac: str | None = None
    fragment: bool = False
    snat: bool | None = None
    dnat: bool | None = None
    direction: str | None = None
    origin: Ends | None = None

    @property
    def tracked(self) -> bool | None:
        """Whether it belongs to a connection that conntrack knows; None where its state isn't known."""
        return None if self.state is None else self.state not in ("INVALID", "UNTRACKED")

    def obscured(self) -> Packet:
        """The packet behind what may have changed anything of it but what it is, and the ways it comes and goes."""
        return Packet(
            family=self.family,
            protocol=self.protocol,
            icmp=self.icmp,
            tcp_flags=self.tcp_flags,
            in_interface=self.in_interface,
            out_interface=self.out_interface,
            mark=None,
            mac=self.mac,
            fragment=self.fragment,
            origin=self.origin,
        )


# --- three-valued logic: True, False, and None for what isn't known ---


def every(answers: Iterable[bool | None]) -> bool | None:
    """Whether all are True: one False settles it, whatever isn't known."""
    known: bool | None = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            known = None
    return known


def some(answers: Iterable[bool | None]) -> bool | None:
    """Whether one is True: one True settles it, whatever isn't known."""
    known: bool | None = False
    for answer in answers:
        if answer:
            return True
        if answer is None:
            known = None
    return known


def turned(answer: bool | None, negated: bool) -> bool | None:
    """The answer, or where negated its opposite; what isn't known stays so."""
    return answer if answer is None else answer is not negated
