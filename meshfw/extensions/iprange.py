"""The iprange match: addresses from a first to a last (iptables-extensions(8), iprange)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.codecs import plain_condition, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Packet, Rule, every, format_address, parse_address


class AddressRange(msgspec.Struct, frozen=True, gc=False, order=True):
    """Addresses from a first to a last, both included; one that ends below its beginning holds none."""

    family: Family
    low: int
    high: int

    def __post_init__(self) -> None:
        if not (0 <= self.low < 1 << self.family.bits and 0 <= self.high < 1 << self.family.bits):
            raise ModelError(f"range of {self.low:#x} and {self.high:#x}: two {self.family} addresses")

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """The range of ``FIRST-LAST`` or of one address."""
        first, dash, last = text.partition("-")
        family, low = parse_address(first)
        other, high = parse_address(last) if dash else (family, low)
        if other is not family:
            raise ModelError(f"{text!r}: the ends are of different families")
        return cls(family, low, high)

    def __str__(self) -> str:
        return f"{format_address(self.low, self.family)}-{format_address(self.high, self.family)}"

    def ascending(self) -> AddressRange:
        """The range; ``ModelError`` where it holds no address."""
        if self.low > self.high:
            raise ModelError(f"range {self}: two {self.family} addresses in ascending order")
        return self

    def short(self) -> str:
        """The range, or the address alone where it is one."""
        return format_address(self.low, self.family) if self.low == self.high else str(self)

    def atom(self) -> tuple[Any, ...]:
        """The same as that of a network of these addresses."""
        return (self.family.bits, self.low, self.high)


def _plain(held: Any) -> tuple[bool, AddressRange]:
    """A range's sign and addresses, without one that holds none: that is all addresses with the other sign."""
    negated, value = sign(held)
    if value.low > value.high:
        return not negated, AddressRange(value.family, 0, (1 << value.family.bits) - 1)
    return negated, value


class IpRange(Match, frozen=True):
    """Source and destination addresses in ranges."""

    source: AddressRange | Not[AddressRange] | None = None
    destination: AddressRange | Not[AddressRange] | None = None

    def __post_init__(self) -> None:
        if self.source is None and self.destination is None:
            raise ModelError("iprange needs --src-range or --dst-range")

    def atoms(self) -> Iterable[Any]:
        """The same as those of -s and -d; nothing for a range of all addresses."""
        for field, held in (("saddr", self.source), ("daddr", self.destination)):
            if held is None:
                continue
            negated, value = _plain(held)
            if negated or value.high - value.low + 1 < 1 << value.family.bits:
                yield (field, negated, value.atom())

    def meets(self, packet: Packet) -> bool | None:
        """Whether the addresses are in the ranges."""
        return every((_met(self.source, packet.source), _met(self.destination, packet.destination)))

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        for held in (self.source, self.destination):
            value = sign(held)[1]
            if value is not None and value.family is not family:
                return f"iprange: {value} is an {value.family} address range in an {family} chain"
        return None


def _met(held: AddressRange | Not[AddressRange] | None, address: int | None) -> bool | None:
    if held is None:
        return True
    negated, value = sign(held)
    return None if address is None else (value.low <= address <= value.high) is not negated


def _parse(text: str, context: ParseContext) -> AddressRange:
    value = AddressRange.parse(text)
    if value.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address range")
    return value


_RANGE: Final = Codec(parse=_parse, format=str, expected="FIRST-LAST, two addresses")


def _to_nft(value: IpRange, family: Family, rule: Rule) -> Iterable[str]:
    protocol = "ip" if family is Family.IPV4 else "ip6"
    for field, held in (("saddr", value.source), ("daddr", value.destination)):
        if held is None:
            continue
        negated, addresses = _plain(held)
        if negated or addresses.high - addresses.low + 1 < 1 << family.bits:
            yield set_nft(f"{protocol} {field}", str(addresses), negated)


class _Reader:
    """Reads one key of nft's JSON into one field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __call__(self, match: NftMatch, family: Family) -> IpRange | None:
        if not plain_condition(match):
            return None
        low, high = match.right["range"]
        held = AddressRange.parse(f"{low}-{high}")
        return IpRange(**{self._field: Not(held) if match.negated else held})


EXTENSIONS: Final = (
    Extension(
        name="iprange",
        value=IpRange,
        options=(
            Option("--src-range", "source", _RANGE, invertible=True),
            Option("--dst-range", "destination", _RANGE, invertible=True),
        ),
        to_nft=_to_nft,
        from_nft={
            f"{protocol} {address} range": _Reader(field)
            for protocol in ("ip", "ip6")
            for address, field in (("saddr", "source"), ("daddr", "destination"))
        },
    ),
)
