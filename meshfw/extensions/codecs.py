"""Kinds of values that several extensions share: ports, numbers, marks, names out of a list."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.extension import Codec, NftMatch, ParseContext
from meshfw.model import Elements, Not, Packet, SetRef, byte_length, merge_ranges, parse_address, within

PROTOCOL_NUMBERS: Final[Mapping[str, int]] = {
    "ip": 0,
    "icmp": 1,
    "igmp": 2,
    "ggp": 3,
    "ipencap": 4,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "icmp6": 58,
    "ospf": 89,
    "pim": 103,
    "ipcomp": 108,
    "vrrp": 112,
    "sctp": 132,
    "mobility-header": 135,
    "ipv6-mh": 135,
    "mh": 135,
    "udplite": 136,
    "dccp": 33,
}
"""Protocols that iptables knows without asking the host (xtables.c, xtables_chain_protos) and common others."""

PROTOCOL_NAMES: Final[Mapping[int, str]] = {number: name for name, number in reversed(list(PROTOCOL_NUMBERS.items()))}


def number(text: str, *, low: int = 0, high: int = 0xFFFFFFFF) -> int:
    """A number as iptables reads it: decimal, 0x hex or 0 octal (strtoul(3)), within bounds."""
    digits = text.strip()
    try:
        if not digits or digits[0] in "+-" or "_" in digits:
            raise ValueError
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        value = int(digits, 8 if octal else 0)
    except ValueError:
        raise ModelError(f"{text!r} is not a number") from None
    if not low <= value <= high:
        raise ModelError(f"{text} is not between {low} and {high}")
    return value


# --- ports ----------------------------------------------------------------------------------------------


class Ports(msgspec.Struct, frozen=True, gc=False, order=True):
    """One port or a range of ports, both ends included; one that ends below its beginning holds none."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not (0 <= self.low <= 0xFFFF and 0 <= self.high <= 0xFFFF):
            raise ModelError(f"ports {self.low}:{self.high}: two numbers from 0 to 65535")

    def ascending(self) -> Ports:
        """The ports; ``ModelError`` where there are none."""
        if self.low > self.high:
            raise ModelError(f"ports {self.low}:{self.high}: two numbers from 0 to 65535 in ascending order")
        return self

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"

    def nft(self) -> str:
        """The range as nft writes it."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


ALL_PORTS: Final = Ports(0, 0xFFFF)


def plain_ports(value: Any) -> tuple[bool, Any]:
    """A port condition's sign and ports, without a range that holds none: that is all ports with the other sign."""
    negated, held = sign(value)
    if type(held) is Ports and held.low > held.high:
        return not negated, ALL_PORTS
    return negated, held


def port(text: str, context: ParseContext) -> int:
    """A port by number or by the host's service name for the rule's protocol."""
    if text.isascii() and text.isdigit():
        return number(text.lstrip("0") or "0", high=0xFFFF)
    protocol = PROTOCOL_NAMES.get(context.protocol or -1, "")
    for name in (protocol, "tcp", "udp"):
        found = context.hosts.services.get((text, name))
        if found is not None:
            return found
    raise ModelError(f"{text!r} is neither a port from 0 to 65535 nor a known service")


def parse_ports(text: str, context: ParseContext) -> Ports | SetRef:
    """``PORT``, ``FIRST:LAST`` with either end left out, or ``@SET``."""
    if text.startswith("@"):
        return SetRef(text[1:])
    first, colon, last = text.partition(":")
    low = port(first, context) if first or not colon else 0
    high = low if not colon else port(last, context) if last else 0xFFFF
    return Ports(low, high)


def header_met(packet: Packet, protocols: Collection[int]) -> bool | None:
    """Whether the packet shows the header of one of these protocols; a later fragment shows none."""
    if packet.fragment:
        return False
    return None if packet.protocol is None else packet.protocol in protocols


def port_met(held: Any, value: int | None, sets: Mapping[str, Elements]) -> bool | None:
    """Whether a port meets a condition, which may name one of the sets."""
    if held is None:
        return True
    negated, ports = sign(held)
    elements = sets.get(ports.name) if type(ports) is SetRef else ((ports.low, ports.high),)
    return None if value is None or elements is None else within(value, elements) is not negated


def port_atoms(field: str, negated: bool, ranges: Iterable[Ports]) -> Iterable[tuple[Any, ...]]:
    """The meaning of a port condition, whichever option states it: the ports that meet it, joined; nothing for all."""
    met = join_ranges((item.low, item.high) for item in ranges if item.low <= item.high)
    if negated:  # iptables-nft itself stores ! 0:1023 as 1024:65535
        met = complement(met)
    if met != ((ALL_PORTS.low, ALL_PORTS.high),):
        yield (field, met)


