"""How fast rules count: the difference of two looks at one kernel, by rule and by list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import msgspec

from meshfw.model import DispatcherKey, Family
from meshfw.plan import Formatter
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot


class Rate(msgspec.Struct, frozen=True):
    """What a rule, or all rules of a list, counted: in all, and each second between the two looks.

    ``position`` counts from 1, and is 0 for a whole list, in which a packet counts for each rule that it meets.
    """

    key: ListKey
    position: int
    entry: ObservedRule | None
    packets: int
    bytes: int
    packet_rate: float
    byte_rate: float

    @property
    def name(self) -> str:
        """The list's name; a dispatcher's is its hook and place."""
        key = self.key
        return f"{key.hook}/{key.place}" if isinstance(key, DispatcherKey) else key.name

    def text(self, formatter: Formatter) -> str:
        """The rule as iptables-save prints it; empty for a whole list."""
        if self.entry is None:
            return ""
        family: Family = self.key.family
        return formatter(self.entry.rule, family) if self.entry.rule is not None else self.entry.text

    def data(self, formatter: Formatter) -> dict[str, Any]:
        """The same for programs."""
        rule = {"position": self.position, "rule": self.text(formatter)} if self.entry is not None else {}
        return {
            "family": self.key.family,
            "table": self.key.table,
            "chain": self.name,
            **rule,
            "packets": self.packets,
            "bytes": self.bytes,
            "packets_per_second": round(self.packet_rate, 3),
            "bytes_per_second": round(self.byte_rate, 3),
        }


def rule_rates(before: Snapshot, after: Snapshot, *, seconds: float) -> tuple[Rate, ...]:
    """The rate of each rule that stands there now, in no order; one that is new has counted since it was made."""
    found = []
    for key, held in after.lists.items():
        old = before.lists.get(key)
        counted = dict(_identified(old)) if old is not None else {}
        for position, (identity, entry) in enumerate(_identified(held), 1):
            was = counted.get(identity)
            packets, octets = (entry.packets, entry.bytes) if was is None else _more(was, entry)
            found.append(Rate(key, position, entry, entry.packets, entry.bytes, packets / seconds, octets / seconds))
    return tuple(found)


def _more(was: ObservedRule, now: ObservedRule) -> tuple[int, int]:
    """What was counted in between; counters that are less than before began again at nothing."""
    if now.packets < was.packets or now.bytes < was.bytes:
        return now.packets, now.bytes
    return now.packets - was.packets, now.bytes - was.bytes


def _identified(held: ObservedList) -> Iterator[tuple[Hashable, ObservedRule]]:
    """Each rule with what tells it from the others of its list, wherever it stands: the backend's name or its meaning.

    Of equal rules the first stays the first.
    """
    seen: Counter[Hashable] = Counter()
    for entry in held.rules:
        identity: Hashable = entry.handle or (entry.text if entry.rule is None else entry.rule.key())
        seen[identity] += 1
        yield (identity, seen[identity]), entry


def list_rates(rules: Sequence[Rate]) -> tuple[Rate, ...]:
    """The sums of each list."""
    sums: dict[ListKey, list[float]] = {}
    for rate in rules:
        numbers = (rate.packets, rate.bytes, rate.packet_rate, rate.byte_rate)
        held = sums.setdefault(rate.key, [0, 0, 0.0, 0.0])
        held[:] = [one + other for one, other in zip(held, numbers, strict=True)]
    return tuple(
        Rate(key, 0, None, int(packets), int(octets), packet_rate, byte_rate)
        for key, (packets, octets, packet_rate, byte_rate) in sums.items()
    )


def busiest(rates: Sequence[Rate], *, by: str, most: int | None = None) -> tuple[Rate, ...]:
    """The rates with the fastest first, and of equal ones what has counted more; at most so many."""

    def speed(rate: Rate) -> tuple[float, int, float]:
        if by == "bytes":
            return rate.byte_rate, rate.bytes, rate.packet_rate
        return rate.packet_rate, rate.packets, rate.byte_rate

    ordered = sorted(rates, key=lambda rate: (rate.key.family, rate.key.table, rate.name, rate.position))
    return tuple(sorted(ordered, key=speed, reverse=True)[:most])


def shortened(number: float) -> str:
    """A number of three digits at most with its prefix: 950, 1.2k, 34M."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.5 or prefix == "T":
            break
        number /= 1000
    if prefix == "" and number == int(number):
        return str(int(number))
    return f"{number:.1f}{prefix}" if number < 9.95 else f"{number:.0f}{prefix}"
