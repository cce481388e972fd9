"""The hbh and dst matches: hop-by-hop and destination options of an IPv6 packet (ip6tables-extensions(8); RFC 8200)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, number, plain_condition, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.extensions.header_spans import header_length, header_nft
from meshfw.extensions.spans import Span, read_span, span_atoms
from meshfw.model import Family, Match, Not, Rule

OPTIONS_MAX: Final = 16
"""Options that one match can list (linux/netfilter_ipv6/ip6t_opts.h, IP6T_OPTS_OPTSNR)."""
_ANY_LENGTH: Final = 0xFF
_PAD1: Final = 0
_OCTET: Final = 0xFF
_NO_LENGTH: Final = 1
"""A length that no header has: each is a multiple of eight bytes."""


class HeaderOption(msgspec.Struct, frozen=True, gc=False, order=True):
    """One option's type and the length of its data in bytes; 255 is any length, which Pad1 alone has not."""

    type: int
    length: int = _ANY_LENGTH

    def __post_init__(self) -> None:
        if self.type == _PAD1 and self.length != _ANY_LENGTH:
            raise ModelError("option 0 (Pad1) has no length")

    def __str__(self) -> str:
        return str(self.type) if self.length == _ANY_LENGTH else f"{self.type}:{self.length}"


def _parse(text: str, context: ParseContext) -> tuple[HeaderOption, ...]:
    held = []
    for item in text.split(","):
        kind, colon, length = item.partition(":")
        held.append(HeaderOption(number(kind, high=0xFF), number(length, high=0xFF) if colon else _ANY_LENGTH))
    if len(held) > OPTIONS_MAX or (len(held) == OPTIONS_MAX and ":" in text.rpartition(",")[2]):
        raise ModelError(f"a list holds at most {OPTIONS_MAX} options, of which the last has no length")
    return tuple(held)


_LIST: Final = Codec(
    parse=_parse,
    format=lambda held: ",".join(map(str, held)),
    expected=f"at most {OPTIONS_MAX} of TYPE or TYPE:LENGTH, joined by commas",
)


class Hbh(Match, frozen=True):
    """A packet with a hop-by-hop options header: its length in bytes, and the options that it begins with."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    length: int | Not[int] | None = None
    options: tuple[HeaderOption, ...] | None = None

    def atoms(self) -> Iterable[Any]:
        """That there is such a header, and one part for each field."""
        return _atoms("hbh", self.length, self.options)


class Dst(Match, frozen=True):
    """A packet with a destination options header: its length in bytes, and the options that it begins with."""

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    length: int | Not[int] | None = None
    options: tuple[HeaderOption, ...] | None = None

    def atoms(self) -> Iterable[Any]:
        """That there is such a header, and one part for each field."""
        return _atoms("dst", self.length, self.options)


def _atoms(name: str, length: Any, options: Any) -> Iterable[Any]:
    yield (name,)
    if length is not None:
        yield from span_atoms(f"{name} hdrlength", *sign(header_length(length)), last=_OCTET)
    if options is not None:
        yield (name, options)


def _to_nft(value: Hbh | Dst, family: Family, rule: Rule) -> Iterable[str]:
    name = "hbh" if isinstance(value, Hbh) else "dst"
    if value.options is not None:
        raise InexpressibleError(f"--{name}-opts: nft sees the header, but not the options in it")
    held: list[str] = []
    if value.length is not None:
        held += header_nft(f"{name} hdrlength", header_length(value.length), _OCTET)
    return held or [f"exthdr {name} exists"]


class _Reader:
    """Reads a header's length, and of dst that it is there."""

    def __init__(self, value: type[Hbh] | type[Dst]) -> None:
        self._value = value

    def __call__(self, match: NftMatch, family: Family) -> Hbh | Dst | None:
        if match.key == "exthdr dst":
            return self._value() if match.op == "==" and match.right is True else None
        if not plain_condition(match):
            return None
        span = read_span(match.right)
        if match.negated and span == Span(0, _OCTET):
            return self._value(length=_NO_LENGTH)
        if span.low != span.high:
            return None
        length = 8 * (span.low + 1)
        return self._value(length=Not(length) if match.negated else length)


EXTENSIONS: Final = tuple(
    Extension(
        name=name,
        value=value,
        options=(
            Option(f"--{name}-len", "length", integer("a header's length in bytes"), invertible=True),
            Option(f"--{name}-opts", "options", _LIST),
        ),
        to_nft=_to_nft,
        from_nft={key: _Reader(value) for key in keys},
    )
    for name, value, keys in (
        ("hbh", Hbh, ("hbh hdrlength",)),  # that there is such a header is read by ipv6header
        ("dst", Dst, ("exthdr dst", "dst hdrlength")),
    )
)
