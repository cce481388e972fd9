"""The dscp and tos matches and the DSCP and TOS targets: the octet of an IP header that asks for a class of service.

The upper six bits are the codepoint of differentiated services, the lower two those of congestion notification
(RFC 2474, RFC 3168). ``tos`` sees the octet whole, ``dscp`` the upper bits alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import number, plain_condition, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Packet, Table, Target, Twice

DSCP_BITS: Final = 0xFC
ECN_BITS: Final = 0x03
OCTET: Final = 0xFF
_SYMBOL_BITS: Final = 0x3F

CLASSES: Final = {
    **{f"CS{place}": place << 3 for place in range(8)},
    "BE": 0,
    **{f"AF{row}{column}": row << 3 | column << 1 for row in range(1, 5) for column in range(1, 4)},
    "EF": 0x2E,
}
"""Codepoints by the names of their classes (RFC 2474, RFC 2597, RFC 3246)."""
SYMBOLS: Final = {
    "minimize-delay": 0x10,
    "maximize-throughput": 0x08,
    "maximize-reliability": 0x04,
    "minimize-cost": 0x02,
    "normal-service": 0x00,
}
"""Old meanings of the octet (RFC 1349), each under a mask of its lower six bits."""


class Masked(msgspec.Struct, frozen=True, gc=False, order=True):
    """An octet under a mask."""

    value: int
    mask: int = OCTET

    def __post_init__(self) -> None:
        if not 0 <= self.value <= OCTET or not 0 <= self.mask <= OCTET:
            raise ModelError("value and mask of the type of service are numbers of 8 bits")

    def __str__(self) -> str:
        return f"{self.value:#04x}/{self.mask:#04x}"


NEVER: Final = ("tos", True, Masked(0, 0))


def tos_atoms(negated: bool, held: Masked) -> Iterable[tuple[Any, ...]]:
    """The meaning of a condition on the octet: of one that isn't negated, one part for each of its two fields."""
    if held.value & ~held.mask or not held.mask:  # met by every packet or by none
        if negated == (not held.value & ~held.mask):
            yield NEVER
    elif negated:
        yield ("tos", True, held)
    else:
        for bits in (DSCP_BITS, ECN_BITS):
            if held.mask & bits:
                yield ("tos", False, Masked(held.value & bits, held.mask & bits))


def tos_meets(negated: bool, held: Masked, packet: Packet) -> bool | None:
    """Whether the packet's octet meets the condition; what all or no octets meet needs none."""
    atoms = tuple(tos_atoms(negated, held))
    if not atoms or atoms == (NEVER,):
        return not atoms
    return None if packet.tos is None else (packet.tos & held.mask == held.value) is not negated


def tos_applied(change: Masked, packet: Packet) -> Packet:
    """The packet with its octet changed: the bits of the mask cleared, then those of the value turned over."""
    if change.mask == OCTET:
        return msgspec.structs.replace(packet, tos=change.value)
    if packet.tos is None:
        return packet
    return msgspec.structs.replace(packet, tos=packet.tos & ~change.mask ^ change.value)


class Dscp(Match, frozen=True):
    """The codepoint, from 0 to 63 (iptables-extensions(8), dscp)."""

    dscp: int | Not[int]

    def atoms(self) -> Iterable[Any]:
        """The same as those of a tos match."""
        negated, value = sign(self.dscp)
        return tos_atoms(negated, Masked(value << 2, DSCP_BITS))

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet has the codepoint."""
        negated, value = sign(self.dscp)
        return tos_meets(negated, Masked(value << 2, DSCP_BITS), packet)


class Tos(Match, frozen=True):
    """The octet, or some of its bits (iptables-extensions(8), tos)."""

    tos: Masked | Not[Masked]

    def atoms(self) -> Iterable[Any]:
        """Value and mask of each field; nothing for what every packet meets."""
        return tos_atoms(*sign(self.tos))

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet's octet meets it."""
        return tos_meets(*sign(self.tos), packet)


class SetTos(Target, frozen=True):
    """TOS: the bits of the mask are cleared, then those of the value are turned over (iptables-extensions(8), TOS)."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    final: ClassVar[bool] = False
    change: Masked

    @property
    def label(self) -> str:
        """The target's own name."""
        return "TOS"

    def applied(self, packet: Packet) -> Packet:
        """The packet with its new octet."""
        return tos_applied(self.change, packet)

    def atom(self, family: Family | None = None) -> Any:
        """The change, that of DSCP alike; the same as no target where it changes nothing."""
        return None if self.change == Masked(0, 0) else ("TOS", self.change)

    def then(self, following: Target) -> Target | None:
        """Both changes in one."""
        return _joined(self.change, following)

    def twice(self) -> Twice | None:
        """Bits turned back, where some are turned over."""
        return Twice("bits are turned over twice", alters=True) if self.change.value & ~self.change.mask else None


