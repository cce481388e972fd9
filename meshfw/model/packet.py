"""A packet as a firewall looks at it: what is known of its headers, its way and its connection."""

from __future__ import annotations

import msgspec

from meshfw.model.kinds import Family


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """One packet on its way through a host; None stands for what isn't known, or what the packet doesn't have.

    ``source`` and ``destination`` are addresses as numbers, ``protocol`` is the IP protocol (RFC 5237), ``icmp`` type
    and code of ICMP or ICMPv6, ``tcp_flags`` the bits of a TCP segment (RFC 9293). ``state`` is what conntrack says of
    it: NEW, ESTABLISHED, RELATED, INVALID or UNTRACKED. ``tos`` is the IPv4 type of service or IPv6 traffic class,
    ``ttl`` the time to live or hop limit, ``length`` the IPv4 total length or IPv6 payload length and header in bytes,
    ``fragment`` whether it is a second or further IPv4 fragment, which has no ports to see.
    """

    family: Family
    source: int | None = None
    destination: int | None = None
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
