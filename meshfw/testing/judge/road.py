"""A road: one gateway, mostly under one backend, through which probes go, and what became of each of them.

Beside the backend's rules stands a table of the road's own, ahead of all others: by the label of a packet it gives a
mark or takes it out of connection tracking, which nobody outside could, and it keeps connections tracked whatever the
rules under test ask for. Client and server say nothing of their own, so all that is heard is what the gateway does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple, Self

from meshfw.backend import Backend, Site
from meshfw.errors import KernelError
from meshfw.extensions.language import Language
from meshfw.kernel.command import run
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family, Ruleset, format_address
from meshfw.reconcile import apply
from meshfw.testing.judge.addresses import MACS
from meshfw.testing.judge.frames import (
    AH,
    DCCP,
    ESP,
    GRE,
    UDPLITE,
    Probe,
    Seen,
    build,
    number_of,
    read,
)
from meshfw.testing.topology import Topology
from meshfw.testing.wire import BURST, Frame, Sighting, Wire, one_processor

TRANSPORTS: Final = (6, 17, 132, UDPLITE, DCCP, ESP, AH, GRE)
LOCAL: Final = {Family.IPV4: (1, *TRANSPORTS), Family.IPV6: (58, *(p for p in TRANSPORTS if p != AH))}
"""The protocols of which the gateway shows what it lets through to itself; AH is a header on the way in IPv6."""

_TABLE: Final = "judge-road"
_LABELS: Final = {Family.IPV4: "ip id", Family.IPV6: "ip6 flowlabel"}
_SECONDS: Final = 20.0


class Answer(NamedTuple):
    """What the sender of a probe was told: an ICMP error by type and code, or a reset, and from where to where."""

    place: str
    kind: str
    source: str
    destination: str


class Arrival(NamedTuple):
    """The probe itself where it turned up: client, server or gateway."""

    place: str
    data: bytes

    @property
    def seen(self) -> Seen:
        """What it says of itself there."""
        return read(self.data)


Outcome = tuple[Arrival | Answer, ...]
"""All that was seen of one probe, sorted; nothing of one that is gone."""


class Road:
    """A gateway between silent ends; open inside the ``with`` block."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._labels: dict[tuple[int, bool], int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.topology = stack.enter_context(Topology("meshfw-judge", answering=False))
            self._wire = stack.enter_context(Wire(self.topology, local=LOCAL))
            self._enter(stack)
            self._stack = stack.pop_all()
        return self

    def _enter(self, stack: ExitStack) -> None:
        """Open what else a road needs."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def prepare(self, probes: Sequence[Probe], *, tracked: bool = True) -> None:
        """Forget all connections, and send what the probes need to have been sent before."""
        steps = max((len(probe.prior) for probe in probes), default=0)
        self._lay(probes, tracked, mute=steps > 0)
        self._forget_connections()
        for step in range(steps):  # all first packets before any second one: no fence stands inside a burst
            # With the probe's own number, or TCP's sequence numbers would be out of the window.
            prior = [(number, probe.prior[step]) for number, probe in enumerate(probes) if len(probe.prior) > step]
            for at in range(0, len(prior), BURST):
                self._wire.carry(self._frame(probe, number) for number, probe in prior[at : at + BURST])
        if steps:
            self._lay(probes, tracked)

    def send(self, probes: Sequence[Probe]) -> None:
        """Send probes that nobody looks for at the other end."""
        with one_processor():
            for at in range(0, len(probes), BURST):
                self._wire.carry(self._frame(probe, at + n) for n, probe in enumerate(probes[at : at + BURST]))

    def _frame(self, probe: Probe, number: int) -> Frame:
        packet = probe.packet
        label = self._labels[packet.mark or 0, packet.state == "UNTRACKED"]
        destination = format_address(packet.destination or 0, packet.family) if probe.start == "gateway" else ""
        mac = packet.mac or ""
        foreign = probe.start in MACS and mac not in ("", MACS[probe.start])
        other = bytes.fromhex(mac.replace(":", "")) if foreign else b""
        return Frame(probe.start, packet.family, build(probe, number, label=label), destination, other)

    def _lay(self, probes: Sequence[Probe], tracked: bool, *, mute: bool = False) -> None:
        """The road's own table, for the marks of these probes; ``mute`` where the gateway is to answer nothing."""
        packets = [p.packet for probe in probes for p in (probe, *probe.prior)]
        kinds = sorted({(0, False), *((packet.mark or 0, packet.state == "UNTRACKED") for packet in packets)})
        self._labels = {kind: number for number, kind in enumerate(kinds, 1)}
        lines = [line for family in self.topology.families for line in _table(family, self._labels, tracked, mute)]
        with self.topology.gateway.entered():
            run(("nft", "-f", "-"), timeout=_SECONDS, input="".join(f"{line}\n" for line in lines).encode())

    def _forget_connections(self) -> None:
        with self.topology.gateway.entered():
            channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        with channel:
            for family in (socket.AF_INET, socket.AF_INET6):
                message = struct.pack("=IHHIIBBH", 20, _CT_DELETE, _REQUEST_ACK, 1, 0, family, 0, 0)
                channel.send(message)
                code = struct.unpack_from("=i", channel.recv(4096), 16)[0]
                if code not in (0, -2):  # ENOENT: there are none
                    raise KernelError(f"flush connections: error {-code}")


