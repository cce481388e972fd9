"""An address beside a mask, as matches of the kernel keep them: host bits and all."""

from __future__ import annotations

from typing import Any

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.extensions.extension import ParseContext
from meshfw.model import Family, Network, format_address, parse_address


class HostMask(msgspec.Struct, frozen=True, gc=False, order=True):
    """An address beside its mask as a match keeps and prints them: host bits stay, and mean nothing."""

    family: Family
    address: int
    prefix: int

    def __post_init__(self) -> None:
        if not (0 <= self.address < 1 << self.family.bits and 0 <= self.prefix <= self.family.bits):
            raise ModelError(f"{self.address}/{self.prefix} is no {self.family} address with a prefix's length")

    def __str__(self) -> str:
        text = format_address(self.address, self.family)
        return text if self.prefix == self.family.bits else f"{text}/{self.prefix}"

    @property
    def network(self) -> Network:
        """The addresses that it means."""
        full = (1 << self.family.bits) - 1
        mask = full ^ full >> self.prefix
        return Network(self.family, self.address & mask, mask)

    def atom(self) -> Any:
        """The same as its network's."""
        return self.network.atom()

    def holds(self, address: int) -> bool:
        """Whether the address is one of those that it means."""
        return address & self.network.mask == self.network.address


def parse_host_mask(text: str, context: ParseContext) -> HostMask:
    """``ADDRESS``, ``ADDRESS/LENGTH`` or ``ADDRESS/MASK`` of the rule's family."""
    network = Network.parse(text)
    if network.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} address")
    if network.prefix is None:
        raise ModelError(f"{text!r} has a mask with gaps, which iptables-save would leave out")
    return HostMask(network.family, parse_address(text.partition("/")[0])[1], network.prefix)
