"""The tcp match: ports and flags of TCP (iptables-extensions(8), tcp)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import (
    ALL_PORTS,
    ASCENDING_PORTS,
    PORTS,
    Ports,
    conditions_on_ports,
    header_met,
    number,
    plain_condition,
    port_atoms,
    port_met,
    set_nft,
    sign,
)
from meshfw.extensions.ecn import flags_match
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Elements, Family, Loss, Match, Not, Packet, Rule, SetRef, every, turned

TCP: Final = 6
FLAGS: Final = {"FIN": 0x01, "SYN": 0x02, "RST": 0x04, "PSH": 0x08, "ACK": 0x10, "URG": 0x20}
"""Flag bits in the order iptables prints them (RFC 9293, section 3.1)."""
ALL_FLAGS: Final = 0x3F
_NFT_FLAGS: Final = {**{name.lower(): bit for name, bit in FLAGS.items()}, "ecn": 0x40, "cwr": 0x80}
NFT_OPTIONS: Final = {
    1: "nop",
    2: "maxseg",
    3: "window",
    4: "sack-perm",
    5: "sack",
    8: "timestamp",
    19: "md5sig",
    30: "mptcp",
    34: "fastopen",
}
"""The TCP options that nft 1.0.6 lists by name."""


class TcpFlags(msgspec.Struct, frozen=True, gc=False, order=True):
    """Of the flags in ``mask``, exactly those in ``set`` are on."""

    mask: int
    set: int

    def __str__(self) -> str:
        return f"{_names(self.mask)} {_names(self.set)}"


SYN: Final = TcpFlags(FLAGS["FIN"] | FLAGS["SYN"] | FLAGS["RST"] | FLAGS["ACK"], FLAGS["SYN"])
"""What --syn stands for: a segment that opens a connection."""


def _names(bits: int) -> str:
    return ",".join(name for name, bit in FLAGS.items() if bits & bit) or "NONE"


def flag_bits(text: str) -> int:
    """The bits of flags by name, joined by commas; ALL and NONE are names too."""
    bits = 0
    for name in text.split(","):
        upper = name.upper()
        if upper == "ALL":
            bits |= ALL_FLAGS
        elif upper in FLAGS:
            bits |= FLAGS[upper]
        elif upper != "NONE":
            raise ModelError(f"{name!r} is not a TCP flag")
    return bits


def _parse_flags(text: str, context: ParseContext) -> TcpFlags:
    mask, _, on = text.partition(" ")
    return TcpFlags(flag_bits(mask), flag_bits(on))


def _flags_nft(left: str, value: TcpFlags, negated: bool) -> str:
    """The condition in the form that nft lists for such a mask and value."""
    if not value.mask:
        return f"{left} 0x0"  # any of no flags: no segment meets it
    mask = ",".join(name for name, bit in _NFT_FLAGS.items() if value.mask & bit)
    on = ",".join(name for name, bit in _NFT_FLAGS.items() if value.set & bit)
    if not on:
        return f"{left} {mask}" if negated else f"{left} ! {mask}"
    if "," not in mask:  # nft's parser wants a list behind the stroke
        return f"{left} & {mask} {'!=' if negated else '=='} {on.replace(',', ' | ')}"
    return set_nft(left, f"{on} / {mask}", negated)


def _flag_bits(right: Any) -> int:
    """The bits of a flag expression of nft's JSON: a number, a name, a list, or an or-expression."""
    if isinstance(right, int):
        return right
    if isinstance(right, str):
        return _NFT_FLAGS[right]
    parts = right["|"] if isinstance(right, dict) else right
    bits = 0
    for part in parts:
        bits |= _flag_bits(part)
    return bits


def _flag_condition(mask: int, on: int, *, negated: bool) -> Match | None:
    """The match of a condition on flags, of which iptables leaves the two of congestion to ecn."""
    if (mask | on) & ~ALL_FLAGS:
        return flags_match(mask, on, negated=negated)
    flags = TcpFlags(mask, on)
    return Tcp(flags=Not(flags) if negated else flags)


