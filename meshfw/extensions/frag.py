"""The frag match: the fragment header of an IPv6 packet (ip6tables-extensions(8), frag; RFC 8200, section 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, plain_condition, sign
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.extensions.header_spans import drop_full_span, full_span_losses, header_nft
from meshfw.extensions.spans import WORD, Span, read_span, span_atoms, spans
from meshfw.model import Family, Loss, Match, Not, Rule


class Frag(Match, frozen=True):
    """A packet with a fragment header: its identification, and which fragment it is.

    ``reserved`` asks that both reserved fields are zero. ``length`` is stored and printed, but no kernel looks at it.
    """

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV6})
    id: Span | Not[Span] | None = None
    length: int | Not[int] | None = None
    reserved: bool | None = None
    first: bool | None = None
    more: bool | None = None
    last: bool | None = None

    def __post_init__(self) -> None:
        drop_full_span(self, "id", WORD)
        if self.more and self.last:
            raise ModelError("--fragmore and --fraglast exclude each other")

    def atoms(self) -> Iterable[Any]:
        """That there is such a header, and one part for each condition on it."""
        yield ("frag",)
        if self.id is not None:
            yield from span_atoms("frag id", *sign(self.id))
        for field in ("reserved", "first", "more", "last"):
            if getattr(self, field):
                yield ("frag", field)

    def losses(self) -> Iterable[Loss]:
        """The negation of all identifications."""
        return full_span_losses("--fragid", self.id, WORD)


_FLAGS: Final = {"first": "frag-off 0", "more": "more-fragments 1", "last": "more-fragments 0"}
"""What each flag asks, as nft's field and its value."""


def _to_nft(value: Frag, family: Family, rule: Rule) -> Iterable[str]:
    if value.reserved:
        raise InexpressibleError("--fragres: nft compares its two fields apart, and half of it is no rule of iptables")
    held = [] if value.id is None else list(header_nft("frag id", value.id, WORD))
    held += [f"frag {text}" for field, text in _FLAGS.items() if getattr(value, field)]
    return held or ["exthdr frag exists"]


def _read_id(match: NftMatch, family: Family) -> Frag | None:
    if not plain_condition(match):
        return None
    span = read_span(match.right)
    return Frag(id=Not(span) if match.negated else span)


def _read_offset(match: NftMatch, family: Family) -> Frag | None:
    return Frag(first=True) if (match.op, match.right, match.mask) == ("==", 0, None) else None


def _read_more(match: NftMatch, family: Family) -> Frag | None:
    if match.op != "==" or match.mask is not None or match.right not in (0, 1):
        return None
    return Frag(more=True) if match.right else Frag(last=True)


_READERS: Final[dict[str, Callable[[Any, Family], Match | None]]] = {
    "frag id": _read_id,
    "frag frag-off": _read_offset,
    "frag more-fragments": _read_more,
}

EXTENSIONS: Final = (
    Extension(
        name="frag",
        value=Frag,
        options=(
            Option("--fragid", "id", spans("an identification"), invertible=True),
            Option("--fraglen", "length", integer("a length in bytes"), invertible=True),
            Option("--fragres", "reserved", words=0),
            Option("--fragfirst", "first", words=0),
            Option("--fragmore", "more", words=0),
            Option("--fraglast", "last", words=0),
        ),
        to_nft=_to_nft,
        from_nft=_READERS,
    ),
)
