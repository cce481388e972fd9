"""A stream of numbered packets through a gateway whose rules change, and what each of them met there.

A packet is sent on one processor, which takes it through the gateway before it sends the next one. So what packets
met, in the order in which they were sent, is what the rules were, in the order in which they were so; and a state
that stood for some tens of microseconds was met by somebody.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import msgspec

from meshfw.model import Family
from meshfw.testing.frames import Packet, build, parse
from meshfw.testing.netns import Netns
from meshfw.testing.topology import CLIENT_LINK, MESH, SERVER_LINK, Topology
from tests.kernel.worlds import WORDS

DROPPED: Final = ""
"""What became of a packet that didn't arrive; of any other, where it went."""

_ETH_ALL: Final = 0x0003  # linux/if_ether.h
_ETHERTYPE: Final = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_PACKET_OUTGOING: Final = 4  # linux/if_packet.h
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_BUFFER: Final = 32 << 20
_PAUSE: Final = 0.0003
"""Seconds between two rounds, in each of which one packet of each flow is sent: more than a thousand in a second."""
_LAST_SECONDS: Final = 20.0
_FIRST_PORT, _PORTS = 20_000, 40_000


class Flow(msgspec.Struct, frozen=True):
    """Packets that are alike but for their source port, and what becomes of them under two states of the rules.

    ``scope`` is what changes at once for all flows of it.
    """

    scope: Hashable
    family: Family
    dport: int
    before: str
    after: str

    def turned(self) -> Flow:
        """The flow when the change is undone."""
        return msgspec.structs.replace(self, before=self.after, after=self.before)


class Sent(msgspec.Struct, frozen=True):
    """A packet: which flow's, when its sending began (monotonic nanoseconds), and what became of it."""

    flow: int
    begin: int
    verdict: str


class Change(msgspec.Struct, frozen=True):
    """A change of the rules: the flows as it turns them, and when it began and ended (monotonic nanoseconds).

    The first ``behind`` packets of the stream had met their end before it began.
    """

    flows: tuple[Flow, ...]
    behind: int
    begin: int
    end: int


class Stream:
    """A thread that sends packets of each flow in turn, and takes in those that arrive, inside :meth:`flowing`."""

    def __init__(self, topology: Topology, flows: Sequence[Flow]) -> None:
        self._topology = topology
        self._flows = flows
        self._over = threading.Event()
        self._last_seen = 0
        self._sent: list[tuple[int, int]] = []
        self._seen: dict[int, str] = {}
        self._whole = 0
        self._error: BaseException | None = None

    @contextmanager
    def flowing(self) -> Iterator[Stream]:
        """A block during which packets flow; behind it everything that was sent has met its end."""
        with ExitStack() as stack:
            self._out = stack.enter_context(_socket(self._topology.client, CLIENT_LINK, 0))
            self._in = stack.enter_context(_socket(self._topology.server, SERVER_LINK, _ETH_ALL))
            thread = threading.Thread(target=self._work, name="stream")
            thread.start()
            try:
                self.settled()
                yield self
                self._whole = self.settled()
            finally:
                self._over.set()
                thread.join()
        if self._error is not None:
            raise self._error

    def settled(self) -> int:
        """How many packets have met their end, all that are sent by now among them.

        They do so in their order, so one that arrived tells of those before it. One flow at least must get through.
        """
        sent = len(self._sent)
        deadline = time.monotonic() + _LAST_SECONDS
        while self._last_seen <= sent and self._error is None:
            assert time.monotonic() < deadline, "no packet of any flow arrives any more"
            time.sleep(_PAUSE)
        return self._last_seen

    def packets(self) -> list[Sent]:
        """The packets that met their end, in the order in which they were sent."""
        sent = enumerate(self._sent[: self._whole], 1)
        return [Sent(flow, begin, self._seen.get(number, DROPPED)) for number, (flow, begin) in sent]

    def begun(self, change: Change) -> int:
        """How many packets were sent while a change was under way, which was not long ago."""
        count = 0
        for _, begin in reversed(self._sent):
            if begin < change.begin:
                break
            count += begin < change.end
        return count

    # --- in the thread ---

    def _work(self) -> None:
        try:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            while not self._over.is_set():
                self._round()
                time.sleep(_PAUSE)
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits, whatever it is
            self._error = error

    def _round(self) -> None:
        for index in range(len(self._flows)):
            self._send(index)
        self._take()

    def _send(self, index: int) -> int:
        flow = self._flows[index]
        number = len(self._sent) + 1
        words = WORDS[flow.family]
        packet = Packet(
            family=flow.family,
            protocol="udp",
            source=words["peer"],
            destination=words["host"],
            sport=_FIRST_PORT + number % _PORTS,
            dport=flow.dport,
            number=number,
        )
        frame = build(packet)
        self._sent.append((index, time.monotonic_ns()))
        self._out.sendto(frame, (CLIENT_LINK, _ETHERTYPE[flow.family], 0, 0, Topology.mac(MESH)))
        return number

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data, (_, _, kind, *_) = self._in.recvfrom(256, socket.MSG_DONTWAIT)
                seen = parse(data) if kind != _PACKET_OUTGOING else None
                if seen is not None and seen.kind == "udp":
                    self._seen[seen.number] = f"{seen.destination} {seen.dport}"
                    self._last_seen = seen.number


def _socket(room: Netns, link: str, protocol: int) -> socket.socket:
    with room.entered():
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    channel.bind((link, protocol))
    try:
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except OSError:  # in a user namespace: what everybody gets holds many rounds
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    return channel


# --- what packets met --------------------------------------------------------------------------------------


def windows(changes: Sequence[Change], packets: Sequence[Sent]) -> list[str]:
    """What packets met that was neither the old state nor the new one, or the old one behind the new one.

    Of packets before the first change nothing is told. One on its way as a change begins may meet what was before it,
    which is the new state of the change before.
    """
    bounds = [*(change.behind for change in changes), len(packets)]
    return [
        f"change {number}: {word}"
        for number, change in enumerate(changes)
        for word in _of_one(change, packets[bounds[number] : bounds[number + 1]])
    ]


def _of_one(change: Change, packets: Iterable[Sent]) -> Iterator[str]:
    turned: set[Hashable] = set()
    for sent in packets:
        flow = change.flows[sent.flow]
        what = f"{flow.family} {flow.dport} at {(sent.begin - change.begin) // 1000} us: {sent.verdict or 'dropped'}"
        if sent.verdict not in {flow.before, flow.after}:
            yield f"{what}, neither old nor new"
        elif flow.before != flow.after:
            if sent.verdict == flow.after:
                turned.add(flow.scope)
            elif flow.scope in turned or sent.begin >= change.end:
                yield f"{what}, which is old again"
