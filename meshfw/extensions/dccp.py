"""The dccp match: ports, packet types and options of DCCP (iptables-extensions(8), dccp; RFC 4340, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import Ports, integer, listed, plain_condition, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.extensions.tcp import end_atoms, ends_met, port_options, ports_to_nft
from meshfw.model import Elements, Family, Match, Not, Packet, Rule, SetRef, every

DCCP: Final = 33
TYPES: Final = (
    "REQUEST",
    "RESPONSE",
    "DATA",
    "ACK",
    "DATAACK",
    "CLOSEREQ",
    "CLOSE",
    "RESET",
    "SYNC",
    "SYNCACK",
    "INVALID",
)
"""Packet types in the order of their numbers; INVALID is 10 and all above it, to 15."""
_INVALID: Final = 0xFC00
_EVERY: Final = 0xFFFF


class Dccp(Match, frozen=True):
    """Ports of a DCCP packet; its type, one of those whose bits are set; an option that it has."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({DCCP})
    sport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    dport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    types: int | Not[int] | None = None
    option: int | Not[int] | None = None

    def __post_init__(self) -> None:
        if self.types is None:
            return
        bits = sign(self.types)[1]
        if not 1 <= bits <= _EVERY or bits & _INVALID not in (0, _INVALID):
            raise ModelError("dccp packet types are bits 0 to 9, and 10 to 15 together")

    def atoms(self) -> Iterable[Any]:
        """One part for each field that is set, and none for all types."""
        yield from end_atoms(self.sport, self.dport)
        if self.types is not None:
            negated, bits = sign(self.types)
            met = bits ^ _EVERY if negated else bits
            if met != _EVERY:
                yield ("dccp types", met)
        if self.option is not None:
            yield ("dccp option", *sign(self.option))

    def meets(self, packet: Packet) -> bool | None:
        """The ports; types and options aren't known."""
        return self.meets_among(packet, {})

    def meets_among(self, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
        """The same with known sets."""
        every_type = self.types is None or self.types == _EVERY
        return every((ends_met(self, packet, sets), True if every_type and self.option is None else None))


def _parse_types(text: str, context: ParseContext) -> int:
    bits = 0
    for name in filter(None, text.split(",")):
        if name.upper() not in TYPES:
            raise ModelError(f"{name!r} is no packet type of DCCP")
        place = TYPES.index(name.upper())
        bits |= _INVALID if place == len(TYPES) - 1 else 1 << place
    if not bits:
        raise ModelError("a list of packet types names at least one")
    return bits


def _format_types(bits: int) -> str:
    return ",".join(name for place, name in enumerate(TYPES) if bits & 1 << place)


_TYPES: Final = Codec(parse=_parse_types, format=_format_types, expected=f"a list of {', '.join(TYPES)}")

# --- nft ------------------------------------------------------------------------------------------------


def _types_nft(negated: bool, bits: int) -> Iterable[str]:
    if bits == _EVERY:
        if negated:
            yield "dccp type != 0-15"
        return
    items = [name.lower() for place, name in enumerate(TYPES[:-1]) if bits & 1 << place]
    items += ["10-15"] if bits & _INVALID else []
    yield set_nft("dccp type", items[0] if len(items) == 1 else f"{{ {', '.join(items)} }}", negated)


_ports_to_nft: Final = ports_to_nft("dccp")


def _to_nft(value: Dccp, family: Family, rule: Rule) -> Iterable[str]:
    if value.option is not None:
        raise InexpressibleError("--dccp-option: nft sees none of the options of DCCP")
    yield from _ports_to_nft(value, family, rule)
    if value.types is not None:
        yield from _types_nft(*sign(value.types))


def _place(end: Any) -> int:
    return TYPES.index(end.upper()) if isinstance(end, str) else int(end)


def _read_types(match: NftMatch, family: Family) -> Dccp | None:
    bits = 0
    for item in listed(match.right):
        low, high = item["range"] if isinstance(item, dict) else (item, item)
        for place in range(_place(low), _place(high) + 1):
            bits |= 1 << place
    if not plain_condition(match) or bits & _INVALID not in (0, _INVALID):
        return None
    return Dccp(types=Not(bits) if match.negated else bits)


EXTENSIONS: Final = (
    Extension(
        name="dccp",
        value=Dccp,
        implied_by=DCCP,
        options=(
            *port_options("dccp"),
            Option("--dccp-types", "types", _TYPES, invertible=True),
            Option("--dccp-option", "option", integer("a number from 1 to 255", low=1, high=0xFF), invertible=True),
        ),
        to_nft=_to_nft,
        from_nft={"dccp type": _read_types},
    ),
)
