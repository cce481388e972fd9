"""Packets that go through a gateway without a pause, and what they say of it: none lost, each with the right source.

Four kinds at once: a ping a millisecond in each family; every few milliseconds the first packet of a new ping and a
new TCP connection; and one long TCP stream. All are masqueraded, and those of TCP sent elsewhere (DNAT) as well. A
TCP segment that the kernel had to send again counts as lost, since nothing else loses any here, unless the receiver
says that it had it already: on a busy machine answers come late.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from meshfw.model import Family
from meshfw.testing.netns import Netns
from meshfw.testing.topology import WAN_ADDRESS, Topology

ALIAS: Final = "198.18.0.77"
HOST: Final = {Family.IPV4: "192.0.2.5", Family.IPV6: "2001:db8:2::5"}
PEER: Final = {Family.IPV4: "10.4.0.9", Family.IPV6: "fd00:4::9"}
PORT: Final = 7777
RULES: Final = f"""
[[chain]]
name = "forward"
attach = {{ hook = "forward", policy = "drop" }}
rules = [
  "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
  "-p icmp -m icmp --icmp-type echo-request -j ACCEPT",
  "-p ipv6-icmp -m icmp6 --icmpv6-type echo-request -j ACCEPT",
  "-p tcp -m tcp --dport {PORT} -m conntrack --ctstate DNAT -j ACCEPT",
]

[[chain]]
name = "in"
table = "nat"
attach = {{ hook = "prerouting" }}
rules = ["-d {ALIAS} -p tcp -m tcp --dport 80 -j DNAT --to-destination {HOST[Family.IPV4]}:{PORT}"]

[[chain]]
name = "masq"
table = "nat"
attach = {{ hook = "postrouting" }}
rules = ["-s 10.4.0.0/16 -o eth0 -j MASQUERADE", "-s fd00:4::/32 -o eth0 -j MASQUERADE"]