class GovernedRoad(Road):
    """A road whose gateway one backend governs, known by a name."""

    backend: Backend

    def __init__(self, name: str, make: Callable[[Site], Backend], language: Language) -> None:
        super().__init__()
        self.name = name
        self._make = make
        self._language = language

    def _enter(self, stack: ExitStack) -> None:
        self.backend = self._make(Site(owner="judge", language=self._language, netns=self.topology.gateway.path))
        stack.callback(self.backend.close)

    def run(self, ruleset: Ruleset, probes: Sequence[Probe], *, tracked: bool = True) -> list[Outcome]:
        """What becomes of each probe under the ruleset, every one a connection of its own unless it has a prior.

        Without ``tracked`` nothing of the road's looks at connections, so that fragments stay what they are.
        """
        with one_processor():
            apply(self.backend, Ruleset())
            self.prepare(probes, tracked=tracked)
            apply(self.backend, ruleset)
            return self._sent(probes)

    def _sent(self, probes: Sequence[Probe]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for at in range(0, len(probes), BURST):
            burst = probes[at : at + BURST]
            found: list[list[Sighting]] = [[] for _ in burst]
            for sighting in self._wire.carry(self._frame(probe, at + n) for n, probe in enumerate(burst)):
                number = number_of(sighting[1])
                if number is not None and 0 <= number - at < len(burst):
                    found[number - at].append(sighting)
            outcomes.extend(_outcome(probe, seen) for probe, seen in zip(burst, found, strict=True))
        return outcomes


_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
_CT_DELETE: Final = 1 << 8 | 2  # linux/netfilter/nfnetlink_conntrack.h, IPCTNL_MSG_CT_DELETE
_REQUEST_ACK: Final = 0x5


def _table(family: Family, labels: dict[tuple[int, bool], int], tracked: bool, mute: bool) -> Iterable[str]:
    """The commands that make the road's own table of a family anew."""
    table, label = f"{FAMILIES[family]} {_TABLE}", _LABELS[family]
    marks = ", ".join(f"{number} : {mark:#x}" for (mark, _), number in labels.items())
    lone = ", ".join(str(number) for (_, untracked), number in labels.items() if untracked)
    yield f"add table {table}"
    yield f"delete table {table}"
    yield f"add table {table}"
    for hook in ("prerouting", "output"):
        # -450: ahead of the defragmentation of connection tracking, and of every table of iptables.
        yield f"add chain {table} {hook} {{ type filter hook {hook} priority -450; }}"
        yield f"add rule {table} {hook} meta mark set {label} map {{ {marks} }}"
        if lone:
            yield f"add rule {table} {hook} {label} {{ {lone} }} notrack"
    if mute:
        yield f"add rule {table} output {label} > {len(labels)} drop"
        yield f"add rule {table} output {label} 0 drop"
    if tracked:
        yield f"add chain {table} track {{ type filter hook prerouting priority -450; }}"
        yield f"add rule {table} track ct state new"


def _outcome(probe: Probe, sightings: Iterable[Sighting]) -> Outcome:
    """What was seen of one probe; what the gateway itself answers to what it was let have is not counted."""
    arrivals, answers = set(), set()
    for place, data in sightings:
        seen = read(data)
        answer = _answer(probe, place, seen)
        if answer is None:
            arrivals.add(Arrival(place, data))
        else:
            answers.add(answer)
    if any(arrival.place == "gateway" for arrival in arrivals):
        answers.clear()
    return (*sorted(arrivals), *sorted(answers))


def _answer(probe: Probe, place: str, seen: Seen) -> Answer | None:
    """The answer that a sighting is; None where it is the probe itself."""
    packet = probe.packet
    family, protocol = packet.family, packet.protocol
    ends = format_address(seen.source, family), format_address(seen.destination, family)
    if seen.protocol != protocol:
        kind = f"icmp {seen.icmp[0]}/{seen.icmp[1]}" if seen.icmp else f"protocol {seen.protocol}"
        return Answer(place, kind, *ends)
    if protocol == 6:
        return Answer(place, "reset", *ends) if seen.flags & 4 and not (packet.tcp_flags or 2) & 4 else None
    if seen.icmp and seen.icmp != packet.icmp:
        return Answer(place, f"icmp {seen.icmp[0]}/{seen.icmp[1]}", *ends)
    return None


def text(outcome: Outcome, probe: Probe) -> str:
    """An outcome in words."""
    return "; ".join(_words(event, probe) for event in outcome) or "gone"


def _words(event: Arrival | Answer, probe: Probe) -> str:
    if isinstance(event, Answer):
        return f"rejected with {event.kind} from {event.source} (heard at the {event.place})"
    seen, packet = event.seen, probe.packet
    family = packet.family
    words = [f"delivered to the {event.place}"]
    for name, before, after in (
        ("source", packet.source, seen.source),
        ("destination", packet.destination, seen.destination),
    ):
        if before != after:
            words.append(f"{name} became {format_address(after, family)}")
    for name, old, new in (("sport", packet.sport, seen.sport), ("dport", packet.dport, seen.dport)):
        if (old or 0) != new and seen.icmp is None:
            words.append(f"{name} became {new}")
    if (packet.tos or 0) != seen.tos and event.place != "gateway":
        words.append(f"tos became {seen.tos:#x}")
    return ", ".join([*words, f"ttl {seen.ttl}", f"{len(event.data)} bytes"])
