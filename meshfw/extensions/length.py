"""The length match: how many octets a packet has, its IP header included (iptables-extensions(8), length)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meshfw.extensions.codecs import sign
from meshfw.extensions.extension import Extension, Option
from meshfw.extensions.spans import Span, span_atoms, span_meets, spans
from meshfw.model import Match, Not, Packet


class Length(Match, frozen=True):
    """A range of lengths in octets: the IPv4 total length, or the IPv6 payload length and header."""

    length: Span | Not[Span]

    def atoms(self) -> Iterable[Any]:
        """The lengths that meet it."""
        return span_atoms("length", *sign(self.length))

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet's length is in the range."""
        negated, span = sign(self.length)
        return span_meets(span, packet.length, negated=negated)


EXTENSIONS: Final = (
    Extension(
        name="length",
        value=Length,
        options=(Option("--length", "length", spans("a length", high=0xFFFF), invertible=True, nft="meta length"),),
    ),
)
