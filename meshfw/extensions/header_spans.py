"""Spans of numbers: one number or two joined by a colon, as several matches of iptables take them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from meshfw.extensions.codecs import complement, number, set_nft, sign
from meshfw.extensions.extension import Codec, NftMatch, ParseContext
from meshfw.model import Loss, Not

Ranges = tuple[tuple[int, int], ...]
"""Numbers as ranges, sorted and apart from each other."""


class Span(msgspec.Struct, frozen=True, gc=False, order=True):
    """The numbers from ``low`` to ``high``, both included; none where it ends below its beginning."""

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


def span_codec(last: int) -> Codec:
    """``N``, ``N:M``, ``N:`` or ``:M`` with numbers up to ``last``."""

    def parse(text: str, context: ParseContext) -> Span:
        first, colon, end = text.partition(":")
        low = number(first, high=last) if first or not colon else 0
        high = low if not colon else number(end, high=last) if end else last
        return Span(low, high)

    return Codec(parse=parse, format=str, expected=f"a number up to {last}, or FIRST:LAST")


def single(value: int) -> Span:
    """The span of one number."""
    return Span(value, value)


def header_length(held: Any) -> Any:
    """The length field of an extension header for its length in bytes, or for the negation (RFC 8200, section 4).

    The field counts units of eight bytes beyond the first: a length that is no multiple of eight is met by none.
    """
    negated, length = sign(held)
    units, rest = divmod(length, 8)
    span = single(units - 1) if units and not rest else Span(1, 0)
    return Not(span) if negated else span


def met(held: Any, last: int) -> Ranges:
    """The numbers up to ``last``, the highest that a packet can hold, that meet a span or its negation."""
    negated, span = sign(held)
    inside = ((span.low, min(span.high, last)),) if span.low <= min(span.high, last) else ()
    return complement(inside, last=last) if negated else inside


def span_atoms(field: str, held: Any, last: int) -> Iterable[tuple[str, Ranges]]:
    """The meaning of a span or its negation; nothing where every number meets it."""
    ranges = met(held, last)
    if ranges != ((0, last),):
        yield (field, ranges)


def span_nft(left: str, held: Any, last: int) -> Iterable[str]:
    """The condition in nft of a span or its negation; nothing where every number meets it."""
    ranges = met(held, last)
    if ranges == ((0, last),):
        return
    if not ranges:
        yield f"{left} != 0-{last}"
        return
    negated = len(ranges) > 1 or sign(held)[0]
    low, high = complement(ranges, last=last)[0] if negated else ranges[0]
    yield set_nft(left, str(low) if low == high else f"{low}-{high}", negated)


def read_span(match: NftMatch, names: dict[str, int] | None = None) -> Any:
    """The span, or the ends of it by name, on the right side of nft's JSON."""
    right = match.right["range"] if isinstance(match.right, dict) else (match.right, match.right)
    low, high = ((names or {}).get(end, end) for end in right)
    return Span(int(low), int(high))


def drop_full_span(match: Any, field: str, last: int) -> None:
    """Sets a field that holds the span of all numbers to None, in the making of a match: iptables doesn't store it."""
    if getattr(match, field) == Span(0, last):
        msgspec.structs.force_setattr(match, field, None)


def full_span_losses(option: str, held: Any, last: int) -> Iterable[Loss]:
    """What iptables 1.8.9 loses: it leaves out the span of all numbers, and the sign before it."""
    negated, span = sign(held)
    if negated and span == Span(0, last):
        yield Loss(
            frozenset({"legacy", "nft"}),
            f"! {option} {span} is met by no packet, and iptables 1.8.9 stores it as met by every packet",
        )
