"""Numbered packets through a topology, and a precise account of where each of them turned up.

"Nothing came" is proven, not waited for: behind the packets goes a frame of a protocol that no rule sees, hop by hop
there and back, all on one processor, whose queue keeps the order. When it is home, everything before it has
happened.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final

import msgspec

from meshfw.errors import BackendError
from meshfw.model import Family
from meshfw.testing.frames import NUMBERS, Packet, Seen, build, parse, parse_payload
from meshfw.testing.netns import Netns
from meshfw.testing.topology import CLIENT_LINK, MESH, SERVER_LINK, WAN, Topology

_ETH_ALL, _ETH_FENCE = 0x0003, 0x88B5  # linux/if_ether.h; IEEE 802, for local experiments
_PACKET_OUTGOING: Final = 4  # linux/if_packet.h
_BROADCAST: Final = b"\xff" * 6
_ETHERTYPE: Final = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_BUFFER: Final = 16 << 20
_FRAME: Final = 2048
_FENCE: Final = struct.Struct("!Q")
_FENCE_SECONDS, _RETRY_SECONDS = 5.0, 0.02
_BURST: Final = 64  # packets between two fences: fewer than any buffer on the way holds
_FIRST_PORT, _PORTS = 20_000, 40_000
_THERE_AND_BACK: Final = (CLIENT_LINK, WAN, SERVER_LINK, MESH)
_OTHER_END: Final = {CLIENT_LINK: MESH, MESH: CLIENT_LINK, WAN: SERVER_LINK, SERVER_LINK: WAN}
_NOT_SENT: Final = {errno.EPERM, errno.EINVAL, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""How a sender hears of a drop on its own output hook, or of a route that leads nowhere."""
_LOCAL: Final = {
    Family.IPV4: (socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP),
    Family.IPV6: (socket.IPPROTO_ICMPV6, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP),
}


class Result(msgspec.Struct, frozen=True):
    """What became of one packet: as the far end, the gateway itself, and the place it came from saw it."""

    packet: Packet
    far: Seen | None = None
    gateway: Seen | None = None
    answer: Seen | None = None

    @property
    def arrived(self) -> Seen | None:
        """The packet where it ended, at the far end or in the gateway; None when it went nowhere."""
        return self.far or self.gateway

    @property
    def verdict(self) -> str:
        """``accepted``, ``dropped`` or ``rejected (KIND)``; and of what was accepted, where and how it was changed."""
        seen, sent = self.arrived, self.packet
        if seen is None:
            return "dropped" if self.answer is None else f"rejected ({self.answer.kind})"
        words = ["accepted" if self.far is not None else "accepted by the gateway"]
        if seen.source != sent.source:
            words.append(f"from {seen.source}")
        if (seen.destination, seen.dport) != (sent.destination, sent.dport) and seen.kind != "fragment":
            words.append(f"to {_place(seen)}")
        return " ".join(words)


def _place(seen: Seen) -> str:
    if not seen.dport:
        return seen.destination
    return f"[{seen.destination}]:{seen.dport}" if ":" in seen.destination else f"{seen.destination}:{seen.dport}"


