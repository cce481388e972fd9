"""The kinds of things a firewall has: families, tables, hooks, places, policies, and negation."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Family(StrEnum):
    """An address family."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def bits(self) -> int:
        """The width of an address in bits."""
        return 32 if self is Family.IPV4 else 128


class Table(StrEnum):
    """An iptables table (iptables(8), TABLES)."""

    RAW = "raw"
    MANGLE = "mangle"
    NAT = "nat"
    FILTER = "filter"
    SECURITY = "security"


class Hook(StrEnum):
    """A netfilter hook, by its nft name; the iptables built-in chain has the same name in capitals."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


HOOKS: Final[Mapping[Table, frozenset[Hook]]] = {
    Table.RAW: frozenset({Hook.PREROUTING, Hook.OUTPUT}),
    Table.MANGLE: frozenset(Hook),
    Table.NAT: frozenset({Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING}),
    Table.FILTER: frozenset({Hook.INPUT, Hook.FORWARD, Hook.OUTPUT}),
    Table.SECURITY: frozenset({Hook.INPUT, Hook.FORWARD, Hook.OUTPUT}),
}
"""The hooks of each table (iptables(8), TABLES)."""


class Place(StrEnum):
    """Where on a hook an attachment stands: before or behind what others have there."""

    FIRST = "first"
    LAST = "last"


class Policy(StrEnum):
    """What a hook and place do with a packet that no rule decided; ``return`` leaves it to whoever comes next."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"


class Not(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """The negation of one condition: iptables' ``!`` before an option."""

    value: T
