"""The connbytes match: what a connection has transferred so far (iptables-extensions(8), connbytes)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import complement, number, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Loss, Match, Not, Rule

MAX: Final = 0xFFFFFFFFFFFFFFFF
MODES: Final = ("packets", "bytes", "avgpkt")
DIRECTIONS: Final = ("original", "reply", "both")

Counts = tuple[int, int]


class ConnBytes(Match, frozen=True):
    """Between two numbers of packets or bytes, or of bytes in a packet, of one direction of a connection or of both."""

    count: Counts | Not[Counts]
    mode: str
    direction: str

    def __post_init__(self) -> None:
        low, high = sign(self.count)[1]
        if not 0 <= low <= high <= MAX:
            raise ModelError(f"{low}:{high}: two numbers of 64 bits in ascending order")
        if self.mode not in MODES or self.direction not in DIRECTIONS:
            raise ModelError(f"{self.mode} and {self.direction}: a mode and a direction of connbytes")

    def atoms(self) -> Iterable[Any]:
        """The numbers that meet it; all of them, as a packet without a connection meets none."""
        negated, counts = sign(self.count)
        met = complement((counts,), last=MAX) if negated else (counts,)
        yield ("connbytes", self.mode, self.direction, met)

    def losses(self) -> Iterator[Loss]:
        """What iptables stores without its negation, and what it prints without its end."""
        negated, (low, high) = sign(self.count)
        both = frozenset({"legacy", "nft"})
        if negated and low == high:
            yield Loss(
                both, f"! --connbytes {low}:{high}: iptables stores it as its opposite, --connbytes {low}:{high}"
            )
        elif high == 0:
            yield Loss(both, "--connbytes 0:0: iptables-save prints it as --connbytes 0, which every number meets")


def _parse(text: str, context: ParseContext) -> Counts:
    first, colon, last = text.partition(":")
    low = number(first, high=MAX) if first or not colon else 0
    high = number(last, high=MAX) if last else MAX
    if low > high:
        raise ModelError(f"{text}: the second number is smaller than the first")
    return low, high


def _format(counts: Counts) -> str:
    low, high = counts
    return str(low) if high == MAX else f"{low}:{high}"


def _one_of(names: tuple[str, ...]) -> Codec:
    def parse(text: str, context: ParseContext) -> str:
        if text not in names:
            raise ModelError(f"{text!r} is none of {', '.join(names)}")
        return text

    return Codec(parse=parse, format=str, expected=f"one of {', '.join(names)}")


# --- nft ------------------------------------------------------------------------------------------------------


def _to_nft(value: ConnBytes, family: Family, rule: Rule) -> Iterable[str]:
    negated, (low, high) = sign(value.count)
    left = f"ct {'' if value.direction == 'both' else value.direction + ' '}{value.mode}"
    if high == MAX and low < MAX:
        if negated and low == 0:
            raise InexpressibleError("! --connbytes 0: no packet meets it")
        yield f"{left} {'<' if negated else '>='} {low}"
        return
    yield f"{left} {'!= ' if negated else ''}{low if low == high else f'{low}-{high}'}"


class _Reader:
    """Reads one key of nft's JSON, whose numbers of 64 bits have a sign."""

    def __init__(self, mode: str, direction: str) -> None:
        self._mode = mode
        self._direction = direction

    def __call__(self, match: NftMatch, family: Family) -> ConnBytes | None:
        if match.mask is not None:
            return None
        if match.op in ("<", ">="):
            counts = (int(match.right) & MAX, MAX)
        elif match.op not in ("==", "!="):
            return None
        elif isinstance(match.right, dict):
            low, high = match.right["range"]
            counts = (int(low) & MAX, int(high) & MAX)
        else:
            counts = (int(match.right) & MAX,) * 2
        return ConnBytes(Not(counts) if match.op in ("<", "!=") else counts, self._mode, self._direction)


def _readers() -> dict[str, Callable[[Any, Family], Match | None]]:
    return {
        f"ct {'' if direction == 'both' else direction + ' '}{mode}": _Reader(mode, direction)
        for mode in MODES
        for direction in DIRECTIONS
    }


EXTENSIONS: Final = (
    Extension(
        name="connbytes",
        value=ConnBytes,
        options=(
            Option(
                "--connbytes",
                "count",
                Codec(parse=_parse, format=_format, expected="FROM, FROM:TO or :TO"),
                invertible=True,
            ),
            Option("--connbytes-mode", "mode", _one_of(MODES)),
            Option("--connbytes-dir", "direction", _one_of(DIRECTIONS)),
        ),
        to_nft=_to_nft,
        from_nft=_readers(),
    ),
)
