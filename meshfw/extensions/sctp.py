"""The sctp match: ports and chunks of SCTP (iptables-extensions(8), sctp)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import ASCENDING_PORTS, Ports, plain_condition, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.extensions.tcp import end_atoms, ends_met, port_options, ports_to_nft
from meshfw.model import Elements, Family, Loss, Match, Not, Packet, Rule, SetRef, every

SCTP: Final = 132
CHUNKS: Final = {
    "DATA": 0,
    "INIT": 1,
    "INIT_ACK": 2,
    "SACK": 3,
    "HEARTBEAT": 4,
    "HEARTBEAT_ACK": 5,
    "ABORT": 6,
    "SHUTDOWN": 7,
    "SHUTDOWN_ACK": 8,
    "ERROR": 9,
    "COOKIE_ECHO": 10,
    "COOKIE_ACK": 11,
    "ECN_ECNE": 12,
    "ECN_CWR": 13,
    "SHUTDOWN_COMPLETE": 14,
    "I_DATA": 64,
    "ASCONF_ACK": 128,
    "RE_CONFIG": 130,
    "PAD": 132,
    "FORWARD_TSN": 192,
    "ASCONF": 193,
    "I_FORWARD_TSN": 194,
}
"""Chunk types by name, in the order of their numbers, which is the order iptables prints (RFC 9260, section 3.2)."""
_I_DATA: Final = CHUNKS["I_DATA"]
_FLAGS: Final = {0: "----IUBE", 64: "----IUBE", 6: "-------T", 14: "-------T"}
"""The letters of a chunk's flag bits, highest bit first (libxt_sctp.c)."""
_SCOPES: Final = ("all", "any", "only")


class Chunk(msgspec.Struct, frozen=True, gc=False, order=True):
    """One chunk type; of its flag bits in ``mask``, exactly those in ``flags`` are on."""

    type: int
    mask: int = 0
    flags: int = 0

    def __str__(self) -> str:
        name = next(name for name, number in CHUNKS.items() if number == self.type)
        letters = ""
        for place, letter in enumerate(_FLAGS.get(self.type, "")):
            bit = 0x80 >> place
            if self.mask & bit:
                letters += letter if self.flags & bit else letter.lower()
        return f"{name}:{letters}" if letters else name


class Chunks(msgspec.Struct, frozen=True, gc=False):
    """A condition on a packet's chunks: ``all``, ``any`` or ``only`` those listed; ALL is a list of every type."""

    scope: str
    chunks: tuple[Chunk, ...] = ()
    every: bool = False

    def __post_init__(self) -> None:
        if self.scope not in _SCOPES:
            raise ModelError(f"{self.scope!r} is not one of {', '.join(_SCOPES)}")

    def __str__(self) -> str:
        return f"{self.scope} {'ALL' if self.every else ','.join(map(str, self.chunks)) or 'NONE'}"


def _parse_chunk(text: str) -> Chunk:
    name, _, letters = text.partition(":")
    kind = CHUNKS.get(name.upper())
    if kind is None:
        raise ModelError(f"{name!r} is not a chunk type of SCTP")
    known = _FLAGS.get(kind, "")
    mask = flags = 0
    for letter in letters:
        place = known.find(letter.upper())
        if letter == "-" or place < 0:
            raise ModelError(f"chunk type {name} has no flag {letter!r}")
        bit = 0x80 >> place
        if mask & bit and bool(flags & bit) != letter.isupper():
            raise ModelError(f"chunk type {name}: flag {letter!r} can't be both on and off")
        mask |= bit
        flags |= bit if letter.isupper() else 0
    return Chunk(kind, mask, flags)


def _parse(text: str, context: ParseContext) -> Chunks:
    scope, _, names = text.partition(" ")
    if names.upper() in ("ALL", "NONE"):
        return Chunks(scope.lower(), every=names.upper() == "ALL")
    chunks = sorted({_parse_chunk(name) for name in names.split(",")})
    if len({chunk.type for chunk in chunks}) < len(chunks):
        raise ModelError(f"{names!r} names one chunk type with different flags")
    return Chunks(scope.lower(), tuple(chunks))


