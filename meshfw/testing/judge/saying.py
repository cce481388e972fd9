"""The voice of the evaluation: what :mod:`meshfw.packet` says of a probe, to be held against what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from meshfw.model import Family, Fate, Hook, Packet, Ruleset, format_address
from meshfw.packet import Ending, Evaluator, Journey, Way
from meshfw.testing.judge.addresses import route, side
from meshfw.testing.judge.frames import DCCP, ERRORS, ICMPS, Probe
from meshfw.testing.judge.road import Answer, Arrival, Outcome

_ANSWERS: Final[Mapping[Family, Mapping[str, str]]] = {
    Family.IPV4: {
        "net-unreachable": "icmp 3/0",
        "host-unreachable": "icmp 3/1",
        "proto-unreachable": "icmp 3/2",
        "port-unreachable": "icmp 3/3",
        "net-prohibited": "icmp 3/9",
        "host-prohibited": "icmp 3/10",
        "admin-prohibited": "icmp 3/13",
        "tcp-reset": "reset",
        "time-exceeded": "icmp 11/0",
    },
    Family.IPV6: {
        "no-route": "icmp 1/0",
        "admin-prohibited": "icmp 1/1",
        "addr-unreachable": "icmp 1/3",
        "port-unreachable": "icmp 1/4",
        "policy-fail": "icmp 1/5",
        "reject-route": "icmp 1/6",
        "tcp-reset": "reset",
        "time-exceeded": "icmp 3/0",
    },
}
"""Each answer of REJECT as it is heard (RFC 792, RFC 1812, RFC 4443)."""
_LOTS: Final = frozenset({1, 6, 17, 58, 132, 136})  # conntrack tells these connections apart by more than addresses


class Opinion(msgspec.Struct, frozen=True):
    """What the evaluation takes for possible; without a journey it has no opinion."""

    journey: Journey | None = None
    answered: bool = True
    """Nothing of the ruleset stands in the way of an answer, so that one must be heard."""

    @property
    def unsure(self) -> bool:
        """Whether more than one end is possible."""
        return self.journey is None or len(self.journey.endings) != 1

    @property
    def translates(self) -> bool:
        """Whether an end of the connection may be translated."""
        return self.journey is None or any(ending.translations for ending in self.journey.endings)

    def allows(self, probe: Probe, outcome: Outcome, *, crowded: bool = False) -> bool:
        """Whether the outcome is one of those that are possible, alone or ``crowded`` by other connections."""
        if self.journey is None:
            return True
        for ending in self.journey.endings:
            if self._fits(probe, ending, outcome, crowded):
                return True
            if crowded and not outcome and ending.translations and probe.packet.protocol not in _LOTS:
                return True  # no port tells two connections of it apart
        return False

    def _fits(self, probe: Probe, ending: Ending, outcome: Outcome, crowded: bool) -> bool:
        packet = ending.packet
        fate = ending.verdict.fate
        if fate is Fate.DROP:
            return not outcome
        if fate is Fate.REJECT:
            if not outcome:
                return not self.answered or _unanswerable(probe.packet, ending.verdict.answer)
            event = outcome[0]
            return isinstance(event, Answer) and event.kind == _ANSWERS[packet.family][ending.verdict.answer]
        return (
            len(outcome) == 1
            and isinstance(outcome[0], Arrival)
            and _arrived(packet, outcome[0], crowded and bool(ending.translations))
        )


def _unanswerable(packet: Packet, answer: str) -> bool:
    """Whether no kernel answers the packet: no error is sent about an error, no reset for a reset (RFC 1122, 3.2.2)."""
    if answer == "tcp-reset":
        return bool((packet.tcp_flags or 0) & 4)
    if packet.protocol == DCCP and packet.family is Family.IPV4:
        return True  # the kernel sums it up without the pseudo-header, and takes it for damaged (nf_ip_checksum)
    kind = packet.icmp[0] if packet.icmp and packet.protocol == ICMPS[packet.family] else None
    return (
        packet.fragment or kind in ERRORS[packet.family] or (kind is not None and _unknown_error(kind, packet.family))
    )


def _unknown_error(kind: int, family: Family) -> bool:
    """Whether a type counts as an error though nobody assigned it (icmp.c, icmp_pointers; RFC 4443, 2.1)."""
    return kind < 128 if family is Family.IPV6 else kind > 18


def _arrived(packet: Packet, arrival: Arrival, crowded: bool) -> bool:
    """Whether the packet turned up where it was to go, and as it was to be."""
    seen = arrival.seen
    wanted = [(packet.source, seen.source), (packet.destination, seen.destination)]
    if seen.icmp is None:
        wanted += [(packet.dport or 0, seen.dport)] if packet.dport is not None else []
        # A source port is kept where no other connection has it; alone on the road, none has.
        wanted += [(packet.sport, seen.sport)] if packet.sport is not None and not crowded else []
    if arrival.place != "gateway" or packet.family is Family.IPV4:
        wanted += [(packet.tos, seen.tos), (packet.ttl, seen.ttl)]
    if packet.destination is not None and arrival.place != side(packet.destination, packet.family):
        return False
    return all(expected is None or expected == found for expected, found in wanted)


def evaluate(ruleset: Ruleset) -> Callable[[Probe], Opinion]:
    """The voice of the evaluation under one ruleset: what it says of each probe."""
    evaluator = Evaluator(ruleset)
    hooks = {item.hook for item in ruleset.attachments}
    answered = not hooks & {Hook.OUTPUT, Hook.POSTROUTING}

    def opinion(probe: Probe) -> Opinion:
        packet = probe.packet
        way = Way.OUTPUT if probe.start == "gateway" else Way.FORWARD if route(packet) else Way.INPUT
        return Opinion(evaluator.journey(packet, way=way, route=route), answered)

    return opinion


def spoken(opinion: Opinion) -> str:
    """An opinion in words."""
    if opinion.journey is None:
        return "no opinion"
    words = [_words(ending) for ending in opinion.journey.endings]
    unknown = [str(unknown.what) for unknown in opinion.journey.unknowns]
    return " or ".join(words) + (f" (unknown: {', '.join(unknown)})" if unknown else "")


def _words(ending: Ending) -> str:
    packet = ending.packet
    ends = [
        "?" if value is None else format_address(value, packet.family) for value in (packet.source, packet.destination)
    ]
    head = f"{ending.verdict}: {ends[0]} port {packet.sport} > {ends[1]} port {packet.dport}"
    return f"{head}, mark {packet.mark}, tos {packet.tos}, ttl {packet.ttl}"
