"""What a target does with a packet: how its table ends for it, and how its connection's ends are translated."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from meshfw.model.address import format_address
from meshfw.model.kinds import Family
from meshfw.model.packet import Packet


class Fate(StrEnum):
    """How a packet fares: it passes, it is gone, or it is gone and its sender hears of it."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"


class Verdict(msgspec.Struct, frozen=True, order=True):
    """A fate, and for a rejected packet the answer to its sender."""

    fate: Fate
    answer: str = ""

    def __str__(self) -> str:
        return f"{self.fate} with {self.answer}" if self.answer else str(self.fate)


ACCEPTED: Final = Verdict(Fate.ACCEPT)
DROPPED: Final = Verdict(Fate.DROP)


class Translation(msgspec.Struct, frozen=True, kw_only=True):
    """What one end of a connection becomes: address, port or both, each a range of which the kernel chooses.

    ``source`` tells which end. ``local`` stands for an address of this host that the kernel knows: the one of the
    outgoing interface for a source, of the incoming one for a destination. With ``base`` the new port is the first
    plus the old one's distance from ``base``.
    """

    source: bool
    addresses: tuple[int, int] | None = None
    ports: tuple[int, int] | None = None
    base: int | None = None
    local: bool = False

    def applied(self, packet: Packet) -> Packet:
        """The packet with its new end; what the kernel chooses isn't known."""
        if self.source:
            address, moved = self._address(packet, packet.source)
            port, shifted = self._port(packet.sport)
            changed = True if moved or shifted else None if None in (moved, shifted) else packet.snat
            kind = packet.source_type if moved is False else "LOCAL" if self.local else None
            return msgspec.structs.replace(packet, source=address, source_type=kind, sport=port, snat=changed)
        address, moved = self._address(packet, packet.destination)
        port, shifted = self._port(packet.dport)
        changed = True if moved or shifted else None if None in (moved, shifted) else packet.dnat
        kind = packet.destination_type if moved is False else "LOCAL" if self.local else None
        return msgspec.structs.replace(packet, destination=address, destination_type=kind, dport=port, dnat=changed)

    def _address(self, packet: Packet, old: int | None) -> tuple[int | None, bool | None]:
        """The new address, and whether it is another than the old one."""
        if self.local:
            if self.source or packet.in_interface != "":
                return None, None
            new = 1 if packet.family is Family.IPV6 else 0x7F000001  # what leaves for this host goes by its loopback
            return new, None if old is None else new != old
        return _chosen(self.addresses, old)

    def _port(self, old: int | None) -> tuple[int | None, bool | None]:
        if self.base is not None and self.ports is not None:
            if old is None:
                return None, None
            low, high = self.ports
            new = low + (old - self.base) % 0x10000 % (high - low + 1)
            return new, new != old
        return _chosen(self.ports, old)

    def text(self, family: Family) -> str:
        """It as a person writes it: ``source becomes 192.0.2.1 port 1024-2047``."""
        words = ["source" if self.source else "destination", "becomes"]
        if self.local:
            words.append("the outgoing interface's address" if self.source else "this host")
        if self.addresses is not None:
            low, high = (format_address(value, family) for value in self.addresses)
            words.append(low if low == high else f"one of {low}-{high}")
        if self.ports is not None:
            low_port, high_port = self.ports
            words.append(f"port {low_port}" if low_port == high_port else f"a port of {low_port}-{high_port}")
        return " ".join(words)


def _chosen(held: tuple[int, int] | None, old: int | None) -> tuple[int | None, bool | None]:
    """The one value of a range, None where the kernel chooses; and whether it is another than the old one."""
    if held is None:
        return old, False
    low, high = held
    if low == high:
        return low, None if old is None else low != old
    return None, True if old is not None and not low <= old <= high else None
