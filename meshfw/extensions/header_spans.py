"""Spans of numbers in the extension headers of IPv6: what nft says of them, and what iptables loses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from meshfw.extensions.codecs import complement, set_nft, sign
from meshfw.extensions.spans import Span
from meshfw.model import Loss, Not


def header_length(held: Any) -> Any:
    """The length field of an extension header for its length in bytes, or for the negation (RFC 8200, section 4).

    The field counts units of eight bytes beyond the first: a length that is no multiple of eight is met by none.
    """
    negated, length = sign(held)
    units, rest = divmod(length, 8)
    span = Span(units - 1, units - 1) if units and not rest else Span(1, 0)
    return Not(span) if negated else span


def header_nft(left: str, held: Any, last: int) -> Iterable[str]:
    """The condition in nft of a span or its negation; nothing where every number up to ``last`` meets it."""
    negated, span = sign(held)
    ranges = span.met(last, negated=negated)
    if ranges == ((0, last),):
        return
    if not ranges:
        yield f"{left} != 0-{last}"
        return
    negated = negated or len(ranges) > 1
    low, high = complement(ranges, last=last)[0] if negated else ranges[0]
    yield set_nft(left, str(low) if low == high else f"{low}-{high}", negated)


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
