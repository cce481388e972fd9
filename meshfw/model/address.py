"""Addresses, networks and interfaces: the conditions that every rule may state (ip_tables.h, struct ipt_ip)."""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import Any, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.model.kinds import Family, Not

_OCTETS: Final = {str(octet): octet for octet in range(256)}
_GROUPS: Final = struct.Struct(">8H").unpack
_ZERO_RUNS: Final = tuple(":0" * count + ":" for count in range(8, 1, -1))


def format_address(value: int, family: Family) -> str:
    """The text of an address exactly as inet_ntop(3) writes it, which is what the kernel's tools print."""
    if family is Family.IPV4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    if value >> 32 == 0xFFFF:
        return f"::ffff:{format_address(value & 0xFFFFFFFF, Family.IPV4)}"
    if 0xFFFF < value <= 0xFFFFFFFF:
        return f"::{format_address(value, Family.IPV4)}"
    text = ":%x:%x:%x:%x:%x:%x:%x:%x:" % _GROUPS(value.to_bytes(16, "big"))  # noqa: UP031 - twice as fast as format()
    for run in _ZERO_RUNS:
        at = text.find(run)
        if at >= 0:
            return f"{text[1:at]}::{text[at + len(run) : -1]}"
    return text[1:-1]


def parse_address(text: str) -> tuple[Family, int]:
    """Family and integer of an address's text; ``ModelError`` for anything else, host names too."""
    octets = text.split(".")
    if len(octets) == 4:
        try:
            one, two, three, four = map(_OCTETS.__getitem__, octets)
        except KeyError:
            pass  # no IPv4 address: perhaps an IPv6 one that ends as one, or an error that says why
        else:
            return Family.IPV4, one << 24 | two << 16 | three << 8 | four
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ModelError(f"{text!r} is not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ModelError(f"{text!r} has a scope, which a rule can't match")
        return Family.IPV6, int(address)
    return Family.IPV4, int(address)


def byte_length(text: str) -> int:
    """The length of the text in UTF-8; ``ModelError`` where it is none."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ModelError(f"{text!r} is not Unicode text") from None


class Network(msgspec.Struct, frozen=True, gc=False, order=True):
    """Addresses under a mask: one host, a prefix, or (iptables' speciality) a mask with gaps."""

    family: Family
    address: int
    mask: int

    def __post_init__(self) -> None:
        if not 0 <= self.mask < 1 << self.family.bits or self.address & ~self.mask:
            raise ModelError(f"host bits outside the mask in an {self.family} network")

    @classmethod
    def parse(cls, text: str) -> Network:
        """The network of ``ADDRESS``, ``ADDRESS/LENGTH`` or ``ADDRESS/MASK``; host bits are masked off."""
        head, slash, tail = text.partition("/")
        family, address = parse_address(head)
        mask = cls._mask(tail, family, text) if slash else (1 << family.bits) - 1
        return cls(family, address & mask, mask)

    @staticmethod
    def _mask(text: str, family: Family, whole: str) -> int:
        full = (1 << family.bits) - 1
        if text.isascii() and text.isdigit():
            if int(text) > family.bits:
                raise ModelError(f"{whole!r}: prefix length {text} is more than {family.bits}")
            return full ^ (full >> int(text))
        try:
            mask_family, mask = parse_address(text)
        except ModelError:
            raise ModelError(f"{whole!r}: {text!r} is neither a prefix length nor a mask") from None
        if mask_family is not family:
            raise ModelError(f"{whole!r}: the mask is of the other family")
        return mask

    @property
    def prefix(self) -> int | None:
        """The prefix length; None for a mask with gaps."""
        length = self.mask.bit_count()
        full = (1 << self.family.bits) - 1
        return length if self.mask == full ^ (full >> length) else None

    @property
    def last(self) -> int:
        """The highest address (of a prefix)."""
        return self.address | (~self.mask & ((1 << self.family.bits) - 1))

    def holds(self, address: int) -> bool:
        """Whether an address of the family is one of these."""
        return address & self.mask == self.address

    def __str__(self) -> str:
        prefix = self.prefix
        tail = format_address(self.mask, self.family) if prefix is None else prefix
        return f"{format_address(self.address, self.family)}/{tail}"

    def atom(self) -> tuple[Any, ...]:
        """Its part of a rule's meaning: the range of a prefix, or value and mask."""
        if self.prefix is None:
            return (self.family.bits, "mask", self.address, self.mask)
        return (self.family.bits, self.address, self.last)


Elements = tuple[tuple[int, int], ...]
"""The first and last values of ranges, sorted and without overlap."""


def within(value: int, elements: Elements) -> bool:
    """Whether a value lies in one of the ranges."""
    at = bisect_right(elements, value, key=lambda element: element[0])
    return at > 0 and value <= elements[at - 1][1]


class SetRef(msgspec.Struct, frozen=True, gc=False, order=True):
    """A reference to a :class:`Set` of the same ruleset and family, written ``@name``."""

    name: str

    def __str__(self) -> str:
        return f"@{self.name}"

    def atom(self) -> tuple[Any, ...]:
        """Its part of a rule's meaning."""
        return ("set", self.name)


Addresses = Network | SetRef | Not[Network] | Not[SetRef]

_IFNAMSIZ: Final = 16  # linux/if.h, with the final NUL


class Interface(msgspec.Struct, frozen=True, gc=False, order=True):
    """A network interface by name; a final ``+`` stands for any ending, alone for all (iptables(8), --in-interface)."""

    name: str

    def __post_init__(self) -> None:
        if not self.name or byte_length(self.name) >= _IFNAMSIZ:
            raise ModelError(f"interface name {self.name!r} must have 1 to {_IFNAMSIZ - 1} bytes")
        if not self.name.isprintable() or set(self.name) & set('/ "'):
            raise ModelError(f"interface name {self.name!r} holds a character that no interface can have")

    def holds(self, name: str) -> bool:
        """Whether it stands for the interface of that name; empty is the name of none."""
        return name.startswith(self.name[:-1]) if self.name[-1] == "+" else name == self.name

    def __str__(self) -> str:
        return self.name


Interfaces = Interface | Not[Interface]


def matches_any(held: Addresses | Interfaces) -> bool:
    """Whether it is the network of all addresses, or every interface, which states nothing; its negation isn't."""
    if type(held) is Network:
        return held.mask == 0
    return type(held) is Interface and held.name == "+"


def matches_none(held: Addresses | Interfaces) -> bool:
    """Whether it excludes all addresses, or every interface, so that no packet meets it."""
    return type(held) is Not and matches_any(held.value)
