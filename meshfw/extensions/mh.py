"""The mh match: the type of a Mobile IPv6 message (ip6tables-extensions(8), mh; RFC 6275, section 6.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import header_met, number, plain_condition, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.extensions.header_spans import drop_full_span, full_span_losses, header_nft
from meshfw.extensions.spans import Span, read_span, span_atoms
from meshfw.model import Family, Loss, Match, Not, Packet, Rule, every

MH: Final = 135
TYPES: Final = {
    "binding-refresh-request": 0,
    "home-test-init": 1,
    "careof-test-init": 2,
    "home-test": 3,
    "careof-test": 4,
    "binding-update": 5,
    "binding-acknowledgement": 6,
    "binding-error": 7,
    "fast-binding-update": 8,
    "fast-binding-acknowledgement": 9,
    "fast-binding-advertisement": 10,
    "experimental-mobility-header": 11,
    "home-agent-switch-message": 12,
}
"""Message types by nft's name; the first eight are iptables' names as well (RFC 6275, RFC 5568, RFC 5096)."""
_SHORT: Final = {"brr": 0, "hoti": 1, "coti": 2, "hot": 3, "cot": 4, "bu": 5, "ba": 6, "be": 7}
_NAMED: Final = 8
_OCTET: Final = 0xFF


class Mh(Match, frozen=True):
    """The type of a mobility header's message."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    protocols: ClassVar[frozenset[int] | None] = frozenset({MH})
    types: Span | Not[Span] | None = None

    def __post_init__(self) -> None:
        drop_full_span(self, "types", _OCTET)

    def atoms(self) -> Iterable[Any]:
        """The types; nothing where every message meets them."""
        return () if self.types is None else span_atoms("mh type", *sign(self.types), last=_OCTET)

    def meets(self, packet: Packet) -> bool | None:
        """The protocol; types aren't known."""
        return every((header_met(packet, {MH}), True if self.types is None else None))

    def losses(self) -> Iterable[Loss]:
        """The negation of all types."""
        return full_span_losses("--mh-type", self.types, _OCTET)


def _parse_type(text: str) -> int:
    lower = text.lower()
    names = {**{name: kind for name, kind in TYPES.items() if kind < _NAMED}, **_SHORT}
    if lower in names:
        return names[lower]
    found = [kind for name, kind in names.items() if lower and name.startswith(lower)]
    return found[0] if found else number(text, high=_OCTET)  # an abbreviation is the first name that it begins


def _parse(text: str, context: ParseContext) -> Span:
    first, colon, last = text.partition(":")
    low = _parse_type(first) if first or not colon else 0
    high = low if not colon else _parse_type(last) if last else _OCTET
    if low > high:
        raise ModelError(f"message types {text} end below their beginning")
    return Span(low, high)


_TYPES: Final = Codec(parse=_parse, format=str, expected="a message type by number or name, or FIRST:LAST")
_NFT_NAMES: Final = {number: name for name, number in TYPES.items()}


def _to_nft(value: Mh, family: Family, rule: Rule) -> Iterable[str]:
    if value.types is None:
        return
    for text in header_nft("mh type", value.types, _OCTET):
        left, _, right = text.rpartition(" ")
        yield f"{left} {_NFT_NAMES[int(right)] if right.isdigit() and int(right) in _NFT_NAMES else right}"


def _read(match: NftMatch, family: Family) -> Mh | None:
    if not plain_condition(match):
        return None
    span = read_span(match.right, TYPES)
    return Mh(Not(span) if match.negated else span)


EXTENSIONS: Final = (
    Extension(
        name="mh",
        value=Mh,
        implied_by=MH,
        options=(Option("--mh-type", "types", _TYPES, invertible=True),),
        to_nft=_to_nft,
        from_nft={"mh type": _read},
    ),
)
