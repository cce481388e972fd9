"""Probes as bytes: any packet of the model, with a number inside by which it and every answer to it are known again.

The number stands in the payload beside its complement, and in TCP's sequence and acknowledgement numbers, from where
a reset returns it. An ICMP error bears it in the packet that it quotes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgspec

from meshfw.extensions.icmp import ICMP, ICMPV6
from meshfw.extensions.sctp import SCTP
from meshfw.extensions.tcp import FLAGS, TCP
from meshfw.extensions.udp import UDP
from meshfw.model import Family, Packet

NUMBERS: Final = 1 << 17
"""How many numbers there are."""
UDPLITE, DCCP, ESP, AH, GRE = 136, 33, 50, 51, 47
PORTED: Final = frozenset({TCP, UDP, UDPLITE, SCTP, DCCP})
"""Protocols whose header begins with two ports (RFC 9293, 768, 3828, 9260, 4340)."""
ERRORS: Final = {Family.IPV4: frozenset({3, 4, 5, 11, 12}), Family.IPV6: frozenset({1, 2, 3, 4})}
"""The ICMP types that quote a packet (RFC 792, RFC 4443)."""
ICMPS: Final = {Family.IPV4: ICMP, Family.IPV6: ICMPV6}
HEADERS: Final = {Family.IPV4: 20, Family.IPV6: 40}

_MAGIC: Final = b"judg"
_NUMBER: Final = struct.Struct("!4sII")
_SIGN: Final = 2  # the top three bits of our TCP numbers; 17 of the number and 12 for what a peer adds to it follow
_HOP: Final = 64
_LATER: Final = 100  # a fragment offset in units of 8 bytes
_MIDDLE: Final = 0x2000  # struct iphdr: more fragments follow


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A packet to send, from ``client``, ``gateway`` or ``server``, and what has to be sent for its state before.

    ``prior`` goes through the gateway before any rule stands there; ``about`` is what an ICMP error quotes, ``options``
    are TCP's, of a length that four divides, ``spi`` is that of ESP and AH.
    """

    packet: Packet
    start: str = "client"
    prior: tuple[Probe, ...] = ()
    about: Packet | None = None
    options: bytes = b""
    spi: int = 256


class Seen(NamedTuple):
    """What a packet says of itself where it turned up; ports are 0 and icmp is None where it has none."""

    protocol: int
    source: int
    destination: int
    sport: int
    dport: int
    icmp: tuple[int, int] | None
    flags: int
    tos: int
    ttl: int


def build(probe: Probe, number: int, *, label: int = 1) -> bytes:
    """A probe's bytes from its IP header on; ``label`` is its IPv4 identification or IPv6 flow label."""
    packet = probe.packet
    payload = _NUMBER.pack(_MAGIC, number, number ^ 0xFFFFFFFF)
    family, protocol = packet.family, packet.protocol or 0
    source, destination = _octets(packet.source, family), _octets(packet.destination, family)
    if not packet.fragment:
        pseudo = source + destination + bytes((0, protocol))
        bare = _transport(probe, number, payload, pseudo)
        if packet.length is not None and packet.length > HEADERS[family] + len(bare):
            payload += bytes(packet.length - HEADERS[family] - len(bare))
            bare = _transport(probe, number, payload, pseudo)
        payload = bare
    tos, ttl = packet.tos or 0, _HOP if packet.ttl is None else packet.ttl
    if family is Family.IPV6:
        first = 6 << 28 | tos << 20 | label
        return struct.pack("!IHBB", first, len(payload), protocol, ttl) + source + destination + payload
    offset = _MIDDLE | _LATER if packet.fragment else 0
    head = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), label, offset, ttl, protocol, 0)
    head += source + destination
    return b"".join((head[:10], checksum(head).to_bytes(2, "big"), head[12:], payload))