def complement(ranges: Iterable[tuple[int, int]], *, last: int = ALL_PORTS.high) -> tuple[tuple[int, int], ...]:
    """The ports, or numbers up to another ``last``, outside the ranges, which are sorted and without overlap."""
    outside: list[tuple[int, int]] = []
    edge = 0
    for low, high in (*ranges, (last + 1, 0)):
        if edge < low:
            outside.append((edge, low - 1))
        edge = high + 1
    return tuple(outside)


def join_ranges(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges sorted, overlaps and neighbours joined."""
    joined: list[tuple[int, int]] = []
    for low, high in merge_ranges(ranges):
        if joined and low == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return tuple(joined)


def read_port_condition(match: NftMatch) -> Ports | SetRef:
    """The ports of a condition, whose sign stands beside them; an order is a range from the first port on."""
    if match.op in ("<=", ">"):
        return Ports(0, int(match.right))
    return read_ports(match.right)


def read_ports(right: Any) -> Ports | SetRef:
    """One port or range of nft's JSON."""
    if isinstance(right, dict):
        low, high = right["range"]
        return Ports(int(low), int(high))
    if isinstance(right, str) and right.startswith("@"):
        return SetRef(right[1:])
    return Ports(int(right), int(right))


def plain_condition(match: NftMatch) -> bool:
    """Whether a condition compares for equality or inequality, and not for order or single bits."""
    return match.op in ("==", "!=") and match.mask is None


def listed(right: Any) -> list[Any]:
    """What nft's JSON has on the right side as a list: the elements of a set, several flags, or the one value."""
    if isinstance(right, dict) and "set" in right:
        return list(right["set"])
    return right if isinstance(right, list) else [right]


def set_nft(left: str, text: str, negated: bool) -> str:
    """A plain nft condition."""
    return f"{left} != {text}" if negated else f"{left} {text}"


def ports_nft(left: str, value: Ports | SetRef, negated: bool) -> str:
    """A port condition of nft."""
    if isinstance(value, SetRef):
        return set_nft(left, str(value), negated)
    if value.low == 0 < value.high < ALL_PORTS.high:  # as iptables-nft's own rules have it: one comparison
        return f"{left} {'>' if negated else '<='} {value.high}"
    return set_nft(left, value.nft(), negated)


def conditions_on_ports(left: str, value: Any) -> Iterator[str]:
    """The conditions of nft that say a port condition; none for the one that every packet with ports meets."""
    negated, held = plain_ports(value)
    if negated or held != ALL_PORTS:
        yield ports_nft(left, held, negated)


def _parse_ascending(text: str, context: ParseContext) -> Ports | SetRef:
    ports = parse_ports(text, context)
    return ports if isinstance(ports, SetRef) else ports.ascending()


PORTS: Final = Codec(
    parse=parse_ports,
    format=str,
    expected="a port, FIRST:LAST or a service name",
    nft=ports_nft,
    read=read_port_condition,
    orders=True,
)
"""A port condition, which may be one that no packet meets, such as 4:3: most extensions of iptables take it."""
ASCENDING_PORTS: Final = msgspec.structs.replace(PORTS, parse=_parse_ascending)
"""The same where iptables refuses that."""


# --- marks ----------------------------------------------------------------------------------------------


class MarkValue(msgspec.Struct, frozen=True, gc=False, order=True):
    """A 32-bit mark under a mask: the bits of ``mask`` must equal those of ``value``."""

    value: int
    mask: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        if not (0 <= self.value <= 0xFFFFFFFF and 0 <= self.mask <= 0xFFFFFFFF):
            raise ModelError(f"mark {self.value}/{self.mask}: two numbers of 32 bits")

    def met_by(self, mark: int | None) -> bool | None:
        """Whether a mark has these bits; None where it isn't known and matters."""
        if self.value & ~self.mask or not self.mask:
            return self.value == 0
        return None if mark is None else mark & self.mask == self.value

    def __str__(self) -> str:
        return f"{self.value:#x}" if self.mask == 0xFFFFFFFF else f"{self.value:#x}/{self.mask:#x}"


def parse_mark(text: str, context: ParseContext) -> MarkValue:
    """``VALUE`` or ``VALUE/MASK``."""
    value, slash, mask = text.partition("/")
    return MarkValue(number(value), number(mask) if slash else 0xFFFFFFFF)


def plain_mark(value: Any) -> tuple[bool, MarkValue]:
    """A mark's sign and value; one with bits outside the mask never matches, which is a mask of no bits, negated."""
    negated, held = sign(value)
    return (not negated, MarkValue(0, 0)) if held.value & ~held.mask else (negated, held)


def _mark_nft(left: str, value: MarkValue, negated: bool) -> str:
    negated, value = plain_mark(Not(value) if negated else value)  # nft's parser masks off what its listing shows
    length = value.mask.bit_count()
    if value.mask == 0xFFFFFFFF:
        return set_nft(left, f"{value.value:#010x}", negated)
    if value.mask == 0xFFFFFFFF ^ (0xFFFFFFFF >> length):  # nft lists such a mask as a prefix, as it does an address's
        return set_nft(left, f"{value.value:#010x}/{length}", negated)
    return f"{left} & {value.mask:#010x} {'!=' if negated else '=='} {value.value:#010x}"


def _read_mark(match: NftMatch) -> MarkValue:
    if isinstance(match.right, dict):
        prefix = match.right["prefix"]
        return MarkValue(int(prefix["addr"]), 0xFFFFFFFF ^ (0xFFFFFFFF >> int(prefix["len"])))
    return MarkValue(int(match.right), 0xFFFFFFFF if match.mask is None else int(match.mask))


MARK: Final = Codec(
    parse=parse_mark, format=str, expected="VALUE or VALUE/MASK, each of 32 bits", nft=_mark_nft, read=_read_mark
)


def sign(value: Any) -> tuple[bool, Any]:
    """Whether a field's value is negated, and the value itself."""
    return (True, value.value) if type(value) is Not else (False, value)


def mapped(names: Mapping[str, int], what: str) -> Codec:
    """Names of bits, joined by commas: in any order and case, or cut short; printed whole and in the table's order."""

    def bit(word: str) -> int:
        upper = word.upper()
        if upper in names:
            return names[upper]
        found = [held for name, held in names.items() if upper and name.startswith(upper)]
        if len(found) != 1:
            raise ModelError(f"{word!r} is no {what}")
        return found[0]

    def parse(text: str, context: ParseContext) -> int:
        mask = 0
        for word in text.split(","):
            mask |= bit(word)
        return mask

    def text(mask: int) -> str:
        return ",".join(name for name, bit in names.items() if mask & bit) or "NONE"

    return Codec(parse=parse, format=text, expected=f"a list of {', '.join(names)}")


def protocol_number(text: str, context: ParseContext) -> int:
    """An IP protocol by number or name; ``all`` is 0."""
    if text.isascii() and text.isdigit():
        return number(text, high=0xFF)
    name = text.lower()
    if name == "all":
        return 0
    found = PROTOCOL_NUMBERS.get(name, context.hosts.protocols.get(name))
    if found is None:
        raise ModelError(f"{text!r} is neither a protocol's number from 0 to 255 nor its name")
    return found


_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


def quoted(text: str) -> str:
    """Free text as iptables-save prints it: in quotes unless it is one plain word (xtables.c, xtables_save_string)."""
    if _BARE.match(text):
        return text
    return '"' + re.sub(r"""(["'\\])""", r"\\\1", text) + '"'


def plain(expected: str) -> Codec:
    """Free text that stands as it is."""
    return Codec(parse=lambda text, context: text, format=quoted, expected=expected)


def integer(expected: str, *, low: int = 0, high: int = 0xFFFFFFFF) -> Codec:
    """A number within bounds, printed in decimal."""
    return Codec(parse=lambda text, context: number(text, low=low, high=high), format=str, expected=expected)


def word(expected: str, *, most: int) -> Codec:
    """A name of at most so many bytes that iptables-save prints without quotes, and so must need none."""

    def parse(text: str, context: ParseContext) -> str:
        if not text or byte_length(text) > most:
            raise ModelError(f"{text!r} has not between 1 and {most} bytes")
        if not text.isprintable() or set(text) & set(" \"'\\"):
            raise ModelError(f"{text!r}: iptables-save prints it without quotes, and can't read a space or quote again")
        return text

    return Codec(parse=parse, format=str, expected=expected)


def prefix_length(text: str, context: ParseContext) -> int:
    """A prefix length of the family's addresses, or a mask that is one."""
    bits = context.family.bits
    if text.isascii() and text.isdigit():
        return number(text, high=bits)
    family, mask = parse_address(text)
    length = mask.bit_count()
    if family is not context.family or mask != (1 << bits) - (1 << bits - length):
        raise ModelError(f"{text!r} is no prefix length from 0 to {bits}, and no mask of one")
    return length


PREFIX: Final = Codec(parse=prefix_length, format=str, expected="a prefix length, or a mask without gaps")
