"""The statistic match: packets at random, or every so many (iptables-extensions(8), statistic)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import integer, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Rule

STEPS: Final = 1 << 31
"""The kernel compares 31 random bits: probabilities are multiples of one in so many (libxt_statistic.c)."""


class Nth(msgspec.Struct, frozen=True, gc=False, order=True):
    """One packet of ``every`` so many; ``packet`` are let by before the first."""

    every: int
    packet: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.every <= 0xFFFFFFFF or not 0 <= self.packet < self.every:
            raise ModelError(f"packet {self.packet} of every {self.every}: from 0 to one less than every")


class Statistic(Match, frozen=True):
    """Packets with a probability of so many ``STEPS``, or one of so many; ``negated``, the others."""

    stateful: ClassVar[bool] = True
    chosen: int | Nth
    negated: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.chosen, int) and not 0 <= self.chosen <= STEPS:
            raise ModelError("a probability is between 0 and 1")

    def atoms(self) -> Iterable[Any]:
        """What is chosen, with its sign; nothing where every packet is."""
        everything = self.chosen in (STEPS, Nth(1))
        if self.chosen == 0 or everything:
            if everything is self.negated:
                yield ("statistic", "none")
        else:
            yield ("statistic", self.negated, self.chosen)


_NUMBER: Final = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z", re.ASCII)


def _parse_probability(text: str, context: ParseContext) -> int:
    if not _NUMBER.match(text) or not 0 <= float(text) <= 1:
        raise ModelError(f"{text!r} is no probability")
    return math.floor(STEPS * float(text) + 0.5)


def _parse_mode(text: str, context: ParseContext) -> str:
    if text not in ("random", "nth"):
        raise ModelError(f"{text!r} is no mode")
    return text


_MODE: Final = Codec(parse=_parse_mode, format=str, expected="random or nth")
_PROBABILITY: Final = Codec(
    parse=_parse_probability, format=lambda steps: f"{steps / STEPS:.11f}", expected="a number from 0 to 1"
)


def _build(fields: dict[str, Any], context: ParseContext) -> Statistic:
    wanted = {"random": {"mode", "probability"}, "nth": {"mode", "every", "packet"}}.get(fields.get("mode", ""))
    if wanted is None or set(fields) != wanted:
        raise ModelError("statistic needs --mode random --probability P, or --mode nth --every N --packet P")
    if "probability" in fields:
        negated, steps = sign(fields["probability"])
        return Statistic(steps, negated)
    negated, every = sign(fields["every"])
    return Statistic(Nth(every, fields["packet"]), negated)


def _save(value: Statistic, family: Family) -> Iterable[str]:
    negation = ("!",) if value.negated else ()
    if isinstance(value.chosen, Nth):
        every, packet = str(value.chosen.every), str(value.chosen.packet)
        return ("--mode", "nth", *negation, "--every", every, "--packet", packet)
    return ("--mode", "random", *negation, "--probability", _PROBABILITY.format(value.chosen))


# --- nft ------------------------------------------------------------------------------------------------------


def _to_nft(value: Statistic, family: Family, rule: Rule) -> Iterable[str]:
    if isinstance(value.chosen, Nth):
        yield set_nft(f"numgen inc mod {value.chosen.every}", str(value.chosen.packet), value.negated)
    else:
        yield f"meta random & {STEPS - 1} {'>=' if value.negated else '<'} {value.chosen}"


def _from_random(match: NftMatch, family: Family) -> Statistic | None:
    if match.op not in ("<", ">=") or match.mask != STEPS - 1:
        return None
    return Statistic(int(match.right), match.op == ">=")


def _from_numgen(match: NftMatch, family: Family) -> Statistic | None:
    if match.op not in ("==", "!=") or match.mask is not None or match.detail.get("offset") != 0:
        return None
    return Statistic(Nth(int(match.detail["mod"]) & 0xFFFFFFFF, int(match.right) & 0xFFFFFFFF), match.negated)


EXTENSIONS: Final = (
    Extension(
        name="statistic",
        value=Statistic,
        options=(
            Option("--mode", "mode", _MODE),
            Option("--probability", "probability", _PROBABILITY, invertible=True),
            Option("--every", "every", integer("a number of packets", low=1), invertible=True),
            Option("--packet", "packet", integer("a number of packets")),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft={"meta random &": _from_random, "numgen inc": _from_numgen},
    ),
)
