"""The srh match: the segment routing header of an IPv6 packet (ip6tables-extensions(8), srh; RFC 8754, section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError
from meshfw.extensions.codecs import complement, integer, number, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Loss, Match, Not, Rule, format_address, parse_address

_OCTET: Final = 0xFF
Octet = int | Not[int] | None


class Segment(msgspec.Struct, frozen=True, gc=False, order=True):
    """An address, kept as written, of which the first ``length`` bits count."""

    address: int
    length: int = 128

    def __str__(self) -> str:
        return f"{format_address(self.address, Family.IPV6)}/{self.length}"

    def atom(self) -> tuple[int, int]:
        """The bits that count, and how many they are."""
        return self.address >> 128 - self.length, self.length


class Srh(Match, frozen=True, kw_only=True):
    """A packet with a segment routing header whose segments left are no more than its last entry.

    ``*_eq``, ``*_gt`` and ``*_lt`` compare the header's length in units of eight bytes beyond the first, the segments
    left and the last entry; ``psid``, ``nsid`` and ``lsid`` are the previous, the next and the last segment.
    """

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    next_header: Octet = None
    length_eq: Octet = None
    length_gt: Octet = None
    length_lt: Octet = None
    segments_eq: Octet = None
    segments_gt: Octet = None
    segments_lt: Octet = None
    last_eq: Octet = None
    last_gt: Octet = None
    last_lt: Octet = None
    tag: int | Not[int] | None = None
    psid: Segment | Not[Segment] | None = None
    nsid: Segment | Not[Segment] | None = None
    lsid: Segment | Not[Segment] | None = None

    def atoms(self) -> Iterable[Any]:
        """That there is such a header, and one part for each field."""
        yield ("srh",)
        for field in self.__struct_fields__:
            held = getattr(self, field)
            if held is None:
                continue
            negated, value = sign(held)
            if field in _COMPARED:
                yield ("srh", *_compared(field, negated, value))
            else:
                yield ("srh", field, negated, value.atom() if isinstance(value, Segment) else value)

    def losses(self) -> Iterable[Loss]:
        """Two comparisons of one field with different numbers: iptables 1.8.9 keeps one number for both."""
        for name in ("length", "segments", "last"):
            numbers = {sign(held)[1] for end in _ENDS if (held := getattr(self, f"{name}_{end}")) is not None}
            if len(numbers) > 1:
                yield Loss(
                    frozenset({"legacy", "nft"}),
                    f"srh compares one field with {' and '.join(map(str, sorted(numbers)))}, "
                    "and iptables keeps the number given last for both",
                )


_ENDS: Final = ("eq", "gt", "lt")
_COMPARED: Final = frozenset(f"{name}_{end}" for name in ("length", "segments", "last") for end in _ENDS)


def _compared(field: str, negated: bool, value: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The numbers of a field that meet a comparison: ``! gt 4`` is ``lt 5``."""
    name, _, end = field.rpartition("_")
    low, high = {"eq": (value, value), "gt": (value + 1, _OCTET), "lt": (0, value - 1)}[end]
    inside = ((low, high),) if low <= high else ()
    return name, complement(inside, last=_OCTET) if negated else inside


def _parse_segment(text: str, context: ParseContext) -> Segment:
    address, slash, length = text.partition("/")
    family, value = parse_address(address)
    if family is not Family.IPV6:
        raise FamilyError(f"{text!r} is not an {Family.IPV6} address")
    return Segment(value, number(length, high=128) if slash else 128)


_SEGMENT: Final = Codec(parse=_parse_segment, format=str, expected="an IPv6 address or ADDRESS/LENGTH")
_NUMBER: Final = integer("a number from 0 to 255", high=_OCTET)


def _to_nft(value: Srh, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("srh: nft compares no two fields of a packet, as this match does the segments left first")


EXTENSIONS: Final = (
    Extension(
        name="srh",
        value=Srh,
        options=(
            Option("--srh-next-hdr", "next_header", _NUMBER, invertible=True),
            Option("--srh-hdr-len-eq", "length_eq", _NUMBER, invertible=True),
            Option("--srh-hdr-len-gt", "length_gt", _NUMBER, invertible=True),
            Option("--srh-hdr-len-lt", "length_lt", _NUMBER, invertible=True),
            Option("--srh-segs-left-eq", "segments_eq", _NUMBER, invertible=True),
            Option("--srh-segs-left-gt", "segments_gt", _NUMBER, invertible=True),
            Option("--srh-segs-left-lt", "segments_lt", _NUMBER, invertible=True),
            Option("--srh-last-entry-eq", "last_eq", _NUMBER, invertible=True),
            Option("--srh-last-entry-gt", "last_gt", _NUMBER, invertible=True),
            Option("--srh-last-entry-lt", "last_lt", _NUMBER, invertible=True),
            Option("--srh-tag", "tag", integer("a number from 0 to 65535", high=0xFFFF), invertible=True),
            Option("--srh-psid", "psid", _SEGMENT, invertible=True),
            Option("--srh-nsid", "nsid", _SEGMENT, invertible=True),
            Option("--srh-lsid", "lsid", _SEGMENT, invertible=True),
        ),
        to_nft=_to_nft,
    ),
)
