"""IPv4 and IPv6 packets as bytes: built with a number inside, and known by it again wherever they turn up.

The number lies where address translation leaves it alone: in the payload of UDP and ICMP, in a parameter of SCTP's
first chunk, in the sequence and acknowledgement numbers of TCP, from where a reset returns it.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

import msgspec

from meshfw.extensions.icmp import ICMP, ICMPV6
from meshfw.extensions.sctp import SCTP
from meshfw.extensions.tcp import FLAGS
from meshfw.model import Family

NUMBERS: Final = 1 << 23
"""How many numbers there are."""
PROTOCOLS: Final = {
    Family.IPV4: {"icmp": ICMP, "tcp": 6, "udp": 17, "sctp": SCTP},
    Family.IPV6: {"icmp": ICMPV6, "tcp": 6, "udp": 17, "sctp": SCTP},
}
"""Each protocol's number in each family (RFC 5237)."""

_MAGIC: Final = b"meshfw"
_NUMBER: Final = struct.Struct("!6sI")
_SIGN: Final = 0x5A  # the first byte of our TCP sequence numbers
_ECHO: Final = {Family.IPV4: 8, Family.IPV6: 128}  # RFC 792, RFC 4443
_ECHO_REPLY: Final = {Family.IPV4: 0, Family.IPV6: 129}
_UNREACHABLE: Final = {Family.IPV4: 3, Family.IPV6: 1}
_ERRORS: Final = {Family.IPV4: (3, 4, 5, 11, 12), Family.IPV6: (1, 2, 3, 4)}  # types that quote the packet
_UNREACHABLE_CODES: Final = {  # by iptables' words (RFC 792, RFC 1812, RFC 4443)
    Family.IPV4: {
        0: "net-unreachable",
        1: "host-unreachable",
        2: "proto-unreachable",
        3: "port-unreachable",
        9: "net-prohibited",
        10: "host-prohibited",
        13: "admin-prohibited",
    },
    Family.IPV6: {
        0: "no-route",
        1: "admin-prohibited",
        3: "addr-unreachable",
        4: "port-unreachable",
        5: "policy-fail",
        6: "reject-route",
    },
}
_LATER: Final = 100  # a fragment offset in units of 8 bytes
_MIDDLE: Final = 0x2000  # struct iphdr: more fragments follow
_FLAG_BITS: Final = tuple(FLAGS.items())
_NAMES: Final = {17: "udp", SCTP: "sctp"}


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet to send: ``protocol`` is udp, tcp, sctp or icmp; ``start`` is its place: client, gateway or server.

    ``flags`` are TCP's (:data:`~meshfw.extensions.tcp.FLAGS`), ``icmp`` is type and code (None: an echo request);
    with ``fragment`` it is the second fragment (IPv4) of a datagram whose first never comes. A port 0 is chosen by
    the sender.
    """

    family: Family
    protocol: str
    source: str
    destination: str
    sport: int = 0
    dport: int = 0
    flags: int = FLAGS["SYN"]
    icmp: tuple[int, int] | None = None
    fragment: bool = False
    start: str = "client"
    number: int = 0


class Seen(msgspec.Struct, frozen=True):
    """A packet that turned up.

    ``kind`` is its protocol, and for an answer its nature: ``reply``, ``reset``, ``syn-ack``, or the name of an ICMP
    error, whose number and ports are then those of the packet it quotes.
    """

    number: int
    kind: str
    source: str
    destination: str
    sport: int = 0
    dport: int = 0


def build(packet: Packet) -> bytes:
    """The packet's bytes from its IP header on."""
    family = packet.family
    source, destination = _address(packet.source, family), _address(packet.destination, family)
    protocol = PROTOCOLS[family][packet.protocol]
    payload = _NUMBER.pack(_MAGIC, packet.number)
    if not packet.fragment:
        pseudo = source + destination + struct.pack("!II", 0, protocol)
        payload = _BUILDERS[packet.protocol](packet, payload, pseudo)
    if family is Family.IPV6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload
    offset = _MIDDLE | _LATER if packet.fragment else 0
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), packet.number & 0xFFFF, offset, 64, protocol, 0)
    head += source + destination
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + payload


def _address(text: str, family: Family) -> bytes:
    return socket.inet_pton(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, text)


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _with_sum(data: bytes, at: int, pseudo: bytes) -> bytes:
    """The data with its checksum put in, which covers addresses, length and protocol too (RFC 9293, RFC 8200)."""
    value = _sum(pseudo[:-8] + struct.pack("!I", len(data)) + pseudo[-4:] + data)
    return data[:at] + struct.pack("!H", value or 0xFFFF) + data[at + 2 :]


def _udp(packet: Packet, payload: bytes, pseudo: bytes) -> bytes:
    head = struct.pack("!HHHH", packet.sport, packet.dport, 8 + len(payload), 0)
    return _with_sum(head + payload, 6, pseudo)


