"""The esp, ah and ipcomp matches: the indexes by which IPsec tells its associations apart (RFC 4301)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError
from meshfw.extensions.codecs import integer, plain_condition, set_nft, sign
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.extensions.spans import EVERY, WORD, Span, read_span, span_atoms, span_meets, span_nft, spans
from meshfw.model import Family, Loss, Match, Not, Packet, Rule

ESP: Final = 50
AH: Final = 51
IPCOMP: Final = 108
CPI_LAST: Final = 0xFFFF
"""An index of ipcomp has 16 bits (RFC 3173, section 3.1), though iptables takes ranges of 32."""

UNITS_LAST: Final = 0xFF
"""The largest length that an authentication header says of itself."""

_NO_LENGTH: Final = 1
"""A length in octets that no header has."""
_BOTH: Final = frozenset({"legacy", "nft"})

Spans = Span | Not[Span] | None


def _lost(option: str, held: Spans) -> Iterable[Loss]:
    """What becomes of the negation of every index, which no packet meets."""
    if held == Not(EVERY):
        yield Loss(
            _BOTH, f"iptables 1.8.9 stores ! {option} {EVERY}, which no packet meets, as a match of every packet"
        )


def _met(packet: Packet, held: Spans, *, last: int = WORD) -> bool | None:
    """Whether the packet's index, which is never known, meets it; a later fragment has none."""
    if packet.fragment:
        return False
    negated, span = (False, EVERY) if held is None else sign(held)
    return span_meets(span, None, negated=negated, last=last)


def _useful(match: Any) -> None:
    """Sets the range of every index, which iptables doesn't print, to None in the making of a match."""
    if match.spi == EVERY:
        msgspec.structs.force_setattr(match, "spi", None)


class Esp(Match, frozen=True):
    """The security parameters index of an ESP packet (iptables-extensions(8), esp)."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({ESP})
    spi: Spans = None

    def __post_init__(self) -> None:
        _useful(self)

    def atoms(self) -> Iterable[Any]:
        """The indexes that meet it."""
        if self.spi is not None:
            yield from span_atoms("esp spi", *sign(self.spi))

    def meets(self, packet: Packet) -> bool | None:
        """What can be told without the index."""
        return _met(packet, self.spi)

    def losses(self) -> Iterable[Loss]:
        """The negation of every index."""
        return _lost("--espspi", self.spi)


def _units(octets: int) -> int | None:
    """A header's length as it says it, in words of 32 bits less two (RFC 4302); None where none has that length."""
    words, rest = divmod(octets, 4)
    return words - 2 if not rest and 2 <= words <= UNITS_LAST + 2 else None


class Ah(Match, frozen=True):
    """The security parameters index of an authentication header, and in IPv6 its length and reserved bits.

    In ``family`` IPv6 the header is found among the extension headers, whatever protocol the rule states; ``length``
    counts octets (iptables-extensions(8), ah).
    """

    spi: Spans = None
    length: int | Not[int] | None = None
    reserved: bool = False
    family: Family = Family.IPV4

    def __post_init__(self) -> None:
        _useful(self)
        if self.length == 0:  # what ip6tables doesn't tell from no length
            msgspec.structs.force_setattr(self, "length", None)

    def atoms(self) -> Iterable[Any]:
        """The header's presence, which IPv4's protocol says, and the indexes, length and bits that meet it."""
        if self.family is Family.IPV6:
            yield ("ah",)
        if self.spi is not None:
            yield from span_atoms("ah spi", *sign(self.spi))
        if self.length is not None:
            negated, octets = sign(self.length)
            units = _units(octets)
            if units is not None:
                yield ("ah length", negated, units)
            elif not negated:
                yield ("ah length", True, None)
        if self.reserved:
            yield ("ah reserved", 0)

    def meets(self, packet: Packet) -> bool | None:
        """What can be told without the header."""
        answer = _met(packet, self.spi)
        return answer if answer is False or self.family is Family.IPV4 else None

    def losses(self) -> Iterable[Loss]:
        """The negation of every index."""
        return _lost("--ahspi", self.spi)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """What IPv4 asks for: the protocol, and no more than the index."""
        if self.family is not family:
            return f"ah: a match of {self.family} headers in an {family} rule"
        if family is Family.IPV6:
            return None
        if self.length is not None or self.reserved:
            return "ah: --ahlen and --ahres do not exist for ipv4"
        return None if rule.protocol == AH else f"match ah needs the rule to state its protocol ({AH})"


