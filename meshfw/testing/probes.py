"""Numbered packets through a topology, and a precise account of where each of them turned up."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import msgspec

from meshfw.testing.frames import NUMBERS, Packet, Seen, build, parse
from meshfw.testing.topology import Topology
from meshfw.testing.wire import BURST, Frame, Wire, one_processor

_FIRST_PORT, _PORTS = 20_000, 40_000


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
        self._wire = Wire(topology)
        self._number = 0

    def __enter__(self) -> Prober:
        self._wire.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.__exit__(kind, error, trace)

    def send(self, *packets: Packet) -> tuple[Result, ...]:
        """What became of each packet; each is a flow of its own, unless it states its ports.

        Raises BackendError when the topology doesn't carry frames any more.
        """
        results: list[Result] = []
        with one_processor():
            for at in range(0, len(packets), BURST):
                results += self._burst(packets[at : at + BURST])
        return tuple(results)

    def _burst(self, packets: Sequence[Packet]) -> list[Result]:
        numbered = [self._numbered(packet) for packet in packets]
        seen = _Sightings()
        frames = [Frame(packet.start, packet.family, build(packet), packet.destination) for packet in numbered]
        for place, data in self._wire.carry(frames):
            seen.add(place, parse(data))
        return [seen.result(packet) for packet in numbered]

    def _numbered(self, packet: Packet) -> Packet:
        self._number = number = (self._number + 1) % NUMBERS
        sport = packet.sport
        if not sport and packet.protocol != "icmp" and not packet.fragment:
            sport = _FIRST_PORT + number % _PORTS
        return msgspec.structs.replace(packet, number=number, sport=sport)
