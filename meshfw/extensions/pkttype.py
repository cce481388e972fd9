"""The pkttype match: whom the link layer addressed a packet to (iptables-extensions(8), pkttype)."""

from __future__ import annotations

from typing import Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import plain_condition, set_nft
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Match, Not

TYPES: Final = {"unicast": "host", "broadcast": "broadcast", "multicast": "multicast", "otherhost": "other"}
"""The types that iptables prints, with nft's names (linux/if_packet.h, PACKET_HOST and others)."""
_NAMES: Final = {nft: name for name, nft in TYPES.items()}
_ALIASES: Final = {"host": "unicast", "bcast": "broadcast", "mcast": "multicast"}


class PktType(Match, frozen=True):
    """The link-layer type of a packet: unicast, broadcast, multicast or otherhost."""

    type: str | Not[str]


def _parse(text: str, context: ParseContext) -> str:
    lower = text.lower()
    name = _ALIASES.get(lower, lower)
    if name not in TYPES:
        raise ModelError(f"{text!r} is not a packet type")
    return name


def _read(match: NftMatch) -> str:
    if not plain_condition(match):
        raise ModelError("a packet type under a mask")
    return _NAMES[match.right]


_TYPE: Final = Codec(
    parse=_parse,
    format=str,
    expected="unicast, broadcast, multicast or otherhost",
    nft=lambda left, value, negated: set_nft(left, TYPES[value], negated),
    read=_read,
)

EXTENSIONS: Final = (
    Extension(
        name="pkttype",
        value=PktType,
        options=(Option("--pkt-type", "type", _TYPE, invertible=True, nft="meta pkttype"),),
    ),
)
