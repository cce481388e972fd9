"""The mark and connmark matches and the MARK and CONNMARK targets: numbers that packets and connections carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import MARK, MarkValue, integer, number, parse_mark, plain_mark, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Packet, Rule, Target, Twice, every, turned

FULL: Final = 0xFFFFFFFF


def _mark_atoms(field: str, mark: Any, *, always: bool) -> Iterable[Any]:
    negated, value = plain_mark(mark)
    if not (always and not negated and value == MarkValue(0, 0)):
        yield (field, negated, value)


class Mark(Match, frozen=True):
    """The mark of a packet (iptables-extensions(8), mark)."""

    mark: MarkValue | Not[MarkValue]

    def atoms(self) -> Iterable[Any]:
        """Value, mask and sign; nothing for a mask of no bits, which every packet meets."""
        return _mark_atoms("mark", self.mark, always=True)

    def meets(self, packet: Packet) -> bool | None:
        """Value under mask."""
        negated, value = sign(self.mark)
        return turned(value.met_by(packet.mark), negated)


class ConnMark(Match, frozen=True):
    """The mark of a packet's connection; a packet without one never matches (iptables-extensions(8), connmark)."""

    mark: MarkValue | Not[MarkValue]

    def atoms(self) -> Iterable[Any]:
        """Value, mask and sign."""
        return _mark_atoms("ct mark", self.mark, always=False)

    def meets(self, packet: Packet) -> bool | None:
        """Value under mask, of a packet that has a connection."""
        negated, value = sign(self.mark)
        return every((packet.tracked, turned(value.met_by(packet.ct_mark), negated)))


class MarkChange(msgspec.Struct, frozen=True, gc=False, order=True):
    """A change of a mark: the bits of ``mask`` are cleared, then those of ``value`` are turned over."""

    value: int
    mask: int = FULL

    def __post_init__(self) -> None:
        if not 0 <= self.value <= FULL or not 0 <= self.mask <= FULL:
            raise ModelError("value and mask of a mark are numbers of 32 bits")

    def applied(self, mark: int | None) -> int | None:
        """The mark after the change; None where it isn't known."""
        if self.mask == FULL:
            return self.value
        return None if mark is None else mark & ~self.mask & FULL ^ self.value

    def __str__(self) -> str:
        return f"{self.value:#x}/{self.mask:#x}"


def _turned_twice(change: MarkChange, *, shift: int = 0) -> Twice | None:
    """What comes of a change of a mark that is made twice: nothing where it sets bits and turns none over."""
    turned, moved = change.value & ~change.mask, shift and change.mask != FULL
    return Twice("bits of the mark are changed twice", alters=True) if turned or moved else None


class SetMark(Target, frozen=True):
    """MARK: changes the packet's mark (iptables-extensions(8), MARK; every table since Linux 2.6.36)."""

    final: ClassVar[bool] = False
    change: MarkChange

    @property
    def label(self) -> str:
        """The target's own name."""
        return "MARK"

    def applied(self, packet: Packet) -> Packet:
        """The packet with its new mark."""
        return msgspec.structs.replace(packet, mark=self.change.applied(packet.mark))

    def twice(self) -> Twice | None:
        """Bits turned back, where some are turned over."""
        return _turned_twice(self.change)


class SetConnMark(Target, frozen=True):
    """CONNMARK: changes the connection's mark, or copies between it and the packet's (iptables-extensions(8)).

    With ``change`` it sets; otherwise ``copy`` is ``save`` (packet to connection) or ``restore`` (back), of the
    bits of ``nfmask`` (packet) and ``ctmask`` (connection). ``shift`` moves the bits to the left, below 0 to the right.
    """

    final: ClassVar[bool] = False
    change: MarkChange | None = None
    copy: str | None = None
    nfmask: int = FULL
    ctmask: int = FULL
    shift: int = 0

    def __post_init__(self) -> None:
        if (self.change is None) == (self.copy is None):
            raise ModelError("CONNMARK needs one of --set-xmark, --save-mark and --restore-mark")
        if self.copy not in (None, "save", "restore"):
            raise ModelError(f"{self.copy!r} is neither save nor restore")
        if not -31 <= self.shift <= 31:  # a kernel refuses more (xt_connmark.c)
            raise ModelError("a mark is shifted by 0 to 31 bits")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "CONNMARK"

    def applied(self, packet: Packet) -> Packet:
        """The packet, or its connection, with the new mark; without a connection nothing changes (xt_connmark.c)."""
        if packet.tracked is False:
            return packet
        if self.copy == "restore":
            mark = self._copied(packet.ct_mark, self.ctmask, packet.mark, self.nfmask)
            return msgspec.structs.replace(packet, mark=mark if packet.tracked else None)
        if self.change is not None:
            mark = self._shifted(self.change.applied(packet.ct_mark))
        else:
            mark = self._copied(packet.mark, self.nfmask, packet.ct_mark, self.ctmask)
        return msgspec.structs.replace(packet, ct_mark=mark)

    def _copied(self, source: int | None, taken: int, target: int | None, cleared: int) -> int | None:
        """The target's mark with the source's bits turned over in it; None where it isn't known."""
        bits = self._shifted(0 if not taken else None if source is None else source & taken)
        kept = 0 if cleared == FULL else None if target is None else target & ~cleared
        return None if bits is None or kept is None else kept ^ bits

    def _shifted(self, mark: int | None) -> int | None:
        """The mark shifted."""
        if not self.shift or mark is None:
            return mark
        return mark << self.shift & FULL if self.shift > 0 else mark >> -self.shift

    def twice(self) -> Twice | None:
        """Bits turned back or moved on, where some are; a copy turns those over that it doesn't clear."""
        if self.change is not None:
            return _turned_twice(self.change, shift=self.shift)
        cleared, taken = (self.ctmask, self.nfmask) if self.copy == "save" else (self.nfmask, self.ctmask)
        reached = self._shifted(taken) or 0
        return _turned_twice(MarkChange(reached, cleared))


