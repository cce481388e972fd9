"""The HMARK target: a mark from a hash of the packet (iptables-extensions(8), HMARK)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, NoReturn

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import PREFIX, integer
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Rule, Target


class Hmark(Target, frozen=True, kw_only=True):
    """HMARK: the mark becomes a hash, under ``modulus`` and ``offset``, of what is not None or of the connection.

    ``source`` and ``destination`` are prefix lengths; the others are masks, and the bits that are set before hashing.
    """

    final: ClassVar[bool] = False
    source: int | None = None
    destination: int | None = None
    sport_mask: int | None = None
    dport_mask: int | None = None
    spi_mask: int | None = None
    sport: int | None = None
    dport: int | None = None
    spi: int | None = None
    protocol_mask: int | None = None
    seed: int
    modulus: int
    offset: int | None = None
    ct: bool = False

    def __post_init__(self) -> None:
        if self.modulus < 1:
            raise ModelError("--hmark-mod is at least 1")
        if not self.ct and all(getattr(self, field) is None for field in _PARTS):
            raise ModelError("HMARK needs --hmark-tuple, or a part of it")
        for ports, spi in (((self.sport_mask, self.dport_mask), self.spi_mask), ((self.sport, self.dport), self.spi)):
            if spi is not None and ports != (None, None):
                raise ModelError("HMARK hashes ports or an SPI, not both")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "HMARK"

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A prefix longer than the family's addresses."""
        longest = max(self.source or 0, self.destination or 0)
        return f"HMARK: /{longest} is longer than an {family} address" if longest > family.bits else None


_PARTS: Final = tuple("source destination sport_mask dport_mask spi_mask sport dport spi protocol_mask".split())
_TUPLE: Final = {
    "ct": ("ct", 1),
    "src": ("source", -1),
    "dst": ("destination", -1),
    "sport": ("sport_mask", 0xFFFF),
    "dport": ("dport_mask", 0xFFFF),
    "proto": ("protocol_mask", 0xFFFF),
    "spi": ("spi_mask", 0xFFFFFFFF),
}
"""What each word of --hmark-tuple sets; -1 is a whole address."""


def _parse_tuple(text: str, context: ParseContext) -> tuple[str, ...]:
    found = []
    for word in text.split(","):
        names = [name for name in _TUPLE if word and name.startswith(word.lower())]
        if not names:
            raise ModelError(f"{word!r} is no part of a packet")
        found.append(names[0])
    return tuple(found)


def _build(fields: dict[str, Any], context: ParseContext) -> Hmark:
    if "seed" not in fields or "modulus" not in fields:
        raise ModelError("HMARK needs --hmark-mod and --hmark-rnd")
    made: dict[str, Any] = {}
    for name, value in fields.items():  # in the order written: the last word counts
        if name != "tuple":
            if name in made:
                raise ModelError("--hmark-tuple states this part already")
            made[name] = value
            continue
        for word in value:
            field, held = _TUPLE[word]
            made[field] = True if field == "ct" else context.family.bits if held < 0 else held
    return Hmark(**made)


def _hexadecimal(digits: int) -> Codec:
    codec = integer(f"a number of {4 * digits} bits", high=(1 << 4 * digits) - 1)
    return Codec(parse=codec.parse, format=lambda value: f"{value:#0{digits + 2}x}", expected=codec.expected)


_PORT: Final = _hexadecimal(4)
_SPI: Final = _hexadecimal(8)
_PROTOCOL: Final = Codec(parse=_PORT.parse, format=lambda value: f"{value:#04x}", expected=_PORT.expected)
_NUMBER: Final = integer("a number of 32 bits")
_WORDS: Final = Codec(parse=_parse_tuple, format=",".join, expected=f"a list of {', '.join(_TUPLE)}")

_OPTIONS: Final = (
    Option("--hmark-src-prefix", "source", PREFIX),
    Option("--hmark-dst-prefix", "destination", PREFIX),
    Option("--hmark-sport-mask", "sport_mask", _PORT),
    Option("--hmark-dport-mask", "dport_mask", _PORT),
    Option("--hmark-spi-mask", "spi_mask", _SPI),
    Option("--hmark-sport", "sport", _PORT),
    Option("--hmark-dport", "dport", _PORT),
    Option("--hmark-spi", "spi", _SPI),
    Option("--hmark-proto-mask", "protocol_mask", _PROTOCOL),
    Option("--hmark-rnd", "seed", _SPI),
    Option("--hmark-mod", "modulus", integer("a number of 32 bits", low=1)),
    Option("--hmark-offset", "offset", _NUMBER),
)


def _save(value: Hmark, family: Family) -> Iterator[str]:
    for option in _OPTIONS:
        held = getattr(value, option.field)
        if held is not None and option.codec is not None:
            yield from (option.name, option.codec.format(held))
    if value.ct:
        yield from ("--hmark-tuple", "ct")


def _to_nft(value: Hmark, family: Family, rule: Rule) -> NoReturn:
    raise InexpressibleError("HMARK: iptables hashes both directions of a connection alike, and nft's jhash can't")


EXTENSIONS: Final = (
    Extension(
        name="HMARK",
        value=Hmark,
        options=(
            *_OPTIONS,
            Option("--hmark-tuple", "tuple", _WORDS),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
    ),
)
