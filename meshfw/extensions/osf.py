"""The osf match: the operating system that a connection's first packet looks like (iptables-extensions(8), osf)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import header_met, integer, sign
from meshfw.extensions.extension import Codec, Extension, Option
from meshfw.extensions.tcp import FLAGS
from meshfw.model import Family, Hook, Match, Not, Packet, Rule, byte_length, every

GENRE_BYTES: Final = 31
"""linux/netfilter/nfnetlink_osf.h, MAXGENRELEN with the final NUL."""


class Osf(Match, frozen=True):
    """A fingerprint of this genre fits the packet.

    ``ttl`` says how a time to live is compared: 0 equal, 1 less or equal, 2 not at all; ``log`` what is written to
    the kernel's log: 0 all, 1 the first, 2 what is known.
    """

    protocols: ClassVar[frozenset[int] | None] = frozenset({6})
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    genre: str | Not[str]
    ttl: int | None = None
    log: int | None = None

    def __post_init__(self) -> None:
        genre = sign(self.genre)[1]
        if not 1 <= byte_length(genre) <= GENRE_BYTES or set(genre) & set(" \t\n\"'\\\0"):
            raise ModelError(f"genre {genre!r} must be one word of 1 to {GENRE_BYTES} bytes")

    def meets(self, packet: Packet) -> bool | None:
        """Not a packet that doesn't open a connection of TCP; fingerprints aren't known."""
        opening = None if packet.tcp_flags is None else bool(packet.tcp_flags & FLAGS["SYN"])
        return every((header_met(packet, {6}), opening, None))

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where packets come in (xt_osf.c)."""
        return frozenset({Hook.PREROUTING, Hook.INPUT, Hook.FORWARD})


def _to_nft(value: Osf, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("osf: nft names the first fingerprint that fits, and iptables asks for any of the genre")


_GENRE: Final = Codec(parse=lambda text, context: text, format=str, expected="a genre such as Linux")

EXTENSIONS: Final = (
    Extension(
        name="osf",
        value=Osf,
        options=(
            Option("--genre", "genre", _GENRE, invertible=True),
            Option("--ttl", "ttl", integer("a number from 0 to 2", high=2)),
            Option("--log", "log", integer("a number from 0 to 2", high=2)),
        ),
        to_nft=_to_nft,
    ),
)