class SetDscp(Target, frozen=True):
    """DSCP: sets the codepoint, from 0 to 63 (iptables-extensions(8), DSCP)."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    final: ClassVar[bool] = False
    dscp: int

    @property
    def label(self) -> str:
        """The target's own name."""
        return "DSCP"

    @property
    def change(self) -> Masked:
        """The same as a change of the octet."""
        return Masked(self.dscp << 2, DSCP_BITS)

    def applied(self, packet: Packet) -> Packet:
        """The packet with its new codepoint."""
        return tos_applied(self.change, packet)

    def atom(self, family: Family | None = None) -> Any:
        """The change, that of TOS alike."""
        return ("TOS", self.change)

    def then(self, following: Target) -> Target | None:
        """Both changes in one."""
        return _joined(self.change, following)


def _joined(first: Masked, following: Target) -> SetTos | None:
    if not isinstance(following, SetTos | SetDscp):
        return None
    change = following.change
    return SetTos(Masked(first.value & ~change.mask & OCTET ^ change.value, first.mask | change.mask))


# --- words ----------------------------------------------------------------------------------------------


def _dscp(text: str, context: ParseContext) -> int:
    return number(text, high=0x3F)


def _class(text: str, context: ParseContext) -> int:
    if text.upper() not in CLASSES:
        raise ModelError(f"{text!r} is no class of differentiated services")
    return CLASSES[text.upper()]


def _tos(text: str, context: ParseContext) -> Masked:
    symbol = SYMBOLS.get(text.lower())
    if symbol is not None:
        return Masked(symbol, _SYMBOL_BITS)
    value, slash, mask = text.partition("/")
    return Masked(number(value, high=OCTET), number(mask, high=OCTET) if slash else OCTET)


def _bits(change: Callable[[int], Masked]) -> Codec:
    return Codec(
        parse=lambda text, context: change(number(text, high=OCTET)), format=str, expected="a number of 8 bits"
    )


_DSCP: Final = Codec(parse=_dscp, format="{:#04x}".format, expected="a codepoint from 0 to 63")
_CLASS: Final = Codec(parse=_class, format="{:#04x}".format, expected="CS0 to CS7, BE, AF11 to AF43 or EF")
_TOS: Final = Codec(
    parse=_tos, format=str, expected=f"VALUE or VALUE/MASK, each of 8 bits, or one of {', '.join(SYMBOLS)}"
)

# --- nft ------------------------------------------------------------------------------------------------

_HEADERS: Final = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_NFT_CLASSES: Final = {
    **{code: name.lower() for name, code in CLASSES.items() if name != "BE"},
    0x01: "lephb",
    0x2C: "va",
}
"""The codepoints that nft 1.0.6 lists by name."""
NFT_ECN: Final = ("not-ect", "ect1", "ect0", "ce")
"""nft's names of the congestion bits."""


def dscp_word(code: int) -> str:
    """A codepoint as nft lists it."""
    return _NFT_CLASSES.get(code) or f"{code:#04x}"


def tos_nft(negated: bool, held: Masked, family: Family) -> Iterable[str]:
    """The condition in nft, which has a name for each of the two fields; other bits are looked at where they lie.

    nft 1.0.6 lists a negated test of the whole octet as two tests, and a range of one number as it is.
    """
    header = _HEADERS[family]
    octet = "@nh,8,8" if family is Family.IPV4 else "@nh,4,8"
    atoms = tuple(tos_atoms(negated, held))
    if atoms == (NEVER,):
        yield f"{octet} != 0x0-0xff"
    elif negated and atoms and held.mask == OCTET:
        yield f"{octet} != {held.value:#x}-{held.value:#x}"
    else:
        for _, _, part in atoms:
            yield _field_nft(header, negated, part)


def _field_nft(header: str, negated: bool, part: Masked) -> str:
    if part.mask == DSCP_BITS:
        return set_nft(f"{header} dscp", dscp_word(part.value >> 2), negated)
    if part.mask == ECN_BITS:
        return set_nft(f"{header} ecn", NFT_ECN[part.value], negated)
    if part.mask & 7 == ECN_BITS:
        raise InexpressibleError(f"! tos {part}: nft 1.0.6 lists a test of these bits as one of ip ecn alone")
    # IPv6's octet lies across two: then nft lists the bits within the first 16.
    left, shift = ("@nh,8,8", 0) if header == "ip" else ("@nh,0,16", 4)
    return f"{left} & {part.mask << shift:#x} {'!=' if negated else '=='} {part.value << shift:#x}"


