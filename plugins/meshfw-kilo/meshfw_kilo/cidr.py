"""Addresses with a prefix length as Kilo reads them: host bits are kept, for they decide what overlaps what."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from meshfw import Family, ModelError, Network
from meshfw.model import format_address, parse_address

_MAPPED: Final = 0xFFFF << 32  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_LENGTH: Final = re.compile(r"[0-9]{1,3}\Z")


class Cidr(msgspec.Struct, frozen=True, gc=False, order=True):
    """An address and the length of its network's prefix, such as ``10.0.1.11/24``; the address may have host bits."""

    family: Family
    address: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Cidr | None:
        """What ``ADDRESS/LENGTH`` says; None for anything else, so also without length, with blanks, or with a zone.

        An IPv4 address mapped into IPv6 counts as IPv4.
        """
        head, slash, tail = text.partition("/")
        if not slash or not _LENGTH.match(tail):
            return None
        try:
            family, address = parse_address(head)
        except ModelError:
            return None
        length = int(tail)
        if length > family.bits:
            return None
        if family is Family.IPV6 and address & ~0xFFFFFFFF == _MAPPED:
            return cls(Family.IPV4, address & 0xFFFFFFFF, length - 96) if length >= 96 else None
        return cls(family, address, length)

    @property
    def network(self) -> Network:
        """All addresses under the prefix, which is what a kernel makes of it."""
        full = (1 << self.family.bits) - 1
        mask = full ^ (full >> self.length)
        return Network(self.family, self.address & mask, mask)

    @property
    def host(self) -> Network:
        """The one address."""
        return Network(self.family, self.address, (1 << self.family.bits) - 1)

    @property
    def one(self) -> Cidr:
        """The one address, as a CIDR."""
        return Cidr(self.family, self.address, self.family.bits)

    def holds(self, other: Cidr) -> bool:
        """Whether the address part of another one lies under this prefix."""
        shift = self.family.bits - self.length
        return self.family is other.family and self.address >> shift == other.address >> shift

    def overlaps(self, other: Cidr) -> bool:
        """Whether there is an address under both prefixes."""
        return self.holds(other) or other.holds(self)

    def __str__(self) -> str:
        return f"{format_address(self.address, self.family)}/{self.length}"