def _tcp(packet: Packet, _payload: bytes, pseudo: bytes) -> bytes:
    sequence = _SIGN << 24 | packet.number << 1  # a peer that adds one to it leaves the number whole
    head = struct.pack("!HHIIBBHHH", packet.sport, packet.dport, sequence, sequence, 5 << 4, packet.flags, 1024, 0, 0)
    return _with_sum(head, 16, pseudo)


def _sctp(packet: Packet, payload: bytes, _pseudo: bytes) -> bytes:
    """An INIT chunk (RFC 9260, 3.3.2) with a parameter that every receiver skips."""
    parameter = struct.pack("!HH", 0x8000, 4 + len(payload)) + payload
    length = 20 + len(parameter)
    chunk = struct.pack("!BBHIIHHI", 1, 0, length, packet.number | 1 << 31, 0xFFFF, 1, 1, packet.number) + parameter
    chunk += bytes(-length % 4)
    ports = struct.pack("!HHI", packet.sport, packet.dport, 0)
    return ports + struct.pack("<I", _crc32c(ports + bytes(4) + chunk)) + chunk


def _crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _icmp(packet: Packet, payload: bytes, pseudo: bytes) -> bytes:
    kind, code = packet.icmp or (_ECHO[packet.family], 0)
    data = struct.pack("!BBHHH", kind, code, 0, packet.number & 0xFFFF, packet.number >> 16) + payload
    if packet.family is Family.IPV6:
        return _with_sum(data, 2, pseudo)
    return data[:2] + struct.pack("!H", _sum(data)) + data[4:]


_BUILDERS: Final = {"udp": _udp, "tcp": _tcp, "icmp": _icmp, "sctp": _sctp}


# --- reading -----------------------------------------------------------------------------------------------


def parse(data: bytes) -> Seen | None:
    """What a packet is, from its IP header on; None for one without a number of ours."""
    if len(data) < 20:
        return None
    if data[0] >> 4 == 6:
        if len(data) < 40:
            return None
        source, destination = (socket.inet_ntop(socket.AF_INET6, part) for part in (data[8:24], data[24:40]))
        return parse_payload(Family.IPV6, data[6], data[40:], source=source, destination=destination)
    source, destination = (socket.inet_ntop(socket.AF_INET, part) for part in (data[12:16], data[16:20]))
    payload = data[(data[0] & 0xF) * 4 :]
    if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:
        number = _number(payload)
        return None if number is None else Seen(number, "fragment", source, destination)
    return parse_payload(Family.IPV4, data[9], payload, source=source, destination=destination)


def parse_payload(family: Family, protocol: int, payload: bytes, *, source: str, destination: str) -> Seen | None:
    """What a packet is, from its transport header on."""
    if len(payload) < 8:
        return None
    if protocol == PROTOCOLS[family]["icmp"]:
        return _parse_icmp(family, payload, source, destination)
    if protocol not in (6, *_NAMES):
        return None
    sport, dport = struct.unpack_from("!HH", payload)
    number = _tcp_number(payload) if protocol == 6 else _number(payload)
    if number is None:
        return None
    kind = _tcp_kind(payload) if protocol == 6 else _NAMES[protocol]
    return Seen(number, kind, source, destination, sport, dport)


def _parse_icmp(family: Family, payload: bytes, source: str, destination: str) -> Seen | None:
    kind, code = payload[0], payload[1]
    if kind in _ERRORS[family]:
        quoted = parse(payload[8:])
        if quoted is None:
            return None
        return Seen(quoted.number, _error_name(family, kind, code), source, destination, quoted.sport, quoted.dport)
    number = _number(payload)
    if number is None:
        return None
    return Seen(number, "reply" if kind == _ECHO_REPLY[family] else "icmp", source, destination)


def _error_name(family: Family, kind: int, code: int) -> str:
    name = _UNREACHABLE_CODES[family].get(code) if kind == _UNREACHABLE[family] else None
    return name or f"icmp {kind}/{code}"


def _number(payload: bytes) -> int | None:
    at = payload.find(_MAGIC)
    if at < 0 or len(payload) < at + _NUMBER.size:
        return None
    number: int = _NUMBER.unpack_from(payload, at)[1]
    return number


def _tcp_number(payload: bytes) -> int | None:
    """The number in a TCP header, or in the 8 bytes of it that an ICMP error must quote."""
    fields = struct.unpack_from("!II" if len(payload) >= 12 else "!I", payload, 4)
    for value in reversed(fields):  # an answer acknowledges our number, and has a sequence of its own
        if value >> 24 == _SIGN:
            return int(value) >> 1 & NUMBERS - 1
    return None


def _tcp_kind(payload: bytes) -> str:
    flags = payload[13] if len(payload) > 13 else 0
    on = {name for name, bit in _FLAG_BITS if flags & bit}
    if "RST" in on:
        return "reset"
    return "syn-ack" if {"SYN", "ACK"} <= on else "tcp"