def _change_nft(change: Masked, family: Family) -> Iterable[str]:
    header = _HEADERS[family]
    partial = [bits for bits in (DSCP_BITS, ECN_BITS) if change.mask & bits not in (0, bits)]
    if partial or change.value & ~change.mask:
        raise InexpressibleError(
            f"TOS --set-tos {change}: nft 1.0.6 sets the whole of {header} dscp or of {header} ecn, not single bits"
        )
    if change.mask & DSCP_BITS:
        yield f"{header} dscp set {dscp_word(change.value >> 2)}"
    if change.mask & ECN_BITS:
        yield f"{header} ecn set {NFT_ECN[change.value & ECN_BITS]}"


def _field(right: Any, names: dict[str, int]) -> int:
    """A number of nft's JSON, or the name that stands for it."""
    return names[right] if isinstance(right, str) else int(right)


_CODES: Final = {name: code for code, name in _NFT_CLASSES.items()}
_ECN_CODES: Final = {name: code for code, name in enumerate(NFT_ECN)}


def _read_dscp(match: NftMatch, family: Family) -> Match | None:
    if not plain_condition(match):
        return None
    code = _field(match.right, _CODES)
    return Dscp(Not(code) if match.negated else code)


def _read_ecn(match: NftMatch, family: Family) -> Match | None:
    if not plain_condition(match):
        return None
    held = Masked(_field(match.right, _ECN_CODES), ECN_BITS)
    return Tos(Not(held) if match.negated else held)


class _OctetReader:
    """Reads a condition on bits of the octet where they lie in a header of the family."""

    def __init__(self, family: Family, shift: int = 0) -> None:
        self._family = family
        self._shift = shift

    def __call__(self, match: NftMatch, family: Family) -> Match | None:
        if family is not self._family or match.op not in ("==", "!="):
            return None
        if match.mask is not None:
            value, mask = int(match.right), int(match.mask)
            if (value | mask) & ~(OCTET << self._shift):
                return None
            held = Masked(value >> self._shift, mask >> self._shift)
        else:
            low, high = match.right["range"]
            if low != high and (low, high) != (0, OCTET):
                return None
            held = Masked(low) if low == high else Masked(0, 0)
        return Tos(Not(held) if match.negated else held)


def _read_set_dscp(body: Any, family: Family) -> Target | None:
    return SetDscp(_field(body["value"], _CODES))


def _read_set_ecn(body: Any, family: Family) -> Target | None:
    return SetTos(Masked(_field(body["value"], _ECN_CODES), ECN_BITS))


EXTENSIONS: Final = (
    Extension(
        name="dscp",
        value=Dscp,
        options=(
            Option("--dscp", "dscp", _DSCP, invertible=True),
            Option("--dscp-class", "dscp", _CLASS, invertible=True),
        ),
        to_nft=lambda value, family, rule: (
            _field_nft(_HEADERS[family], sign(value.dscp)[0], Masked(sign(value.dscp)[1] << 2, DSCP_BITS)),
        ),
        from_nft={f"{header} dscp": _read_dscp for header in _HEADERS.values()},
    ),
    Extension(
        name="tos",
        value=Tos,
        options=(Option("--tos", "tos", _TOS, invertible=True),),
        to_nft=lambda value, family, rule: tos_nft(*sign(value.tos), family),
        from_nft={
            **{f"{header} ecn": _read_ecn for header in _HEADERS.values()},
            "@nh,8,8 &": _OctetReader(Family.IPV4),
            "@nh,8,8 range": _OctetReader(Family.IPV4),
            "@nh,0,16 &": _OctetReader(Family.IPV6, 4),
            "@nh,4,8 range": _OctetReader(Family.IPV6),
        },
    ),
    Extension(
        name="DSCP",
        value=SetDscp,
        options=(Option("--set-dscp", "dscp", _DSCP), Option("--set-dscp-class", "dscp", _CLASS)),
        to_nft=lambda value, family, rule: _change_nft(value.change, family),
        from_nft={f"mangle {header} dscp": _read_set_dscp for header in _HEADERS.values()},
    ),
    Extension(
        name="TOS",
        value=SetTos,
        options=(
            Option("--set-tos", "change", _TOS),
            Option("--and-tos", "change", _bits(lambda bits: Masked(0, ~bits & OCTET))),
            Option("--or-tos", "change", _bits(lambda bits: Masked(bits, bits))),
            Option("--xor-tos", "change", _bits(lambda bits: Masked(bits, 0))),
        ),
        to_nft=lambda value, family, rule: _change_nft(value.change, family),
        from_nft={f"mangle {header} ecn": _read_set_ecn for header in _HEADERS.values()},
    ),
)
