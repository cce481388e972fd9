"""The rt match: the routing header of an IPv6 packet (ip6tables-extensions(8), rt; RFC 8200, section 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, plain_condition, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.extensions.header_spans import drop_full_span, full_span_losses, header_length, header_nft
from meshfw.extensions.spans import WORD, Span, read_span, span_atoms, spans
from meshfw.model import Family, Loss, Match, Not, Rule, format_address, parse_address

HOPS: Final = 16
"""Addresses that one match can list (linux/netfilter_ipv6/ip6t_rt.h, IP6T_RT_HOPS)."""
_OCTET: Final = 0xFF
_NO_TYPE: Final = 0x100


class Rt(Match, frozen=True):
    """A packet with a routing header: its type, the segments left, its length in bytes.

    Of a header of type 0 also: whether its reserved field is empty, and the addresses that it lists, which are all of
    it, or with ``not_strict`` only stand in it in this order.
    """

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    type: int | Not[int] | None = None
    segments: Span | Not[Span] | None = None
    length: int | Not[int] | None = None
    reserved: bool | None = None
    addresses: tuple[int, ...] | None = None
    not_strict: bool | None = None

    def __post_init__(self) -> None:
        drop_full_span(self, "segments", WORD)
        if (self.reserved or self.addresses) and self.type != 0:
            raise ModelError("--rt-0-res and --rt-0-addrs need --rt-type 0")
        if self.not_strict and not self.addresses:
            raise ModelError("--rt-0-not-strict needs --rt-0-addrs")
        if self.addresses and len(self.addresses) > HOPS:
            raise ModelError(f"--rt-0-addrs lists at most {HOPS} addresses")

    def atoms(self) -> Iterable[Any]:
        """That there is such a header, and one part for each field that not every header meets."""
        yield ("rt",)
        for field, held in self._spans():
            yield from span_atoms(f"rt {field}", *sign(held), last=_OCTET)
        if self.reserved:
            yield ("rt reserved",)
        if self.addresses:
            yield ("rt addresses", bool(self.not_strict), self.addresses)

    def losses(self) -> Iterable[Loss]:
        """The negation of all numbers of segments."""
        return full_span_losses("--rt-segsleft", self.segments, WORD)

    def _spans(self) -> Iterable[tuple[str, Any]]:
        """The fields, by their names in nft, and the numbers that they are to hold."""
        if self.type is not None:
            negated, number = sign(self.type)
            span = Span(number, number)
            yield "type", Not(span) if negated else span
        if self.segments is not None:
            yield "seg-left", self.segments
        if self.length is not None:
            yield "hdrlength", header_length(self.length)

    def nft(self) -> Iterable[str]:
        """Its conditions in nft."""
        if self.reserved:
            raise InexpressibleError("--rt-0-res: nft has no name for the reserved field of a type 0 header")
        if self.addresses:
            raise InexpressibleError("--rt-0-addrs: nft lists addresses of a type 0 header as those of another type")
        held = [text for name, span in self._spans() for text in header_nft(f"rt {name}", span, _OCTET)]
        return held or ["exthdr rt exists"]


def _parse_addresses(text: str, context: ParseContext) -> tuple[int, ...]:
    held = [parse_address(item) for item in text.split(",")]
    if any(family is not Family.IPV6 for family, _ in held):
        raise ModelError(f"{text!r} holds an address that is none of IPv6")
    return tuple(address for _, address in held)


_ADDRESSES: Final = Codec(
    parse=_parse_addresses,
    format=lambda held: ",".join(format_address(address, Family.IPV6) for address in held),
    expected="IPv6 addresses joined by commas",
)


class _Reader:
    """Reads one key of nft's JSON into one field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __call__(self, match: NftMatch, family: Family) -> Rt | None:
        if not plain_condition(match):
            return None
        held: Any = read_span(match.right)
        negated = match.negated
        if self._field != "segments":
            if negated and held == Span(0, _OCTET):
                negated, held = False, Span(_NO_TYPE, _NO_TYPE)
            if held.low != held.high:
                return None
            held = held.low if self._field == "type" else 8 * (held.low + 1)
        filled: dict[str, Any] = {self._field: Not(held) if negated else held}
        return Rt(**filled)


_READERS: Final[dict[str, Callable[[Any, Family], Match | None]]] = {
    "rt type": _Reader("type"),
    "rt seg-left": _Reader("segments"),
    "rt hdrlength": _Reader("length"),
}


def _to_nft(value: Rt, family: Family, rule: Rule) -> Iterable[str]:
    return value.nft()


EXTENSIONS: Final = (
    Extension(
        name="rt",
        value=Rt,
        options=(
            Option("--rt-type", "type", integer("a routing header's type"), invertible=True),
            Option("--rt-segsleft", "segments", spans("a number of segments"), invertible=True),
            Option("--rt-len", "length", integer("a length in bytes"), invertible=True),
            Option("--rt-0-res", "reserved", words=0),
            Option("--rt-0-addrs", "addresses", _ADDRESSES),
            Option("--rt-0-not-strict", "not_strict", words=0),
        ),
        to_nft=_to_nft,
        from_nft=_READERS,
    ),
)
