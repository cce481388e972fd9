"""One ICMP echo request and whether it's answered (RFC 792, RFC 4443), without a process."""

from __future__ import annotations

import ipaddress
import secrets
import select
import socket
import struct
import time
from typing import Final

_REQUEST: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL: Final = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_LONGEST: Final = 65535


def ping(address: str, *, timeout: float) -> str:
    """Why no answer came from an address within so many seconds; empty when one came.

    The socket belongs to the network namespace of the calling thread. It is the kernel's own for pings (icmp(7),
    net.ipv4.ping_group_range), or a raw one where those aren't allowed, for which CAP_NET_RAW is needed.
    """
    version = ipaddress.ip_address(address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with _opened(family) as channel:
            channel.setblocking(False)
            target = socket.getaddrinfo(address, 0, family, flags=socket.AI_NUMERICHOST)[0][4]
            token, number = secrets.token_bytes(16), secrets.randbits(16)
            channel.sendto(_request(family, number, token), target)
            return "" if _answered(channel, family, token, timeout) else f"no answer within {timeout:g} s"
    except OSError as error:
        return error.strerror or str(error)


def _opened(family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_DGRAM, _PROTOCOL[family])
    except PermissionError:
        return socket.socket(family, socket.SOCK_RAW, _PROTOCOL[family])


def _request(family: socket.AddressFamily, number: int, token: bytes) -> bytes:
    """An echo request; the kernel fills in the checksum of all but IPv4's raw sockets, which gets the right one."""
    head, body = struct.pack("!BB", _REQUEST[family], 0), struct.pack("!HH", number, 1) + token
    return head + struct.pack("!H", _checksum(head + b"\0\0" + body)) + body


def _checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _answered(channel: socket.socket, family: socket.AddressFamily, token: bytes, timeout: float) -> bool:
    """Whether an echo reply with the token comes; a raw socket hears everybody's."""
    end = time.monotonic() + timeout
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            return False
        try:
            packet = channel.recv(_LONGEST)
        except BlockingIOError:  # a checksum that was wrong
            continue
        if family is socket.AF_INET and channel.type is socket.SOCK_RAW:
            packet = packet[(packet[0] & 0xF) * 4 :]  # the IPv4 header comes along
        if packet[:1] == bytes([_REPLY[family]]) and packet[8:] == token:
            return True
    return False