def _read_masked(match: NftMatch, family: Family) -> Match | None:
    if match.op not in ("==", "!="):
        return None
    return _flag_condition(_flag_bits(match.mask), _flag_bits(match.right), negated=match.negated)


def _read_any(match: NftMatch, family: Family) -> Match | None:
    """Any of the flags."""
    return _flag_condition(_flag_bits(match.right), 0, negated=True) if match.op == "in" else None


def _option_nft(left: str, value: int, negated: bool) -> str:
    return f"{left} {NFT_OPTIONS.get(value, value)} {'missing' if negated else 'exists'}"


class _OptionReader:
    """Reads the presence of one TCP option from nft's JSON."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, match: NftMatch, family: Family) -> Tcp | None:
        if not plain_condition(match) or not isinstance(match.right, bool):
            return None
        return Tcp(option=self._number if match.right != match.negated else Not(self._number))


_NO_FLAGS: Final = TcpFlags(0, 0)
"""What every segment meets."""


def _plain_flags(value: Any) -> tuple[bool, TcpFlags]:
    """A flag condition's sign and flags; of a mask of no flags none is on."""
    negated, flags = sign(value)
    return (not negated, _NO_FLAGS) if flags.set and not flags.mask else (negated, flags)


def _flags_atoms(negated: bool, flags: TcpFlags) -> Iterable[tuple[Any, ...]]:
    """The meaning of a flag condition; one flag that is not on is a flag that is off."""
    outside = bool(flags.set & ~flags.mask)
    if not flags.mask:
        if negated != outside:
            yield ("tcp flags", True, _NO_FLAGS)  # no segment meets it
    elif outside:
        if not negated:  # no segment meets it either, but each is kept as it is, and told apart
            yield ("tcp flags", False, flags)
    elif negated and flags.mask.bit_count() == 1:
        yield ("tcp flags", False, TcpFlags(flags.mask, flags.set ^ flags.mask))
    else:
        yield ("tcp flags", negated, flags)