class Sctp(Match, frozen=True):
    """Ports and chunks of an SCTP packet."""

    protocols: ClassVar[frozenset[int] | None] = frozenset({SCTP})
    sport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    dport: Ports | SetRef | Not[Ports] | Not[SetRef] | None = None
    chunks: Chunks | Not[Chunks] | None = None

    def atoms(self) -> Iterable[Any]:
        """One part for each field that is set."""
        yield from end_atoms(self.sport, self.dport)
        if self.chunks is not None:
            negated, held = sign(self.chunks)
            plain = not held.every and not any(chunk.mask for chunk in held.chunks)
            if held.scope == ("any" if negated else "all") and held.chunks and plain:
                yield from (("sctp chunk", not negated, chunk.type) for chunk in held.chunks)
            elif held.scope in ("any", "all") and len(held.chunks) == 1 and plain:
                yield ("sctp chunk", not negated, held.chunks[0].type)
            else:
                yield ("sctp chunks", negated, held)

    def meets(self, packet: Packet) -> bool | None:
        """The ports; chunks aren't known."""
        return self.meets_among(packet, {})

    def meets_among(self, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
        """The same with known sets."""
        return every((ends_met(self, packet, sets), True if self.chunks is None else None))

    def losses(self) -> Iterable[Loss]:
        """The flags of I_DATA: iptables 1.8.9 stores them under its row in its table, not under its type."""
        if self.chunks is not None and any(
            chunk.mask and chunk.type == _I_DATA for chunk in sign(self.chunks)[1].chunks
        ):
            yield Loss(
                frozenset({"legacy", "nft"}), f"--chunk-types {sign(self.chunks)[1]}: iptables loses I_DATA's flags"
            )


_CHUNKS: Final = Codec(parse=_parse, format=str, expected="all, any or only, and a list of chunk types")

# --- nft ------------------------------------------------------------------------------------------------

_NFT_CHUNKS: Final = {
    number: {"ECN_ECNE": "ecne", "ECN_CWR": "cwr"}.get(name, name.lower().replace("_", "-"))
    for name, number in CHUNKS.items()
    if name not in ("I_DATA", "RE_CONFIG", "PAD", "I_FORWARD_TSN")
}
"""The chunk types that nft 1.0.6 has a name for."""


def _chunks_nft(value: Any) -> Iterable[str]:
    """A condition for each chunk: all are there, or, of ``! any``, none is."""
    negated, held = sign(value)
    reason = ""
    if held.every or not held.chunks or held.scope == "only":
        reason = "nft asks for one chunk, not for what all chunks are"
    elif len(held.chunks) > 1 and negated != (held.scope == "any"):
        reason = "nft can't say that one of several conditions is met: it needs a rule for each"
    elif any(chunk.mask for chunk in held.chunks):
        reason = "nft looks at the flags of the first chunk of a type, iptables at those of each"
    elif any(chunk.type not in _NFT_CHUNKS for chunk in held.chunks):
        reason = "nft has no name for one of the types"
    if reason:
        raise InexpressibleError(f"sctp {'! ' if negated else ''}--chunk-types {held}: {reason}")
    for chunk in held.chunks:
        yield f"sctp chunk {_NFT_CHUNKS[chunk.type]} {'missing' if negated else 'exists'}"


_ports_to_nft: Final = ports_to_nft("sctp")


def _to_nft(value: Sctp, family: Family, rule: Rule) -> Iterable[str]:
    yield from _ports_to_nft(value, family, rule)
    if value.chunks is not None:
        yield from _chunks_nft(value.chunks)


class _ChunkReader:
    """Reads the presence of one chunk type from nft's JSON."""

    def __init__(self, number: int) -> None:
        self._held = Chunks("all", (Chunk(number),))

    def __call__(self, match: NftMatch, family: Family) -> Sctp | None:
        if not plain_condition(match) or not isinstance(match.right, bool):
            return None
        return Sctp(chunks=self._held if match.right != match.negated else Not(self._held))


EXTENSIONS: Final = (
    Extension(
        name="sctp",
        value=Sctp,
        implied_by=SCTP,
        options=(
            *port_options("sctp", ASCENDING_PORTS),
            Option("--chunk-types", "chunks", _CHUNKS, words=2, invertible=True),
        ),
        to_nft=_to_nft,
        from_nft={f"sctp chunk {name}": _ChunkReader(number) for number, name in _NFT_CHUNKS.items()},
    ),
)