class _Sightings:
    """What turned up where, the first of each number at each place."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Seen] = {}

    def add(self, place: str, seen: Seen | None) -> None:
        if seen is not None:
            self._found.setdefault((place, seen.number), seen)

    def result(self, packet: Packet) -> Result:
        at = {place: self._found.get((place, packet.number)) for place in ("client", "gateway", "server")}
        answer = at.pop(packet.start)
        own = at.pop("gateway", None)  # where it started there, only an answer can have come
        return Result(packet, at.get("server") or at.get("client"), own, answer)


class Prober:
    """The sockets in a topology that send packets and see them again; open inside the ``with`` block."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._stack = ExitStack()
        self._links: dict[str, socket.socket] = {}
        self._local: dict[Family, tuple[socket.socket, ...]] = {}
        self._raw: dict[Family, socket.socket] = {}
        self._number = 0
        self._fence = time.monotonic_ns()

    def __enter__(self) -> Prober:
        topology = self._topology
        with ExitStack() as stack:
            links = [
                _packet_socket(topology.client, CLIENT_LINK, _ETH_ALL),
                _packet_socket(topology.gateway, None, _ETH_FENCE),
                _packet_socket(topology.server, SERVER_LINK, _ETH_ALL),
            ]
            stack.callback(_close_together, links)
            self._links = dict(zip((CLIENT_LINK, MESH, SERVER_LINK), links, strict=True)) | {WAN: links[1]}
            for family in topology.families:
                self._local[family] = tuple(
                    stack.enter_context(_raw_socket(topology.gateway, family, protocol)) for protocol in _LOCAL[family]
                )
                self._raw[family] = stack.enter_context(_raw_socket(topology.gateway, family, socket.IPPROTO_RAW))
            for link in _THERE_AND_BACK:
                self._wait_for(link)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def send(self, *packets: Packet) -> tuple[Result, ...]:
        """What became of each packet; each is a flow of its own, unless it states its ports.

        Raises BackendError when the topology doesn't carry frames any more.
        """
        results: list[Result] = []
        with _one_processor():
            for at in range(0, len(packets), _BURST):
                results += self._burst(packets[at : at + _BURST])
        return tuple(results)

    def _burst(self, packets: Sequence[Packet]) -> list[Result]:
        numbered = [self._numbered(packet) for packet in packets]
        for packet in numbered:
            self._transmit(packet)
        seen = _Sightings()
        for hop in _THERE_AND_BACK * 2:  # once for packets and answers that start at the client, once for the others
            if not self._fence_passed(hop, seen, _FENCE_SECONDS):
                raise BackendError(f"a frame sent on {hop} did not come out at {_OTHER_END[hop]}")
        self._take_local(seen)
        return [seen.result(packet) for packet in numbered]

    def _numbered(self, packet: Packet) -> Packet:
        self._number = number = (self._number + 1) % NUMBERS
        sport = packet.sport
        if not sport and packet.protocol != "icmp" and not packet.fragment:
            sport = _FIRST_PORT + number % _PORTS
        return msgspec.structs.replace(packet, number=number, sport=sport)

    def _transmit(self, packet: Packet) -> None:
        data = build(packet)
        if packet.start == "gateway":
            try:
                self._raw[packet.family].sendto(data, (packet.destination, 0))
            except OSError as error:
                if error.errno not in _NOT_SENT:
                    raise
            return
        link, far = (CLIENT_LINK, MESH) if packet.start == "client" else (SERVER_LINK, WAN)
        self._links[link].sendto(data, (link, _ETHERTYPE[packet.family], 0, 0, Topology.mac(far)))

    def _wait_for(self, link: str) -> None:
        """Wait until a link carries frames: a veth pair is wired up in the background, and loses them until then."""
        for _ in range(int(_FENCE_SECONDS / _RETRY_SECONDS)):
            if self._fence_passed(link, _Sightings(), _RETRY_SECONDS):
                return
        raise BackendError(f"link {link} does not come up")

    def _fence_passed(self, link: str, seen: _Sightings, seconds: float) -> bool:
        """Send a frame out of a link and take in what comes at the other end, until the frame does or time is up."""
        other = _OTHER_END[link]
        self._fence += 1
        fence = _FENCE.pack(self._fence)
        self._links[link].sendto(fence, (link, _ETH_FENCE, 0, 0, _BROADCAST))
        deadline = time.monotonic() + seconds
        while not self._take(other, fence, seen):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._links[other]], [], [], left)[0]:
                return False
        return True

    # --- seeing ---

    def _take(self, link: str, fence: bytes, seen: _Sightings) -> bool:
        """Take in what came by a link, up to this fence; False when it didn't come yet."""
        place = {CLIENT_LINK: "client", SERVER_LINK: "server"}.get(link, "")
        for data, _, (name, protocol, kind, *_) in _received(self._links[link]):
            if kind == _PACKET_OUTGOING:
                continue
            if protocol == _ETH_FENCE:
                if name == link and data.startswith(fence):
                    return True
            elif place:
                seen.add(place, parse(data))
        return False

    def _take_local(self, seen: _Sightings) -> None:
        """Take in what the gateway let through to itself."""
        for family, sockets in self._local.items():
            for protocol, channel in zip(_LOCAL[family], sockets, strict=True):
                for data, destination, (source, *_) in _received(channel):
                    if family is Family.IPV4:
                        seen.add("gateway", parse(data))
                    else:
                        seen.add(
                            "gateway", parse_payload(family, protocol, data, source=source, destination=destination)
                        )


@contextmanager
def _one_processor() -> Iterator[None]:
    """A block that the calling thread spends on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _packet_socket(room: Netns, link: str | None, protocol: int) -> socket.socket:
    """A socket that sees a link's packets (all links': None) from their network header on (packet(7))."""
    # Bound to a link it begins to listen only then (protocol 0 until then): undoing a wider listening takes 12 ms.
    initial = 0 if link else socket.htons(protocol)
    with room.entered():
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, initial)
    if link:
        channel.bind((link, protocol))
    return _enlarged(channel)


def _close_together(sockets: Sequence[socket.socket]) -> None:
    """Close packet sockets at once: the kernel waits some 12 ms in each (RCU), and all can wait for the same."""
    with ThreadPoolExecutor(len(sockets)) as pool:
        for channel in sockets:
            pool.submit(channel.close)


def _raw_socket(room: Netns, family: Family, protocol: int) -> socket.socket:
    """A socket that sees what the input hook let through to this host (raw(7)), or sends whole packets."""
    domain = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    with room.entered():
        channel = socket.socket(domain, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    if family is Family.IPV6:
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return _enlarged(channel)


def _enlarged(channel: socket.socket) -> socket.socket:
    try:
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except OSError:  # in a user namespace: a burst fits into what everybody gets
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    return channel


def _received(channel: socket.socket) -> Iterator[tuple[bytes, str, tuple[Any, ...]]]:
    """What lies in a socket: data, its destination where the socket tells it apart, and where it came from."""
    while True:
        try:
            data, ancillary, _, address = channel.recvmsg(_FRAME, 64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        destination = next((_inet6(value) for level, _, value in ancillary if level == socket.IPPROTO_IPV6), "")
        yield data, destination, address


def _inet6(info: bytes) -> str:
    """The address in a struct in6_pktinfo (ipv6(7))."""
    return socket.inet_ntop(socket.AF_INET6, info[:16])
