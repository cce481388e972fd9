"""The sockets of a topology: frames of raw bytes go in at any place, and whole packets come out where they turn up.

"Nothing came" is proven, not waited for: behind a burst goes a frame of a protocol that no rule sees, hop by hop
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple

from meshfw.errors import BackendError
from meshfw.extensions.icmp import ICMP, ICMPV6
from meshfw.model import Family
from meshfw.testing.netns import Netns
from meshfw.testing.topology import CLIENT_LINK, MESH, SERVER_LINK, WAN, Topology

PROTOCOLS: Final[Mapping[Family, Sequence[int]]] = {
    Family.IPV4: (ICMP, 6, 17, 132),
    Family.IPV6: (ICMPV6, 6, 17, 132),
}
"""The protocols of which the gateway shows what it lets through to itself, unless told otherwise (RFC 5237)."""

_ETH_ALL, _ETH_FENCE = 0x0003, 0x88B5  # linux/if_ether.h; IEEE 802, for local experiments
_PACKET_OUTGOING: Final = 4  # linux/if_packet.h
_BROADCAST: Final = b"\xff" * 6
_ETHERTYPE: Final = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_BUFFER: Final = 16 << 20
_FRAME: Final = 2048
_FENCE: Final = struct.Struct("!Q")
_FENCE_SECONDS, _RETRY_SECONDS = 5.0, 0.02
BURST: Final = 64
"""Frames between two fences: fewer than any buffer on the way holds."""
_THERE_AND_BACK: Final = (CLIENT_LINK, WAN, SERVER_LINK, MESH)
_OTHER_END: Final = {CLIENT_LINK: MESH, MESH: CLIENT_LINK, WAN: SERVER_LINK, SERVER_LINK: WAN}
_NOT_SENT: Final = {errno.EPERM, errno.EINVAL, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES}
"""How a sender hears of a drop on its own output hook, or of a route that leads nowhere."""


class Frame(NamedTuple):
    """A packet to send, from its IP header on; ``start`` is its place: client, gateway or server.

    ``destination`` is the address to which the gateway's own kernel routes it; nobody else needs it. ``mac`` is the
    hardware address that it comes from, in place of the link's own.
    """

    start: str
    family: Family
    data: bytes
    destination: str = ""
    mac: bytes = b""


Sighting = tuple[str, bytes]
"""The place where a packet turned up (client, gateway or server), and its bytes from the IP header on.