def _octets(address: int | None, family: Family) -> bytes:
    return (address or 0).to_bytes(family.bits // 8, "big")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the sum of 16-bit words modulo 65535, complemented."""
    if len(data) & 1:
        data += b"\0"
    return 0xFFFF ^ int.from_bytes(data, "big") % 0xFFFF


def _summed(data: bytes, at: int, pseudo: bytes) -> bytes:
    """The data with its checksum put in, which covers addresses, length and protocol too (RFC 9293, RFC 8200)."""
    value = checksum(pseudo + len(data).to_bytes(2, "big") + data) or 0xFFFF
    return b"".join((data[:at], value.to_bytes(2, "big"), data[at + 2 :]))


def _transport(probe: Probe, number: int, payload: bytes, pseudo: bytes) -> bytes:
    """All that follows the IP header."""
    packet = probe.packet
    protocol = packet.protocol or 0
    if protocol == TCP:
        return _summed(_tcp(probe, number) + payload, 16, pseudo)
    ports = struct.pack("!HH", packet.sport or 0, packet.dport or 0)
    if protocol in (UDP, UDPLITE):
        # UDP-Lite has the checksum's coverage in place of the length: 0 is all of it.
        length = 8 + len(payload) if protocol == UDP else 0
        return _summed(ports + struct.pack("!HH", length, 0) + payload, 6, pseudo)
    if protocol == SCTP:
        return _sctp(ports, number, payload)
    if protocol == DCCP:  # a Request (RFC 4340, 5.1): data offset of five words, long sequence numbers, a service code
        head = ports + struct.pack("!BBHBBHII", 5, 0, 0, 1, 0, 0, number, 0)
        return _summed(head + payload, 6, pseudo)
    if protocol == ICMPS[packet.family]:
        return _icmp(probe, number, payload, pseudo)
    if protocol == ESP:
        return struct.pack("!II", probe.spi, number) + payload
    if protocol == AH:
        return struct.pack("!BBHIII", 59, 2, 0, probe.spi, number, 0) + payload
    if protocol == GRE:
        return struct.pack("!HH", 0, 0x0800) + payload
    return payload


def _tcp(probe: Probe, number: int) -> bytes:
    packet = probe.packet
    sequence = _SIGN << 29 | number << 12
    flags = FLAGS["SYN"] if packet.tcp_flags is None else packet.tcp_flags
    words = 5 + len(probe.options) // 4
    ports = packet.sport or 0, packet.dport or 0
    return struct.pack("!HHIIBBHHH", *ports, sequence, sequence, words << 4, flags, 1024, 0, 0) + probe.options


def _sctp(ports: bytes, number: int, payload: bytes) -> bytes:
    """An INIT chunk (RFC 9260, 3.3.2) with a parameter that every receiver skips."""
    parameter = struct.pack("!HH", 0x8000, 4 + len(payload)) + payload
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20 + len(parameter), number | 1 << 31, 0xFFFF, 1, 1, number) + parameter
    chunk += bytes(-len(chunk) % 4)
    return b"".join((ports, bytes(4), _crc32c(ports + bytes(8) + chunk).to_bytes(4, "little"), chunk))


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC: Final = tuple(_crc_row(byte) for byte in range(256))


def _crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _icmp(probe: Probe, number: int, payload: bytes, pseudo: bytes) -> bytes:
    packet = probe.packet
    kind, code = packet.icmp or ((8, 0) if packet.family is Family.IPV4 else (128, 0))
    # An echo's identifier is what conntrack knows it by, as ports: the model's source port, where one is given.
    identifier = number & 0xFFFF if packet.sport is None else packet.sport
    data = struct.pack("!BBHHH", kind, code, 0, identifier, number >> 16)
    if probe.about is not None:
        data = data[:4] + bytes(4) + build(Probe(packet=probe.about), number) + payload[_NUMBER.size :]
    else:
        data += payload
    if packet.family is Family.IPV6:
        return _summed(data, 2, pseudo)
    return b"".join((data[:2], checksum(data).to_bytes(2, "big"), data[4:]))


# --- reading -----------------------------------------------------------------------------------------------


def number_of(data: bytes) -> int | None:
    """The number in a packet, or in what it quotes; None in one that isn't ours."""
    at = data.find(_MAGIC)
    if at >= 0 and len(data) >= at + _NUMBER.size:
        _, number, complement = _NUMBER.unpack_from(data, at)
        return int(number) if number ^ complement == 0xFFFFFFFF else None
    start = 40 if data[0] >> 4 == 6 else (data[0] & 0xF) * 4
    if len(data) < start + 12:
        return None
    for value in reversed(struct.unpack_from("!II", data, start + 4)):  # an answer acknowledges our number
        if value >> 29 == _SIGN:
            return int(value) >> 12 & NUMBERS - 1
    return None


def read(data: bytes) -> Seen:
    """What a packet says of itself, from its IP header on."""
    if data[0] >> 4 == 6:
        head, protocol, tos, ttl = 40, data[6], (data[0] << 8 | data[1]) >> 4 & 0xFF, data[7]
        source, destination = data[8:24], data[24:40]
    else:
        head, protocol, tos, ttl = (data[0] & 0xF) * 4, data[9], data[1], data[8]
        source, destination = data[12:16], data[16:20]
        if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:  # a later fragment, in which no header follows
            head = len(data)
    sport = dport = flags = 0
    icmp: tuple[int, int] | None = None
    if head + 2 > len(data):
        pass
    elif protocol in PORTED:
        sport, dport = struct.unpack_from("!HH", data, head)
        flags = data[head + 13] if protocol == TCP else 0
    elif protocol in (ICMP, ICMPV6):
        icmp = data[head], data[head + 1]
    ends = int.from_bytes(source, "big"), int.from_bytes(destination, "big")
    return Seen(protocol, *ends, sport, dport, icmp, flags, tos, ttl)
