"""Ranges of numbers that are written FIRST:LAST: lengths, segment sizes, indexes of security associations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import complement, number, plain_condition, set_nft
from meshfw.extensions.extension import Codec, NftMatch, ParseContext

WORD: Final = 0xFFFFFFFF
"""The largest number of 32 bits."""
Ranges = tuple[tuple[int, int], ...]
"""Numbers as ranges, sorted and apart from each other."""


class Span(msgspec.Struct, frozen=True, gc=False, order=True):
    """Numbers from a first to a last, both included; none where the first is above the last."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= WORD or not 0 <= self.high <= WORD:
            raise ModelError(f"range {self}: two numbers of 32 bits")

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"

    def met(self, last: int = WORD, *, negated: bool = False) -> Ranges:
        """The numbers up to ``last`` that meet it, or that meet its negation."""
        inside = ((self.low, min(self.high, last)),) if self.low <= min(self.high, last) else ()
        return complement(inside, last=last) if negated else inside


EVERY: Final = Span(0, WORD)


def span_atoms(field: str, negated: bool, span: Span, *, last: int = WORD) -> Iterable[tuple[Any, ...]]:
    """The meaning of a range condition on a number up to ``last``; nothing where every number meets it."""
    met = span.met(last, negated=negated)
    if met != ((0, last),):
        yield (field, met)


def span_meets(span: Span, number: int | None, *, negated: bool, last: int = WORD) -> bool | None:
    """Whether a number up to ``last`` meets the condition; one that isn't known, where all or none do."""
    met = span.met(last, negated=negated)
    if number is not None:
        return any(low <= number <= high for low, high in met)
    return True if met == ((0, last),) else None if met else False


def span_nft(left: str, span: Span, negated: bool, *, last: int = WORD) -> str:
    """The condition in nft, where the range of all numbers stands for a condition that is always or never met."""
    met = span.met(last)
    if not met:
        return set_nft(left, f"0-{last}", not negated)
    ((low, high),) = met
    return set_nft(left, str(low) if low == high else f"{low}-{high}", negated)


def read_span(right: Any, names: Mapping[str, int] | None = None) -> Span:
    """One number or range of nft's JSON, or the ends of it by name."""
    low, high = right["range"] if isinstance(right, dict) else (right, right)
    known = names or {}
    return Span(int(known.get(low, low)), int(known.get(high, high)))


def _read(match: NftMatch) -> Span:
    if not plain_condition(match):
        raise ModelError(f"a comparison of {match.key} other than with a number or a range")
    return read_span(match.right)


def spans(what: str, *, high: int = WORD, last: int = WORD, falling: bool = True) -> Codec:
    """Ranges of numbers up to ``high``; what a packet holds is at most ``last``.

    iptables 1.8.9 takes most ranges that fall, which nothing meets; ``falling`` says whether it takes these.
    """

    def parse(text: str, context: ParseContext) -> Span:
        first, colon, end = text.partition(":")
        low = number(first, high=high) if first or not colon else 0
        held = Span(low, low if not colon else number(end, high=high) if end else high)
        if held.low > held.high and not falling:
            raise ModelError(f"{text} ends below its beginning")
        return held

    return Codec(
        parse=parse,
        format=str,
        expected=f"{what} from 0 to {high}, or FIRST:LAST",
        nft=lambda left, span, negated: span_nft(left, span, negated, last=last),
        read=_read,
    )