def _change(text: str, context: ParseContext) -> MarkChange:
    held = parse_mark(text, context)
    return MarkChange(held.value, held.mask)


def _set(text: str, context: ParseContext) -> MarkChange:
    held = parse_mark(text, context)
    return MarkChange(held.value, held.value | held.mask)


_EXPECTED: Final = "a number of 32 bits"
_CHANGE: Final = Codec(parse=_change, format=str, expected="VALUE or VALUE/MASK, each of 32 bits")
_SET: Final = Codec(parse=_set, format=str, expected="VALUE or VALUE/MASK, each of 32 bits")
_AND: Final = Codec(parse=lambda text, context: MarkChange(0, ~number(text) & FULL), format=str, expected=_EXPECTED)
_OR: Final = Codec(parse=lambda text, context: MarkChange(number(text), number(text)), format=str, expected=_EXPECTED)
_XOR: Final = Codec(parse=lambda text, context: MarkChange(number(text), 0), format=str, expected=_EXPECTED)
_MASK: Final = Codec(parse=lambda text, context: number(text), format=hex, expected=_EXPECTED)
_BITS: Final = integer("a number of bits from 0 to 31", high=31)

_CHANGES: Final = (
    Option("--set-xmark", "change", _CHANGE),
    Option("--set-mark", "change", _SET),
    Option("--and-mark", "change", _AND),
    Option("--or-mark", "change", _OR),
    Option("--xor-mark", "change", _XOR),
)


def _build_connmark(fields: dict[str, Any], context: ParseContext) -> SetConnMark:
    if "left" in fields and "right" in fields:
        raise ModelError("--left-shift-mark can't stand beside --right-shift-mark")
    fields["shift"] = fields.pop("left", 0) - fields.pop("right", 0)
    mask = fields.pop("mask", None)
    if mask is None:
        pass
    elif "nfmask" in fields or "ctmask" in fields:
        raise ModelError("--mask can't stand beside --nfmask or --ctmask")
    elif "change" in fields:
        fields["change"] = MarkChange(fields["change"].value, mask)
    else:
        fields.update(nfmask=mask, ctmask=mask)
    if "change" in fields:  # iptables reads the masks of a copy here as well, and forgets them
        fields.pop("nfmask", None)
        fields.pop("ctmask", None)
    return SetConnMark(**fields)


# --- nft ------------------------------------------------------------------------------------------------------


def _changed(left: str, change: MarkChange) -> str:
    """What a mark becomes as nft lists it: of the kernel's and-mask and xor-value, bits that end up on are or-ed."""
    if change.mask == FULL:
        return f"{change.value:#010x}"
    on = change.value & change.mask
    turned = change.value & ~change.mask
    kept = ~change.mask & FULL | on
    text = left
    if kept != FULL:
        text += f" & {kept:#010x}"
    if turned:
        text += f" ^ {turned:#010x}"
    return f"{text} | {on:#010x}" if on else text


_PLAIN: Final = ("meta mark", "ct mark")


def _shifted(text: str, shift: int) -> str:
    """A mark expression moved to the left, or below 0 to the right."""
    if not shift:
        return text
    operator = "<<" if shift > 0 else ">>"
    return f"{text if text in _PLAIN else f'({text})'} {operator} {abs(shift)}"


