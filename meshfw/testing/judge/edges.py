"""Where the conditions of a rule begin and end: the values on both sides of every bound that it states.

Nothing here knows an extension: a rule's values are taken apart field by field. Addresses, ports, flags, types and
marks are told by their types; any other number may be a time to live, a type of service, a length, a mark or a port,
and is tried as each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from meshfw.extensions.codecs import MarkValue, Ports
from meshfw.extensions.icmp import IcmpType
from meshfw.extensions.iprange import AddressRange
from meshfw.extensions.tcp import TcpFlags
from meshfw.model import Elements, Family, Interface, Network, Not, Rule, SetRef

_PORT_MAX: Final = 0xFFFF
_MARK_MAX: Final = 0xFFFFFFFF


class Edges(msgspec.Struct):
    """Values worth trying, by the field of a packet; empty where a rule says nothing of it."""

    source: list[int] = []
    destination: list[int] = []
    sport: list[int] = []
    dport: list[int] = []
    flags: list[int] = []
    icmp: list[tuple[int, int]] = []
    marks: list[int] = []
    numbers: list[int] = []
    words: list[str] = []
    protocols: list[int] = []
    inward: list[str] = []
    outward: list[str] = []
    states: bool = False

    def add(self, other: Edges) -> None:
        """Take in the values of another rule."""
        for field in self.__struct_fields__:
            held = getattr(self, field)
            if isinstance(held, list):
                held.extend(getattr(other, field))


def edges(rule: Rule, *, family: Family, sets: Mapping[str, Elements]) -> Edges:
    """The values on both sides of every bound of a rule."""
    found = Edges()
    _Walk(found, family, sets).rule(rule)
    for field in found.__struct_fields__:
        held = getattr(found, field)
        if isinstance(held, list):
            setattr(found, field, sorted(set(held)))
    return found


class _Walk:
    """One rule taken apart into the lists of its edges."""

    def __init__(self, found: Edges, family: Family, sets: Mapping[str, Elements]) -> None:
        self._found = found
        self._family = family
        self._sets = sets

    def rule(self, rule: Rule) -> None:
        found = self._found
        self._value("source", rule.source)
        self._value("destination", rule.destination)
        for held, into in ((rule.in_interface, found.inward), (rule.out_interface, found.outward)):
            value = held.value if isinstance(held, Not) else held
            if isinstance(value, Interface):
                into.append(value.name)
        protocol = rule.protocol.value if isinstance(rule.protocol, Not) else rule.protocol
        if protocol is not None:
            found.protocols.append(protocol)
        for match in rule.matches:
            self._struct(match)

    def _struct(self, value: Any) -> None:
        for field in value.__struct_fields__:
            held = getattr(value, field)
            if "state" in field:
                self._found.states = True
            else:
                self._value(field, held)

    def _value(self, field: str, held: Any) -> None:  # noqa: PLR0912, C901 - one line for each kind of value
        if held is None or isinstance(held, bool | Family):
            return
        if isinstance(held, Not):
            held = held.value
        if isinstance(held, tuple | list | frozenset | set):
            for item in held:
                self._value(field, item)
            return
        found = self._found
        if isinstance(held, Network):
            self._addresses(field, held.address, held.address | _lowest_gap(held) if held.prefix is None else held.last)
        elif isinstance(held, AddressRange):
            self._addresses(field, held.low, held.high)
        elif isinstance(held, SetRef):
            self._set(field, held)
        elif isinstance(held, Ports):
            self._ports(field, held.low, held.high)
        elif isinstance(held, TcpFlags):
            found.flags.extend({held.set, held.set & held.mask, *(held.set ^ 1 << bit for bit in range(6))})
        elif isinstance(held, IcmpType):
            self._icmp(held)
        elif isinstance(held, MarkValue):
            self._mark(held)
        elif isinstance(held, int):
            found.numbers.extend(value for value in (held - 1, held, held + 1) if value >= 0)
        elif isinstance(held, str):
            found.words.append(held)
        elif isinstance(held, msgspec.Struct):
            self._struct(held)

    def _addresses(self, field: str, low: int, high: int) -> None:
        last = (1 << self._family.bits) - 1
        values = [value for value in (low - 1, low, high, high + 1, (low + high) // 2) if 0 <= value <= last]
        for into in self._sides(field, self._found.source, self._found.destination):
            into.extend(values)

    def _ports(self, field: str, low: int, high: int) -> None:
        values = [value for value in (low - 1, low, high, high + 1) if 0 <= value <= _PORT_MAX]
        for into in self._sides(field, self._found.sport, self._found.dport):
            into.extend(values)

    @staticmethod
    def _sides(field: str, source: list[int], destination: list[int]) -> Iterable[list[int]]:
        if "src" in field or field.startswith("s"):
            return (source,)
        return (destination,) if "dst" in field or field.startswith("d") else (source, destination)

    def _set(self, field: str, held: SetRef) -> None:
        take = self._ports if "port" in field else self._addresses
        for low, high in self._sets.get(held.name, ()):
            take(field, low, high)

    def _icmp(self, held: IcmpType) -> None:
        code = held.code or 0
        for kind in {held.type, max(held.type - 1, 0), min(held.type + 1, 255)}:
            self._found.icmp.extend((kind, value) for value in {code, max(code - 1, 0), min(code + 1, 255)})

    def _mark(self, held: MarkValue) -> None:
        bit = held.mask & -held.mask
        beyond = ~held.mask & _MARK_MAX
        values = (
            held.value,
            held.value ^ bit,
            held.value | beyond,
            held.value & held.mask,
            held.value ^ beyond & -beyond,
        )
        self._found.marks.extend(value & _MARK_MAX for value in values)


def _lowest_gap(network: Network) -> int:
    """The lowest bit that a mask leaves free."""
    free = ~network.mask & ((1 << network.family.bits) - 1)
    return free & -free
