"""What both directions of the nft language share: family names, header keywords, and names of chains and sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from meshfw.model import (
    Family,
)

FAMILIES: Final[Mapping[Family, str]] = {Family.IPV4: "ip", Family.IPV6: "ip6"}
"""nft's names of the two families (nft(8), ADDRESS FAMILIES)."""
KEYWORDS: Final[Mapping[int, str]] = {
    1: "icmp ",
    6: "tcp ",
    17: "udp ",
    33: "dccp ",
    58: "icmpv6 ",
    132: "sctp ",
    136: "udplite ",
}
"""The header names that make nft test the protocol by itself, and leave that test out of a listing."""

NO_INTERFACE: Final = "INVAL/D"
"""What stands for no interface at all: a name that none can bear, the one that iptables-nft writes for ``! -i +``."""


class Names(msgspec.Struct, frozen=True):
    """How logical names of chains and sets are written in nft, and read back (None: not one of ours)."""

    chain: Callable[[str], str]
    set: Callable[[str], str]
    chain_of: Callable[[str], str | None]
    set_of: Callable[[str], str | None]


PLAIN_NAMES: Final = Names(chain=str, set=str, chain_of=str, set_of=str)