class IpComp(Match, frozen=True):
    """The parameter index of compressed payload; ``reserved`` is read, but no kernel looks at it."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({IPCOMP})
    spi: Spans = None
    reserved: bool = False

    def __post_init__(self) -> None:
        _useful(self)

    def atoms(self) -> Iterable[Any]:
        """The indexes that meet it."""
        if self.spi is not None:
            yield from span_atoms("comp cpi", *sign(self.spi), last=CPI_LAST)

    def meets(self, packet: Packet) -> bool | None:
        """What can be told without the index."""
        return _met(packet, self.spi, last=CPI_LAST)

    def losses(self) -> Iterable[Loss]:
        """Every index, and none."""
        if self.spi is None:
            yield Loss(
                _BOTH, "iptables 1.8.9 prints -m ipcomp for every index, but reads it as --ipcompspi 0: leave it out"
            )
        yield from _lost("--ipcompspi", self.spi)


# --- nft ------------------------------------------------------------------------------------------------


def _ah_nft(value: Ah, family: Family, rule: Rule) -> Iterable[str]:
    if family is Family.IPV4:
        if value.spi is not None:
            negated, span = sign(value.spi)
            yield span_nft("ah spi", span, negated)
        return
    if rule.protocol is not None:
        raise InexpressibleError(
            "match ah beside a protocol in ipv6: to nft the authentication header is the packet's protocol, to "
            "ip6tables it is what follows that header"
        )
    negated, span = (False, EVERY) if value.spi is None else sign(value.spi)
    yield span_nft("ah spi", span, negated)  # of every index as well: it says that there is a header
    if value.length is not None:
        negated, octets = sign(value.length)
        units = _units(octets)
        if units is not None:
            yield set_nft("ah hdrlength", str(units), negated)
        elif not negated:
            yield f"ah hdrlength != 0-{UNITS_LAST}"
    if value.reserved:
        yield "ah reserved 0"


def _comp_nft(value: IpComp, family: Family, rule: Rule) -> Iterable[str]:
    if value.spi is not None:
        negated, span = sign(value.spi)
        yield span_nft("comp cpi", span, negated, last=CPI_LAST)


def _read_spi(match: NftMatch, family: Family) -> Ah | None:
    if not plain_condition(match):
        return None
    span = read_span(match.right)
    return Ah(Not(span) if match.negated else span, family=family)


def _read_length(match: NftMatch, family: Family) -> Ah | None:
    if family is Family.IPV4 or not plain_condition(match):
        return None
    span = read_span(match.right)
    if span == Span(0, UNITS_LAST) and match.negated:
        return Ah(length=_NO_LENGTH, family=family)
    octets = 4 * (span.low + 2)
    return Ah(length=Not(octets) if match.negated else octets, family=family) if span.low == span.high else None


def _read_reserved(match: NftMatch, family: Family) -> Ah | None:
    if family is Family.IPV4 or not plain_condition(match) or match.negated or match.right != 0:
        return None
    return Ah(reserved=True, family=family)


_SPI: Final = spans("an index")
_CPI: Final = spans("an index", last=CPI_LAST)

EXTENSIONS: Final = (
    Extension(
        name="esp",
        value=Esp,
        implied_by=ESP,
        options=(Option("--espspi", "spi", _SPI, invertible=True, nft="esp spi"),),
    ),
    Extension(
        name="ah",
        value=Ah,
        implied_by=AH,
        options=(
            Option("--ahspi", "spi", _SPI, invertible=True),
            Option("--ahlen", "length", integer("a length in octets"), invertible=True),
            Option("--ahres", "reserved", words=0),
        ),
        build=lambda fields, context: Ah(family=context.family, **fields),
        to_nft=_ah_nft,
        from_nft={"ah spi": _read_spi, "ah hdrlength": _read_length, "ah reserved": _read_reserved},
    ),
    Extension(
        name="ipcomp",
        value=IpComp,
        implied_by=IPCOMP,
        options=(
            Option("--ipcompspi", "spi", _CPI, invertible=True, nft="comp cpi"),
            Option("--compres", "reserved", words=0),
        ),
        to_nft=_comp_nft,
    ),
)
