"""Kilo's options as far as rules depend on them, and those of this source, as frozen values."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from meshfw import Family
from meshfw.model import Place, parse_address
from meshfw_kilo.cidr import Cidr

STALE_AFTER: Final = 60
"""Seconds after which a Node that doesn't check in counts no longer: two of Kilo's check-in periods."""


class Granularity(StrEnum):
    """What one leader stands for: all Nodes of a location, or each Node for itself."""

    LOCATION = "location"
    FULL = "full"


class Encapsulation(StrEnum):
    """When packets between Nodes of one location go through IPIP."""

    NEVER = "never"
    CROSSSUBNET = "crosssubnet"
    ALWAYS = "always"


class Compatibility(StrEnum):
    """The network provider that Kilo runs on top of; empty where it is itself the provider."""

    NONE = ""
    FLANNEL = "flannel"
    CILIUM = "cilium"


class PodCidrs(StrEnum):
    """Which of a Node's pod networks count: ``spec.podCIDR`` alone as in Kilo, or ``spec.podCIDRs`` too."""

    FIRST = "first"
    ALL = "all"


class Mesh(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how Nodes and Peers make a topology."""

    granularity: Granularity = Granularity.LOCATION
    subnet: Cidr = Cidr(*parse_address("10.4.0.0"), 16)
    """The network of the WireGuard addresses."""
    pod_cidrs: PodCidrs = PodCidrs.FIRST
    stale_after: int = STALE_AFTER
    """Seconds."""


class Firewall(msgspec.Struct, frozen=True, kw_only=True):
    """What decides which rules a topology makes."""

    cni: bool = True
    forward_rules: bool = False
    encapsulate: Encapsulation = Encapsulation.ALWAYS
    local: bool = True
    compatibility: Compatibility = Compatibility.NONE
    service_cidrs: tuple[Cidr, ...] = ()
    compact: bool = False
    """One rule and one set for each purpose and family, in place of one rule for each address."""
    input_place: Place = Place.FIRST

    @property
    def encapsulates(self) -> bool:
        """Whether Kilo's agent would keep rules for IPIP, on a node where it found a private address."""
        hands_off = self.compatibility is Compatibility.FLANNEL
        return self.encapsulate is not Encapsulation.NEVER and self.local and not hands_off


FAMILIES: Final = (Family.IPV4, Family.IPV6)