def _connmark_nft(value: SetConnMark, family: Family, rule: Rule) -> Iterable[str]:
    if value.change is not None:
        if value.shift and value.change.mask == FULL:
            raise InexpressibleError("CONNMARK --set-mark of all bits and a shift: state the mark that comes of it")
        yield f"ct mark set {_shifted(_changed('ct mark', value.change), value.shift)}"
        return
    target, source, kept, taken = ("ct mark", "meta mark", value.ctmask, value.nfmask)
    if value.copy == "restore":
        target, source, kept, taken = ("meta mark", "ct mark", value.nfmask, value.ctmask)
    if kept != FULL:
        raise InexpressibleError(
            f"CONNMARK --{value.copy}-mark with nfmask {value.nfmask:#x} and ctmask {value.ctmask:#x}: "
            f"nft overwrites the whole {target}"
        )
    text = source if taken == FULL else f"{source} & {taken:#010x}"
    yield f"{target} set {_shifted(text, value.shift)}"


def _masked(kind: type[Mark | ConnMark]) -> Callable[[NftMatch, Family], Match | None]:
    """The reader of a mark under a mask that is no prefix."""

    def read(match: NftMatch, family: Family) -> Match | None:
        held = MarkValue(int(match.right), int(match.mask))
        return kind(Not(held) if match.negated else held) if match.op in ("==", "!=") else None

    return read


def _unshifted(value: Any) -> tuple[Any, int]:
    """A mark expression of nft's JSON without a shift around it, and that shift."""
    if isinstance(value, dict):
        ((operator, body),) = value.items()
        if operator in ("<<", ">>"):
            return body[0], int(body[1]) if operator == "<<" else -int(body[1])
    return value, 0


def _expression(value: Any) -> tuple[str, int, int]:
    """A mark expression of nft's JSON: what it is made from (empty for a number), and-mask and xor-value."""
    if isinstance(value, int):
        return "", 0, value
    if not isinstance(value, dict):
        raise ModelError(f"{value} in a mark")
    ((operator, body),) = value.items()
    if operator in ("meta", "ct"):
        return f"{operator} {body['key']}", FULL, 0
    source, mask, turned = _expression(body[0])
    number = int(body[1])
    if operator == "&":
        return source, mask & number, turned & number
    if operator == "^":
        return source, mask, turned ^ number
    if operator == "|":
        return source, mask & ~number, turned | number
    raise ModelError(f"operator {operator} in a mark")


def _read_mark(body: Any, family: Family) -> Target | None:
    value, shift = _unshifted(body["value"])
    source, mask, turned = _expression(value)
    if source in ("", "meta mark") and not shift:
        return SetMark(MarkChange(turned, ~mask & FULL))
    return SetConnMark(copy="restore", ctmask=mask, shift=shift) if source == "ct mark" and not turned else None


def _read_connmark(body: Any, family: Family) -> Target | None:
    value, shift = _unshifted(body["value"])
    source, mask, turned = _expression(value)
    if source == "ct mark" or (not source and not shift):
        return SetConnMark(MarkChange(turned, ~mask & FULL), shift=shift)
    return SetConnMark(copy="save", nfmask=mask, shift=shift) if source == "meta mark" and not turned else None


def _save_connmark(value: SetConnMark, family: Family) -> Sequence[str]:
    shift = ("--left-shift-mark", str(value.shift)) if value.shift > 0 else ("--right-shift-mark", str(-value.shift))
    tail = shift if value.shift else ()
    if value.change is not None:
        return ("--set-xmark", str(value.change), *tail)
    return (f"--{value.copy}-mark", "--nfmask", hex(value.nfmask), "--ctmask", hex(value.ctmask), *tail)


EXTENSIONS: Final = (
    Extension(
        name="mark",
        value=Mark,
        options=(Option("--mark", "mark", MARK, invertible=True, nft="meta mark"),),
        from_nft={"meta mark &": _masked(Mark)},
    ),
    Extension(
        name="connmark",
        value=ConnMark,
        options=(Option("--mark", "mark", MARK, invertible=True, nft="ct mark"),),
        from_nft={"ct mark &": _masked(ConnMark)},
    ),
    Extension(
        name="MARK",
        value=SetMark,
        options=_CHANGES,
        to_nft=lambda value, family, rule: (f"meta mark set {_changed('meta mark', value.change)}",),
        from_nft={"mangle meta mark": _read_mark},
    ),
    Extension(
        name="CONNMARK",
        value=SetConnMark,
        options=(
            *_CHANGES,
            Option("--save-mark", "copy", words=0, preset="save"),
            Option("--restore-mark", "copy", words=0, preset="restore"),
            Option("--nfmask", "nfmask", _MASK),
            Option("--ctmask", "ctmask", _MASK),
            Option("--mask", "mask", _MASK),
            Option("--left-shift-mark", "left", _BITS),
            Option("--right-shift-mark", "right", _BITS),
        ),
        build=_build_connmark,
        save=_save_connmark,
        to_nft=_connmark_nft,
        from_nft={"mangle ct mark": _read_connmark},
    ),
)
