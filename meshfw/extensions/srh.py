"""The srh match: the segment routing header of an IPv6 packet (ip6tables-extensions(8), srh; RFC 8754, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError
from meshfw.extensions.codecs import integer, number, sign
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

    def __post_init__(self) -> None:
        for name in _COMPARED:
            given = self._given(name)
            if given and self._numbers(name) == self._numbers(name, given[-1]):
                self._keep_one(name, given[-1])

    def _keep_one(self, name: str, number: int) -> None:
        """Compares a field with one number, in the making of a match, as iptables stores what means the same."""
        for field in (f"{name}_{end}" for end in _ENDS):
            held = getattr(self, field)
            if held is not None:
                msgspec.structs.force_setattr(self, field, Not(number) if type(held) is Not else number)

    def _given(self, name: str) -> list[int]:
        """The numbers that a field is compared with, in the order printed."""
        held = (sign(getattr(self, f"{name}_{end}"))[1] for end in _ENDS)
        return [number for number in held if number is not None]

    def atoms(self) -> Iterable[Any]:
        """That there is such a header, and one part for each field of it that not every number meets."""
        yield ("srh",)
        for name in _COMPARED:
            numbers = self._numbers(name)
            if numbers != _EVERY:
                yield ("srh", name, numbers)
        for field in ("next_header", "tag", "psid", "nsid", "lsid"):
            held = getattr(self, field)
            if held is not None:
                negated, value = sign(held)
                yield ("srh", field, negated, value.atom() if isinstance(value, Segment) else value)

    def losses(self) -> Iterable[Loss]:
        """Comparisons of one field with different numbers: iptables 1.8.9 keeps the number given last for all."""
        for name in _COMPARED:
            given = self._given(name)
            if len(set(given)) > 1:
                yield Loss(
                    frozenset({"legacy", "nft"}),
                    f"srh compares one field with {' and '.join(map(str, sorted(set(given))))}, "
                    "and iptables keeps the number given last for each",
                )

    def _numbers(self, name: str, stored: int | None = None) -> int:
        """The numbers of a field that meet its comparisons, each a bit; of all with one number where it is stored."""
        numbers = _EVERY
        for end, inside in _ENDS.items():
            negated, value = sign(getattr(self, f"{name}_{end}"))
            if value is not None:
                met = inside(value if stored is None else stored)
                numbers &= _EVERY ^ met if negated else met
        return numbers


_EVERY: Final = (1 << 256) - 1
_COMPARED: Final = ("length", "segments", "last")
_ENDS: Final[dict[str, Callable[[int], int]]] = {
    "eq": lambda value: 1 << value,
    "gt": lambda value: _EVERY >> value + 1 << value + 1,
    "lt": lambda value: (1 << value) - 1,
}
"""The numbers that meet a comparison with one, each a bit."""


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
