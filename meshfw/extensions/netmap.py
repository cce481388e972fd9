"""The NETMAP target: a network's addresses become those of another, host by host (iptables-extensions(8), NETMAP)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import FamilyError, InexpressibleError, ModelError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Hook, Network, Packet, Rule, Table, Target, format_address

_SOURCE: Final = frozenset({Hook.POSTROUTING, Hook.INPUT})
"""Where the source is mapped; on the other two hooks of table nat it is the destination (xt_NETMAP.c)."""


class Netmap(Target, frozen=True):
    """NETMAP: the bits of the network replace those of the source or destination, by the hook."""

    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.NAT})
    accepts: ClassVar[bool] = True
    to: Network

    def applied(self, packet: Packet) -> Packet:
        """The packet with its ends unknown: which of them is mapped is the hook's to say."""
        return msgspec.structs.replace(packet, source=None, destination=None, snat=None, dnat=None)

    def __post_init__(self) -> None:
        if self.to.prefix is None:
            raise ModelError(f"NETMAP: {self.to} has a mask with gaps, which iptables-save would print as another")

    def problem(self, rule: Rule, family: Family) -> str | None:
        """An address of the other family."""
        if self.to.family is not family:
            return f"NETMAP: {self.to} is an {self.to.family} network in an {family} chain"
        return None


def _parse(text: str, context: ParseContext) -> Network:
    network = Network.parse(text)
    if network.family is not context.family:
        raise FamilyError(f"{text!r} is not an {context.family} network")
    return network


def _format(network: Network) -> str:
    return f"{format_address(network.address, network.family)}/{network.prefix}"


def _to_nft(value: Netmap, family: Family, rule: Rule, hook: Hook | None) -> Iterable[str]:
    if hook is None:
        raise InexpressibleError(
            "NETMAP where it isn't known from which hook packets come: nft says which end of them is mapped"
        )
    yield f"{'snat' if hook in _SOURCE else 'dnat'} prefix to {_format(value.to)}"


def read_netmap(body: Mapping[str, Any]) -> Netmap | None:
    """The target that nft's snat or dnat of a prefix means; None where it says more."""
    address, *said = (body.get(key) for key in ("addr", "flags", "type_flags"))
    if said != ["netmap", "prefix"] or len(body) > 3:
        return None
    if isinstance(address, str):
        return Netmap(Network.parse(address))
    prefix = address["prefix"] if isinstance(address, Mapping) and "prefix" in address else None
    return None if prefix is None else Netmap(Network.parse(f"{prefix['addr']}/{prefix['len']}"))


EXTENSIONS: Final = (
    Extension(
        name="NETMAP",
        value=Netmap,
        options=(Option("--to", "to", Codec(parse=_parse, format=_format, expected="ADDRESS/LENGTH")),),
        to_nft_on=_to_nft,
    ),
)
