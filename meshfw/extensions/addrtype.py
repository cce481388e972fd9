"""The addrtype match: what an address is to this host's routing (iptables-extensions(8), addrtype)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag
from typing import Any, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import listed, mapped, plain_condition, set_nft, sign
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.model import Family, Hook, Match, Not, Packet, Rule, every


class AddressType(IntFlag):
    """Address types; the number of each bit is the kernel's (linux/rtnetlink.h, RTN_*)."""

    UNSPEC = 1 << 0
    UNICAST = 1 << 1
    LOCAL = 1 << 2
    BROADCAST = 1 << 3
    ANYCAST = 1 << 4
    MULTICAST = 1 << 5
    BLACKHOLE = 1 << 6
    UNREACHABLE = 1 << 7
    PROHIBIT = 1 << 8
    THROW = 1 << 9
    NAT = 1 << 10
    XRESOLVE = 1 << 11


_IPV6: Final = int(
    AddressType.UNSPEC
    | AddressType.UNICAST
    | AddressType.LOCAL
    | AddressType.ANYCAST
    | AddressType.MULTICAST
    | AddressType.UNREACHABLE
)


class AddrType(Match, frozen=True):
    """The type of the source and destination address, looked up on any interface or on the packet's own.

    ``interface`` is None, ``in`` or ``out``: the interface whose addresses count.
    """

    source: int | Not[int] | None = None
    destination: int | Not[int] | None = None
    interface: str | None = None

    def __post_init__(self) -> None:
        if self.source is None and self.destination is None:
            raise ModelError("addrtype needs --src-type or --dst-type")
        if self.interface not in (None, "in", "out"):
            raise ModelError(f"{self.interface!r} is neither in nor out")

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet has the interface (xt_addrtype.c, addrtype_mt_checkentry_v1)."""
        if self.interface is None:
            return None
        if self.interface == "in":
            return frozenset({Hook.PREROUTING, Hook.INPUT, Hook.FORWARD})
        return frozenset({Hook.POSTROUTING, Hook.OUTPUT, Hook.FORWARD})

    def atoms(self) -> Iterable[Any]:
        """One part for each address."""
        for field, held in (("saddr", self.source), ("daddr", self.destination)):
            if held is not None:
                negated, mask = sign(held)
                yield (f"{field} type", self.interface, negated, int(mask))

    def meets(self, packet: Packet) -> bool | None:
        """The types, of which one interface has its own; on IPv6 they are asked in different ways."""
        known = (
            _met(self.source, packet.source_type, packet.family),
            _met(self.destination, packet.destination_type, packet.family),
        )
        return every(known) if self.interface is None else None

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A type that IPv6 doesn't know (xt_addrtype.c, addrtype_mt_checkentry_v1)."""
        mask = (sign(self.source)[1] or 0) | (sign(self.destination)[1] or 0)
        if family is Family.IPV6 and mask & ~_IPV6:
            return f"addrtype: {_TYPES.format(mask & ~_IPV6)} does not exist for ipv6"
        return None


def _met(held: int | Not[int] | None, kind: str | None, family: Family) -> bool | None:
    if held is None:
        return True
    negated, mask = sign(held)
    if kind is None or (family is Family.IPV6 and mask & ~AddressType.LOCAL):
        return None
    return bool(mask & AddressType[kind]) is not negated


_TYPES: Final = mapped({kind.name or "": int(kind) for kind in AddressType}, "address type")


def _save(value: AddrType, family: Family) -> Iterable[str]:
    for name, held in (("--src-type", value.source), ("--dst-type", value.destination)):
        if held is not None:
            negated, mask = sign(held)
            yield from (("!",) if negated else ())
            yield name
            yield _TYPES.format(mask)
    if value.interface is not None:
        yield f"--limit-iface-{value.interface}"


_SAME_ON_IPV6: Final = int(AddressType.LOCAL | AddressType.ANYCAST)
"""For other types xt_addrtype looks at the IPv6 address alone, and nft's fib at the route to it."""
_NFT_NAMES: Final = (
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "9",
    "10",
    "11",
)
"""The address types as nft lists them, by number."""


def _to_nft(value: AddrType, family: Family, rule: Rule) -> Iterable[str]:
    interface = f" . {value.interface[0]}if" if value.interface else ""
    for field, held in (("saddr", value.source), ("daddr", value.destination)):
        if held is None:
            continue
        negated, mask = sign(held)
        if family is Family.IPV6 and mask & ~_SAME_ON_IPV6:
            raise InexpressibleError(
                f"addrtype {_TYPES.format(mask & ~_SAME_ON_IPV6)}: nft finds it by the route on IPv6, "
                "iptables by the address; state the prefix"
            )
        names = [name for number, name in enumerate(_NFT_NAMES) if mask & 1 << number]
        text = names[0] if len(names) == 1 else f"{{ {', '.join(names)} }}"
        yield set_nft(f"fib {field}{interface} type", text, negated)


class _Reader:
    """Reads one key of nft's JSON into one field."""

    def __init__(self, field: str, interface: str | None) -> None:
        self._field = field
        self._interface = interface

    def __call__(self, match: NftMatch, family: Family) -> AddrType | None:
        if not plain_condition(match):
            return None
        mask = 0
        for item in listed(match.right):
            mask |= 1 << (item if isinstance(item, int) else _NFT_NAMES.index(item))
        return AddrType(**{self._field: Not(mask) if match.negated else mask}, interface=self._interface)


_READERS: Final = {
    f"fib {address}{device} type": _Reader(field, interface)
    for address, field in (("saddr", "source"), ("daddr", "destination"))
    for device, interface in (("", None), (" . iif", "in"), (" . oif", "out"))
}

EXTENSIONS: Final = (
    Extension(
        name="addrtype",
        value=AddrType,
        options=(
            Option("--src-type", "source", _TYPES, invertible=True),
            Option("--dst-type", "destination", _TYPES, invertible=True),
            Option("--limit-iface-in", "interface", words=0, preset="in"),
            Option("--limit-iface-out", "interface", words=0, preset="out"),
        ),
        save=_save,
        to_nft=_to_nft,
        from_nft=_READERS,
    ),
)