class Tcp(Match, frozen=True):
    """Ports, flags and one option of a TCP segment."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({TCP})
    sport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    dport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    flags: TcpFlags | Not[TcpFlags] | None = None
    option: int | Not[int] | None = None

    def __post_init__(self) -> None:
        drop_idle_ports(self)
        if self.flags == _NO_FLAGS:
            msgspec.structs.force_setattr(self, "flags", None)

    def atoms(self) -> Iterable[Any]:
        """One part for each field that is set."""
        yield from end_atoms(self.sport, self.dport)
        if self.flags is not None:
            yield from _flags_atoms(*sign(self.flags))
        if self.option is not None:
            yield ("tcp option", self.option)

    def losses(self) -> Iterable[Loss]:
        """Conditions that no segment meets, which iptables stores or prints as none."""
        yield from ports_lost(self)
        if self.flags is not None:
            negated, flags = sign(self.flags)
            if not flags.mask and bool(flags.set) is not negated:
                variants = _BOTH if flags.set else frozenset({"nft"})
                yield Loss(variants, f"--tcp-flags {flags}: no segment meets it, and iptables prints no such condition")

    def meets(self, packet: Packet) -> bool | None:
        """Ports and flags; options aren't known."""
        return self.meets_among(packet, {})

    def meets_among(self, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
        """The same with known sets."""
        return every(
            (
                ends_met(self, packet, sets),
                True if self.flags is None else _flags_met(self.flags, packet.tcp_flags),
                True if self.option is None else None,
            )
        )


def end_atoms(sport: Any, dport: Any) -> Iterable[Any]:
    """The meaning of a source and a destination port condition."""
    for field, held in (("sport", sport), ("dport", dport)):
        if held is None:
            continue
        negated, value = sign(held)
        if type(value) is SetRef:
            yield (field, negated, value.atom())
        else:
            yield from port_atoms(field, negated, (value,))


def _flags_met(held: TcpFlags | Not[TcpFlags], bits: int | None) -> bool | None:
    negated, flags = sign(held)
    if flags.set & ~flags.mask:
        return bool(negated)
    return turned(None if bits is None else bits & flags.mask == flags.set, negated)


def ends_met(match: Any, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
    """Whether the ports of a packet of the match's protocols meet its ``sport`` and ``dport``."""
    return every(
        (
            header_met(packet, match.protocols),
            port_met(match.sport, packet.sport, sets),
            port_met(match.dport, packet.dport, sets),
        )
    )


def drop_idle_ports(match: Any) -> None:
    """Sets a port field that every segment meets to None, in the making of a match."""
    for field in ("sport", "dport"):
        if getattr(match, field) == ALL_PORTS:
            msgspec.structs.force_setattr(match, field, None)


def ports_lost(match: Any) -> Iterable[Loss]:
    """What iptables stores for ``! 0:65535``, which no packet meets: nothing, which every packet meets."""
    for field in ("sport", "dport"):
        if getattr(match, field) == _NO_PORTS:
            yield Loss(_BOTH, f"! --{field} 0:65535: no packet meets it, and iptables stores it as met by every packet")


_BOTH: Final = frozenset({"legacy", "nft"})
_NATIVE: Final = frozenset({"native"})
_NO_PORTS: Final = Not(ALL_PORTS)


def port_options(protocol: str, codec: Codec = PORTS) -> tuple[Option, ...]:
    """The options --sport and --dport of a protocol's match."""
    return (
        Option("--sport", "sport", codec, aliases=("--source-port",), invertible=True, nft=f"{protocol} sport"),
        Option("--dport", "dport", codec, aliases=("--destination-port",), invertible=True, nft=f"{protocol} dport"),
    )


def ports_to_nft(protocol: str) -> Callable[[Any, Family, Rule], Iterator[str]]:
    """The rendering of a value with a source and a destination port."""

    def statements(value: Any, family: Family, rule: Rule) -> Iterator[str]:
        for field in ("sport", "dport"):
            held = getattr(value, field)
            if held is not None:
                yield from conditions_on_ports(f"{protocol} {field}", held)

    return statements


_FLAGS: Final = Codec(parse=_parse_flags, format=str, expected="MASK and the flags of it that are on, each FLAG,FLAG")
_OPTION: Final = Codec(
    parse=lambda text, context: number(text, low=1, high=0xFF),
    format=str,
    expected="a TCP option's number from 1 to 255",
)


_ports_to_nft: Final = ports_to_nft("tcp")


def _to_nft(value: Tcp, family: Family, rule: Rule) -> Iterable[str]:
    """Flags and ports, which make nft test that the packet is TCP; then the option, which does not."""
    if value.flags is not None:
        negated, held = _plain_flags(value.flags)
        if negated or held != _NO_FLAGS:
            yield _flags_nft("tcp flags", held, negated)
    yield from _ports_to_nft(value, family, rule)
    if value.option is not None:
        negated, held = sign(value.option)
        yield _option_nft("tcp option", held, negated)


EXTENSIONS: Final = (
    Extension(
        name="tcp",
        value=Tcp,
        implied_by=TCP,
        options=(
            *port_options("tcp", ASCENDING_PORTS),
            Option("--tcp-option", "option", _OPTION, invertible=True),
            Option("--tcp-flags", "flags", _FLAGS, words=2, invertible=True),
            Option("--syn", "flags", words=0, invertible=True, preset=SYN),
        ),
        to_nft=_to_nft,
        from_nft={
            "tcp flags &": _read_masked,
            "tcp flags": _read_any,
            **{f"tcp option {NFT_OPTIONS.get(number, number)}": _OptionReader(number) for number in range(1, 256)},
        },
    ),
)
