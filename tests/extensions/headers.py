"""Packets made octet by octet: IP headers with any class of service and number of hops, and what follows them."""

from __future__ import annotations

import socket
import struct


def checksum(octets: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + b"\0" * (len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def pseudo_header(address: str, protocol: int, length: int) -> bytes:
    """What a transport's checksum covers of a packet from and to one address."""
    packed = _packed(address)
    numbers = struct.pack("!II", length, protocol) if len(packed) == 16 else struct.pack("!HH", protocol, length)
    return packed + packed + numbers


def segment(address: str, sport: int, dport: int, flags: int, options: bytes = b"") -> bytes:
    """A TCP segment from and to one address (RFC 9293, section 3.1)."""
    length = 20 + len(options)
    header = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, length // 4 << 4, flags, 1000, 0, 0) + options
    return header[:16] + struct.pack("!H", checksum(pseudo_header(address, 6, length) + header)) + header[18:]


def datagram(address: str, sport: int, dport: int, payload: bytes = b"") -> bytes:
    """A UDP datagram from and to one address (RFC 768)."""
    length = 8 + len(payload)
    header = struct.pack("!HHHH", sport, dport, length, 0) + payload
    return header[:6] + struct.pack("!H", checksum(pseudo_header(address, 17, length) + header)) + payload


def packet(address: str, protocol: int, payload: bytes, *, tos: int = 0, hops: int = 64) -> bytes:
    """An IP packet from and to one address (RFC 791, RFC 8200)."""
    packed = _packed(address)
    if len(packed) == 16:
        return struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), protocol, hops) + packed + packed + payload
    head = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), 7, 0, hops, protocol, 0) + packed + packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def sender(address: str) -> socket.socket:
    """A socket that sends whole packets."""
    if ":" in address:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
