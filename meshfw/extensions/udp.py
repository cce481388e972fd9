"""The udp match: ports of UDP (iptables-extensions(8), udp)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from meshfw.extensions.codecs import Ports
from meshfw.extensions.extension import Extension
from meshfw.extensions.tcp import drop_idle_ports, end_atoms, ends_met, port_options, ports_lost, ports_to_nft
from meshfw.model import Elements, Loss, Match, Not, Packet, SetRef

UDP: Final = 17


class Udp(Match, frozen=True):
    """Ports of a UDP datagram."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({UDP})
    sport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    dport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None

    def __post_init__(self) -> None:
        drop_idle_ports(self)

    def atoms(self) -> Iterable[Any]:
        """One part for each field that is set."""
        return end_atoms(self.sport, self.dport)

    def losses(self) -> Iterable[Loss]:
        """Conditions that no datagram meets, which iptables stores as none."""
        return ports_lost(self)

    def meets(self, packet: Packet) -> bool | None:
        """The ports."""
        return self.meets_among(packet, {})

    def meets_among(self, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
        """The same with known sets."""
        return ends_met(self, packet, sets)


EXTENSIONS: Final = (
    Extension(name="udp", value=Udp, implied_by=UDP, options=port_options("udp"), to_nft=ports_to_nft("udp")),
)
