"""The addresses of a road: who owns which, and which of them a probe may bear so that only rules decide its fate."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from meshfw.model import Family, Network, Packet, parse_address
from meshfw.testing.topology import (
    CLIENT_LINK,
    CLIENT_NETWORKS,
    MESH,
    MESH_ADDRESS,
    SERVER_LINK,
    SERVER_NETWORKS,
    WAN,
    WAN_ADDRESS,
    Topology,
)

OWN: Final = {
    family: frozenset(parse_address(addresses[family])[1] for addresses in (MESH_ADDRESS, WAN_ADDRESS))
    for family in Family
}
"""The gateway's own addresses."""
MACS: Final = {"client": Topology.mac(CLIENT_LINK).hex(":"), "server": Topology.mac(SERVER_LINK).hex(":")}
"""The hardware addresses that packets come from, by where they start."""


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(Network.parse(text) for text in texts)


_BEHIND: Final = {family: _networks(CLIENT_NETWORKS[family]) for family in Family}
_BEYOND: Final = {family: _networks(SERVER_NETWORKS[family]) for family in Family}
# Of the links themselves only the ends' addresses would be answered for.
_LINKS: Final = {
    Family.IPV4: _networks(("10.5.0.0/24", "203.0.113.0/24")),
    Family.IPV6: _networks(("fd00:5::/64", "2001:db8:1::/64")),
}
# What no router takes from others: martians, groups, broadcasts, link-local and mapped addresses (RFC 1812, RFC 4291).
_STRANGE: Final = {
    Family.IPV4: _networks(("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")),
    Family.IPV6: _networks(("::/64", "fe80::/10", "ff00::/8", "64:ff9b::/96")),
}


def side(address: int, family: Family) -> str:
    """Where the gateway routes an address to: client, gateway or server."""
    if address in OWN[family]:
        return "gateway"
    return "client" if any(network.holds(address) for network in _BEHIND[family]) else "server"


def route(packet: Packet) -> str | None:
    """The interface by which the gateway sends a packet on; empty where it ends there."""
    if packet.destination is None:
        return None
    return {"gateway": "", "client": MESH, "server": WAN}[side(packet.destination, packet.family)]


def usable(address: int, family: Family) -> bool:
    """Whether a packet may come from or go to the address, through the gateway or to it."""
    if address in OWN[family]:
        return True
    return 0 < address < (1 << family.bits) - 1 and not any(
        network.holds(address) for network in (*_STRANGE[family], *_LINKS[family])
    )


def visible(address: int, family: Family) -> bool:
    """Whether a packet that comes from the address is seen before routing, whatever becomes of it then."""
    if any(network.holds(address) for network in _LINKS[family]):
        return address in OWN[family]  # nobody answers for others, which the gateway tells itself seconds later
    if family is Family.IPV4:
        return True
    return address >> 120 != 0xFF and address >> 32 != 0xFFFF and address > 1  # ip6_input.c, ip6_rcv_core


def any_address(place: str, family: Family, chance: random.Random) -> int:
    """A random address of a place's own, out of a few so that they meet again."""
    if place == "gateway":
        return chance.choice(sorted(OWN[family]))
    network = chance.choice((_BEHIND if place == "client" else _BEYOND)[family])
    return network.address + chance.randint(1, 9)
