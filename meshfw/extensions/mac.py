"""The mac match: the source address of an Ethernet frame (iptables-extensions(8), mac)."""

from __future__ import annotations

from typing import Any, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Hook, Match, Not, Packet


class Mac(Match, frozen=True):
    """The source address of the Ethernet frame, six octets in lower-case hex joined by colons."""

    source: str | Not[str]

    def __post_init__(self) -> None:
        value = self.source.value if isinstance(self.source, Not) else self.source
        if octets(value) != value:
            raise ModelError(f"{value!r} is not six octets in lower-case hex joined by colons")

    def meets(self, packet: Packet) -> bool | None:
        """The address; a packet that didn't come by Ethernet meets neither it nor its negation."""
        negated, value = sign(self.source)
        return False if packet.mac == "" else None if packet.mac is None else (packet.mac == value) is not negated

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet came in by a link (xt_mac.c)."""
        return frozenset({Hook.PREROUTING, Hook.INPUT, Hook.FORWARD})


def octets(text: str) -> str:
    """An Ethernet address in lower case, each octet in two digits."""
    parts = text.lower().split(":")
    if len(parts) != 6 or not all(1 <= len(part) <= 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise ModelError(f"{text!r} is not an Ethernet address")
    return ":".join(part.zfill(2) for part in parts)


def _parse(text: str, context: ParseContext) -> str:
    return octets(text)


def _read(match: NftMatch) -> Any:
    return octets(str(match.right))


_MAC: Final = Codec(parse=_parse, format=str, expected="six octets in hex joined by colons", nft=set_nft, read=_read)

EXTENSIONS: Final = (
    Extension(
        name="mac",
        value=Mac,
        options=(Option("--mac-source", "source", _MAC, aliases=("--mac",), invertible=True, nft="ether saddr"),),
    ),
)