[[chain]]
name = "mark"
table = "mangle"
attach = {{ hook = "prerouting" }}
rules = ["-i wg0 -j MARK --set-xmark 0x10/0xff"]
"""
"""Chains without which nothing of this traffic gets through, or gets through as another."""

_PING: Final = {Family.IPV4: (8, 0), Family.IPV6: (128, 129)}  # request and reply (RFC 792, RFC 4443)
_HEAD, _NUMBER = struct.Struct("!BBHHH"), struct.Struct("!6sI")
_MAGIC: Final = b"moving"
_TOTAL_RETRANS, _DSACK_DUPS = 100, 216  # linux/tcp.h, places in struct tcp_info
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_BUFFER: Final = 16 << 20
_FREEBIND: Final = {
    Family.IPV4: (socket.SOL_IP, 15),  # linux/in.h, IP_FREEBIND
    Family.IPV6: (socket.IPPROTO_IPV6, 78),  # linux/in6.h, IPV6_FREEBIND
}


class Traffic:
    """All of it, inside :meth:`flowing`; ``faults`` then says what was lost or wrong, and ``counts`` how much was sent.

    An answer is waited for so many seconds (``patience``).
    """

    def __init__(self, topology: Topology, *, patience: float = 10.0) -> None:
        self._topology = topology
        self._patience = patience
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sent: dict[str, int] = {}
        self._got: dict[str, set[int]] = {}
        self._sources: dict[str, set[str]] = {}
        self._errors: list[str] = []
        self._open: list[socket.socket] = []

    @contextmanager
    def flowing(self) -> Iterator[Traffic]:
        """A block during which packets flow; behind it every one of them has arrived, or is lost."""
        for work in (self._serve, *self._pings(), self._stream, self._connections):
            self._threads.append(threading.Thread(target=self._guarded, args=(work,), daemon=True))
        for thread in self._threads:
            thread.start()
            time.sleep(0.05)  # the server first
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(2 * self._patience)
            for channel in self._open:
                channel.close()

    def counts(self) -> dict[str, int]:
        """How many packets, connections or bytes of each kind were sent."""
        return dict(self._sent)

    def faults(self) -> list[str]:
        """What was lost or went wrong, in words."""
        lost = [
            f"{name}: {count - len(self._got[name])} of {count} lost, the first of them number "
            f"{min(set(range(count)) - self._got[name])}"
            for name, count in self._sent.items()
            if name in self._got and len(self._got[name]) < count
        ]
        wrong = [
            f"{name}: came from {', '.join(sorted(found))}"
            for name, found in self._sources.items()
            if found != {WAN_ADDRESS[Family.IPV6 if "ipv6" in name else Family.IPV4]}
        ]
        return [*self._errors, *lost, *wrong]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told with the rest
            self._errors.append(f"{getattr(work, '__name__', 'ping')}: {error!r}")

    # --- pings ---

    def _pings(self) -> Iterator[Callable[[], None]]:
        for family in self._topology.families:
            for fresh in (False, True):
                name = f"{'new pings' if fresh else 'ping'} {family}"
                self._sent[name], self._got[name], self._sources[name] = 0, set(), set()
                yield lambda family=family, fresh=fresh, name=name: self._ping(  # type: ignore[misc]  # bound now
                    family, name, fresh=fresh
                )

    def _ping(self, family: Family, name: str, *, fresh: bool) -> None:
        here = self._raw(self._topology.client, family, bind=PEER[family])
        there = self._raw(self._topology.server, family)
        request, reply = _PING[family]
        ident = 0xF000 + fresh

        def take() -> None:
            for channel, kind in ((here, reply), (there, request)):
                with suppress(BlockingIOError):
                    while True:
                        data, source = channel.recvfrom(512, socket.MSG_DONTWAIT)
                        number = _number(data, family, kind, fresh=fresh)
                        if number is not None and channel is here:
                            self._got[name].add(number)
                        elif number is not None:
                            self._sources[name].add(source[0])

        while not self._over.is_set():
            number = self._sent[name]
            packet = _echo(request, number % 0xEFFF if fresh else ident, number, fresh=fresh)
            here.sendto(packet, (HOST[family], 0))
            self._sent[name] = number + 1
            take()
            time.sleep(0.005 if fresh else 0.001)
        end = time.monotonic() + self._patience
        while len(self._got[name]) < self._sent[name] and time.monotonic() < end:
            take()
            time.sleep(0.01)

    def _raw(self, room: Netns, family: Family, *, bind: str = "") -> socket.socket:
        kind, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP) if family is Family.IPV4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        )
        with room.entered():
            channel = socket.socket(kind, socket.SOCK_RAW, protocol)
        self._open.append(channel)
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if bind:
            channel.setsockopt(*_FREEBIND[family], 1)  # of the client's prefix each address is its own
            channel.bind((bind, 0))
        return channel

    # --- TCP ---

    def _serve(self) -> None:
        """Take connections, note where they come from, and send back what they send."""
        with self._topology.server.entered():
            listener = socket.create_server((HOST[Family.IPV4], PORT), backlog=512)
        self._open.append(listener)
        self._sources["connections"] = set()
        listener.settimeout(0.1)
        while not self._over.is_set():
            with suppress(TimeoutError):
                channel, source = listener.accept()
                self._sources["connections"].add(source[0])
                threading.Thread(target=self._echo_back, args=(channel,), daemon=True).start()

    def _echo_back(self, channel: socket.socket) -> None:
        with channel, suppress(OSError):
            channel.settimeout(2 * self._patience)
            while data := channel.recv(65536):
                channel.sendall(data)
            self._check(channel, "the server's end")

    def _connected(self) -> socket.socket:
        with self._topology.client.entered():
            channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        channel.settimeout(self._patience)
        try:
            channel.bind((PEER[Family.IPV4], 0))
            channel.connect((ALIAS, 80))
        except BaseException:
            channel.close()
            raise
        return channel

    def _check(self, channel: socket.socket, whose: str) -> None:
        told = channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        again, doubled = (struct.unpack_from("=I", told, place)[0] for place in (_TOTAL_RETRANS, _DSACK_DUPS))
        if again > doubled:
            self._errors.append(f"{whose}: {again} segments were sent again, {doubled} of them for nothing")

    def _stream(self) -> None:
        """Bytes there and back on one connection for all the time."""
        with self._connected() as channel:
            self._sent["stream"] = 0
            while not self._over.is_set():
                block = struct.pack("!I", self._sent["stream"]) * 256
                channel.sendall(block)
                if _read(channel, len(block)) != block:
                    self._errors.append("stream: other bytes came back")
                self._sent["stream"] += 1
                time.sleep(0.001)
            self._check(channel, "stream")

    def _connections(self) -> None:
        self._sent["connections"], self._got["connections"] = 0, set()
        while not self._over.is_set():
            number = self._sent["connections"]
            self._sent["connections"] = number + 1
            with self._connected() as channel:
                channel.sendall(b"moving")
                if _read(channel, 6) == b"moving":
                    self._got["connections"].add(number)
                self._check(channel, f"connection {number}")
            time.sleep(0.005)


def _read(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def _echo(kind: int, ident: int, number: int, *, fresh: bool) -> bytes:
    """An echo request; of IPv6 the kernel fills in the checksum (ipv6(7))."""
    payload = _NUMBER.pack(_MAGIC, number << 1 | fresh)
    data = _HEAD.pack(kind, 0, 0, ident, number & 0xFFFF) + payload
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _HEAD.pack(kind, 0, ~total & 0xFFFF, ident, number & 0xFFFF) + payload


def _number(data: bytes, family: Family, kind: int, *, fresh: bool) -> int | None:
    """The number in an echo request or reply of this traffic; IPv4's raw sockets show the IP header too (raw(7))."""
    start = (data[0] & 15) * 4 if family is Family.IPV4 else 0
    if len(data) < start + _HEAD.size + _NUMBER.size or data[start] != kind:
        return None
    magic, number = _NUMBER.unpack_from(data, start + _HEAD.size)
    return number >> 1 if magic == _MAGIC and number & 1 == fresh else None
