"""Named sets of addresses or ports."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.model.address import Network, format_address, parse_address
from meshfw.model.chain import name_problem
from meshfw.model.kinds import Family

SET_NAME_MAX: Final = 31  # linux/netfilter/ipset/ip_set.h, IPSET_MAXNAMELEN with the final NUL


class ElementType(StrEnum):
    """What a set holds: addresses of its family, or ports."""

    ADDRESS = "address"
    PORT = "port"


class Set(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A named set of addresses or ports that rules refer to.

    ``elements`` are pairs of first and last value as integers, sorted and without overlap; without
    ``intervals`` first and last are the same. :meth:`of` makes one from text.
    """

    family: Family
    name: str
    type: ElementType = ElementType.ADDRESS
    intervals: bool = False
    elements: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        where = f"set {self.name}"
        why = name_problem(self.name, longest=SET_NAME_MAX)
        if why:
            raise ModelError(f"set {why}")
        last = -1
        for low, high in self.elements:
            if not last < low <= high < 1 << self.bits:
                raise ModelError("elements must be sorted, without overlap and of the set's family", where=where)
            if low != high and not self.intervals:
                raise ModelError(f"{self.text(low, high)} is a range and the set holds no intervals", where=where)
            last = high

    @property
    def bits(self) -> int:
        """The width of an element in bits."""
        return self.family.bits if self.type is ElementType.ADDRESS else 16

    @classmethod
    def of(
        cls,
        family: Family,
        name: str,
        elements: Iterable[str],
        *,
        type: ElementType = ElementType.ADDRESS,  # noqa: A002 - the field's own name
        intervals: bool | None = None,
    ) -> Set:
        """The set of elements given as text: an address, a prefix, ``first-last``, or a port.

        ``intervals`` left out means: where an element is a range. A set that changes its kind is built anew with all
        rules of its family, so say True where ranges may come later.
        """
        pairs = []
        for text in elements:
            try:
                pairs.append(_element(text, family, type))
            except ModelError as error:
                raise error.at(f"set {name}") from None
        merged = merge_ranges(pairs)
        ranges = any(low != high for low, high in merged) if intervals is None else intervals
        return cls(family=family, name=name, type=type, intervals=ranges, elements=merged)

    def text(self, low: int, high: int) -> str:
        """One element as text: the shortest of host, prefix and range."""
        if self.type is ElementType.PORT:
            return str(low) if low == high else f"{low}-{high}"
        first = format_address(low, self.family)
        if low == high:
            return first
        size = high - low + 1
        if size & (size - 1) == 0 and low % size == 0:
            return f"{first}/{self.bits - size.bit_length() + 1}"
        return f"{first}-{format_address(high, self.family)}"


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges sorted, overlapping ones joined; neighbours stay apart."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _element(text: str, family: Family, kind: ElementType) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if kind is ElementType.PORT:
        if not all(word.isascii() and word.isdigit() and int(word) < 1 << 16 for word in (first, last or first)):
            raise ModelError(f"{text!r} is not a port from 0 to 65535")
        low, high = int(first), int(last or first)
    elif dash:
        (one, low), (other, high) = parse_address(first), parse_address(last)
        if {one, other} != {family}:
            raise FamilyError(f"{text!r} is not an {family} range")
    else:
        network = Network.parse(text)
        if network.family is not family:
            raise FamilyError(f"{text!r} is not an {family} address")
        if network.prefix is None:
            raise ModelError(f"{text!r}: a set can't hold a mask with gaps")
        low, high = network.address, network.last
    if low > high:
        raise ModelError(f"{text!r}: the range ends before it begins")
    return low, high


SetKey = tuple[Family, str]
"""What names a set: family and name."""