Of an IPv6 packet that the gateway let through to itself the header was made up again: its addresses and next header
are true, the rest is zero.
"""


class Wire:
    """The sockets in a topology; open inside the ``with`` block."""

    def __init__(self, topology: Topology, *, local: Mapping[Family, Sequence[int]] | None = None) -> None:
        self._topology = topology
        self._protocols = local if local is not None else PROTOCOLS
        self._stack = ExitStack()
        self._links: dict[str, socket.socket] = {}
        self._local: list[tuple[Family, int, socket.socket]] = []
        self._raw: dict[Family, socket.socket] = {}
        self._bare: dict[str, socket.socket] = {}
        self._fence = time.monotonic_ns()

    def __enter__(self) -> Wire:
        topology = self._topology
        with ExitStack() as stack:
            links = [
                _packet_socket(topology.client, CLIENT_LINK, _ETH_ALL),
                _packet_socket(topology.gateway, None, _ETH_FENCE),
                _packet_socket(topology.server, SERVER_LINK, _ETH_ALL),
            ]
            for room, link in ((topology.client, CLIENT_LINK), (topology.server, SERVER_LINK)):
                self._bare[link] = _bare_socket(room, link)
            stack.callback(_close_together, [*links, *self._bare.values()])
            self._links = dict(zip((CLIENT_LINK, MESH, SERVER_LINK), links, strict=True)) | {WAN: links[1]}
            for family in topology.families:
                for protocol in self._protocols[family]:
                    channel = stack.enter_context(_raw_socket(topology.gateway, family, protocol))
                    self._local.append((family, protocol, channel))
                self._raw[family] = stack.enter_context(_raw_socket(topology.gateway, family, socket.IPPROTO_RAW))
            for link in _THERE_AND_BACK:
                self._wait_for(link)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def carry(self, frames: Iterable[Frame]) -> list[Sighting]:
        """Send a burst, and wait until all that comes of it has happened: every packet seen, at every place.

        Raises BackendError when the topology doesn't carry frames any more.
        """
        for frame in frames:
            self._transmit(frame)
        seen: list[Sighting] = []
        for hop in _THERE_AND_BACK * 2:  # once for packets and answers that start at the client, once for the others
            if not self._fence_passed(hop, seen, _FENCE_SECONDS):
                raise BackendError(f"a frame sent on {hop} did not come out at {_OTHER_END[hop]}")
        self._take_local(seen)
        return seen

    def _transmit(self, frame: Frame) -> None:
        if frame.start == "gateway":
            try:
                self._raw[frame.family].sendto(frame.data, (frame.destination, 0))
            except OSError as error:
                if error.errno not in _NOT_SENT:
                    raise
            return
        link, far = (CLIENT_LINK, MESH) if frame.start == "client" else (SERVER_LINK, WAN)
        if frame.mac:
            kind = _ETHERTYPE[frame.family].to_bytes(2, "big")
            self._bare[link].send(b"".join((Topology.mac(far), frame.mac, kind, frame.data)))
            return
        self._links[link].sendto(frame.data, (link, _ETHERTYPE[frame.family], 0, 0, Topology.mac(far)))

    def _wait_for(self, link: str) -> None:
        """Wait until a link carries frames: a veth pair is wired up in the background, and loses them until then."""
        for _ in range(int(_FENCE_SECONDS / _RETRY_SECONDS)):
            if self._fence_passed(link, [], _RETRY_SECONDS):
                return
        raise BackendError(f"link {link} does not come up")

    def _fence_passed(self, link: str, seen: list[Sighting], seconds: float) -> bool:
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

    def _take(self, link: str, fence: bytes, seen: list[Sighting]) -> bool:
        """Take in what came by a link, up to this fence; False when it didn't come yet."""
        place = {CLIENT_LINK: "client", SERVER_LINK: "server"}.get(link, "")
        for data, (name, protocol, kind, *_) in _received(self._links[link]):
            if kind == _PACKET_OUTGOING:
                continue
            if protocol == _ETH_FENCE:
                if name == link and data.startswith(fence):
                    return True
            elif place:
                seen.append((place, data))
        return False

    def _take_local(self, seen: list[Sighting]) -> None:
        """Take in what the gateway let through to itself."""
        for family, protocol, channel in self._local:
            if family is Family.IPV4:
                seen.extend(("gateway", data) for data, _ in _received(channel))
            else:
                seen.extend(("gateway", data) for data in _with_header(channel, protocol))


@contextmanager
def one_processor() -> Iterator[None]:
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


def _bare_socket(room: Netns, link: str) -> socket.socket:
    """A socket that sends whole frames, Ethernet header and all, and sees none."""
    with room.entered():
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    channel.bind((link, 0))
    return channel


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


def _received(channel: socket.socket) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    """What lies in a socket: data, and where it came from."""
    while True:
        try:
            yield channel.recvfrom(_FRAME, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


def _with_header(channel: socket.socket, protocol: int) -> Iterator[bytes]:
    """What lies in a raw IPv6 socket, behind a header of its protocol and addresses (ipv6(7), struct in6_pktinfo)."""
    while True:
        try:
            data, ancillary, _, address = channel.recvmsg(_FRAME, 64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        infos = (value for level, _, value in ancillary if level == socket.IPPROTO_IPV6)
        destination = next(infos, bytes(20))[:16]
        source = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
        yield struct.pack("!IHBB", 6 << 28, len(data), protocol, 0) + source + destination + data
