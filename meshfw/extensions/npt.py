"""The SNPT and DNPT targets: IPv6 prefix translation without state (iptables-extensions(8); RFC 6296)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError, ModelError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Hook, Network, Packet, Rule, Table, Target, Twice, format_address, parse_address

PREFIX_MAX: Final = 64  # ip6t_NPT.c, ip6t_npt_checkentry


def _check(label: str, *prefixes: Network) -> None:
    for prefix in prefixes:
        if prefix.family is not Family.IPV6 or prefix.prefix is None or prefix.prefix > PREFIX_MAX:
            raise ModelError(f"{label}: {prefix} is no IPv6 prefix of at most {PREFIX_MAX} bits")
        if not prefix.prefix:
            raise ModelError(f"{label}: ::/0 is a prefix that the tools lose: they print none")


class Snpt(Target, frozen=True):
    """SNPT: the prefix of a packet's source becomes another, checksums unharmed."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.INPUT, Hook.POSTROUTING})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    final: ClassVar[bool] = False
    source: Network
    destination: Network

    def __post_init__(self) -> None:
        _check("SNPT", self.source, self.destination)

    def applied(self, packet: Packet) -> Packet:
        """The packet with a source that checksums decide on."""
        return msgspec.structs.replace(packet, source=None)

    def twice(self) -> Twice | None:
        """Another address, unless the rule asks for the old prefix."""
        return Twice("the address is mapped again, unless the rule's own conditions prevent that", alters=True)


class Dnpt(Target, frozen=True):
    """DNPT: the prefix of a packet's destination becomes another, checksums unharmed."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.PREROUTING, Hook.OUTPUT})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    final: ClassVar[bool] = False
    source: Network
    destination: Network

    def __post_init__(self) -> None:
        _check("DNPT", self.source, self.destination)

    def applied(self, packet: Packet) -> Packet:
        """The packet with a destination that checksums decide on."""
        return msgspec.structs.replace(packet, destination=None)

    def twice(self) -> Twice | None:
        """Another address, unless the rule asks for the old prefix."""
        return Twice("the address is mapped again, unless the rule's own conditions prevent that", alters=True)


def _parse(text: str, context: ParseContext) -> Network:
    prefix = Network.parse(text)
    if prefix.family is not Family.IPV6:
        raise FamilyError(f"{text!r} is no IPv6 prefix")
    if prefix.address != parse_address(text.partition("/")[0])[1]:
        raise ModelError(f"{text!r} has bits behind the prefix")
    return prefix


_PREFIX: Final = Codec(
    parse=_parse,
    format=lambda prefix: f"{format_address(prefix.address, prefix.family)}/{prefix.prefix}",
    expected=f"an IPv6 prefix of at most {PREFIX_MAX} bits",
)
_OPTIONS: Final = (Option("--src-pfx", "source", _PREFIX), Option("--dst-pfx", "destination", _PREFIX))


def _to_nft(value: Any, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError(
        f"{value.label}: nft can't make up in the rest of an address for what its prefix adds to checksums (RFC 6296)"
    )


EXTENSIONS: Final = (
    Extension(name="SNPT", value=Snpt, options=_OPTIONS, to_nft=_to_nft),
    Extension(name="DNPT", value=Dnpt, options=_OPTIONS, to_nft=_to_nft),
)
