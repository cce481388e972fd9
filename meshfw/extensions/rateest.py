"""The RATEEST target and the rateest match: rates of packets, estimated and compared (iptables-extensions(8))."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final, NoReturn

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, sign, word
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Loss, Match, Rule, Target, Twice

MODES: Final = ("lt", "gt", "eq")
NAME_BYTES: Final = 15  # IFNAMSIZ with the final NUL
_QUARTER: Final = 250_000
"""Microseconds of the kernel's shortest interval; the others are twice the one before."""
_BOTH: Final = frozenset({"legacy", "nft"})
_FULL: Final = 0xFFFFFFFF
_NAME: Final = word("the name of an estimator", most=NAME_BYTES)


# --- RATEEST --------------------------------------------------------------------------------------------------


class RateEst(Target, frozen=True):
    """RATEEST: counts the packet in an estimator, which looks every 2^``step`` quarters of a second.

    Its average forgets by 2^-``weight`` of it each time.
    """

    final: ClassVar[bool] = False
    name: str
    step: int
    weight: int

    def __post_init__(self) -> None:
        if not 0 <= self.step <= 5:
            raise ModelError("RATEEST looks every 0.25 to 8 seconds")
        if not 1 <= self.weight <= 29 or self.interval << self.weight > _FULL:
            raise ModelError("RATEEST: the ewmalog value is out of range")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "RATEEST"

    @property
    def interval(self) -> int:
        """Microseconds between two looks."""
        return _QUARTER << self.step

    def twice(self) -> Twice | None:
        """Another count: copies of one name share the estimator."""
        return Twice("each packet is counted twice in the estimator")


_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(s|secs?|ms|msecs?|us|usecs?)?\Z", re.ASCII | re.IGNORECASE)


def _parse_time(text: str, context: ParseContext) -> int:
    found = _DURATION.match(text)
    if not found:
        raise ModelError(f"{text!r} is no time")
    unit = {"s": 1_000_000, "m": 1_000, "u": 1}[(found[2] or "us")[0].lower()]
    return int(float(found[1]) * unit)


def _format_time(microseconds: int) -> str:
    if microseconds >= 1_000_000:
        return f"{microseconds / 1_000_000:.1f}s"
    return f"{microseconds / 1_000:.1f}ms"


_TIME: Final = Codec(parse=_parse_time, format=_format_time, expected="a time such as 250ms or 1s")


def _build_target(fields: dict[str, Any], context: ParseContext) -> RateEst:
    if set(fields) != {"name", "interval", "average"}:
        raise ModelError("RATEEST needs --rateest-name, --rateest-interval and --rateest-ewmalog")
    interval, average = fields["interval"], fields["average"]
    step = next((step for step in range(6) if interval <= _QUARTER << step), 6)
    weight = next((log for log in range(1, 32) if interval / -math.log(1 - 0.5**log) > average), 32) - 1
    return RateEst(fields["name"], step, weight)


def _save_target(value: RateEst, family: Family) -> Iterable[str]:
    return (
        *("--rateest-name", value.name, "--rateest-interval", _format_time(value.interval)),
        *("--rateest-ewmalog", _format_time(value.interval << value.weight)),
    )


# --- rateest --------------------------------------------------------------------------------------------------


class RateEstimate(Match, frozen=True, kw_only=True):
    """An estimator's rate, less than (``lt``), greater than (``gt``) or equal to (``eq``) another's or a number.

    Rates are bytes/s and packets/s. With ``delta`` what is compared is the number less the rate, so far as it is more.
    """

    stateful: ClassVar[bool] = True  # the kernel's clock moves the estimators on
    name: str
    other: str | None = None
    delta: bool = False
    mode: str
    negated: bool = False
    octets: tuple[int, int] | None = None
    packets: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.octets is None and self.packets is None:
            raise ModelError("rateest needs --rateest-bps or --rateest-pps, or those of its two sides")
        if self.mode not in MODES:
            raise ModelError(f"{self.mode!r} is none of lt, gt and eq")

    def losses(self) -> Iterator[Loss]:
        """What iptables-save rounds, and what it can't read again."""
        shown = (self.octets or (0, 0))[0 if self.delta else 1 :]
        if (self.delta or self.other is None) and any(_printed(rate)[1] for rate in shown):
            yield Loss(_BOTH, "rateest: iptables-save rounds this rate, and then reads another")
        if self.octets is not None and self.packets is not None:
            yield Loss(_BOTH, "rateest of bytes and packets: what iptables-save prints it can't read again")

    def twice(self) -> Twice | None:
        """Nothing: to compare a rate doesn't change it."""
        return None


_SCALES: Final = {
    "bit": 1,
    **{f"{letter}ibit": 1 << 10 * power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}bit": 1000**power for power, letter in enumerate("kmgt", 1)},
    "bps": 8,
    **{f"{letter}ibps": 8 << 10 * power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}bps": 8 * 1000**power for power, letter in enumerate("kmgt", 1)},
}
"""Bits of each unit of a rate, as in tc(8)."""
_RATE: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([a-z]*)\Z", re.ASCII | re.IGNORECASE)


def _parse_rate(text: str, context: ParseContext) -> int:
    found = _RATE.match(text)
    unit = found[2].lower() or "bit" if found else ""
    if not found or unit not in _SCALES:
        raise ModelError(f"{text!r} is no rate")
    octets = int(float(found[1]) * _SCALES[unit] / 8)
    if octets > _FULL:
        raise ModelError(f"{text} is more than iptables can count")
    return octets


def _octets(text: str) -> int | None:
    """The rate that a text says; None for one beyond what iptables can count, as rounding makes of the greatest."""
    try:
        return _parse_rate(text, ParseContext(Family.IPV4))
    except ModelError:
        return None


def _printed(octets: int) -> tuple[str, bool]:
    """The rate as iptables-save prints it, and whether that is another one; then it is exact."""
    bits = octets * 8
    text = f"{bits}bit"
    if bits >= 1_000_000_000:
        text = f"{bits / 1_000_000:.0f}Mbit"
    elif bits >= 1_000_000:
        text = f"{bits / 1_000:.0f}Kbit"
    lost = _octets(text) != octets
    return (f"{bits}bit", True) if lost else (text, False)


_BPS: Final = Codec(parse=_parse_rate, format=str, expected="a rate such as 10mbit or 1500bps, as in tc(8)")
_PPS: Final = integer("a number of packets/s")


def _build_match(fields: dict[str, Any], context: ParseContext) -> RateEstimate:
    if "name" not in fields:
        raise ModelError("rateest needs --rateest or --rateest1")
    if "mode" not in fields:
        raise ModelError("rateest needs one of --rateest-lt, --rateest-gt and --rateest-eq")
    negated, mode = sign(fields["mode"])
    delta, other = fields.get("delta", False), fields.get("other")
    pairs: dict[str, tuple[int, int] | None] = {}
    for field, short in (("octets", "bps"), ("packets", "pps")):
        given = {side: fields.get(f"{short}{side}") for side in (1, 2)}
        # Only what is compared counts: with an estimator on each side, numbers do for a difference alone.
        first = (given[1] or 0) if delta else 0
        second = (given[2] or 0) if delta or other is None else 0
        pairs[field] = None if given[1] is None and given[2] is None else (first, second)
    return RateEstimate(name=fields["name"], other=other, delta=delta, mode=mode, negated=negated, **pairs)


def _save_match(value: RateEstimate, family: Family) -> Iterator[str]:
    comparison = (*(("!",) if value.negated else ()), f"--rateest-{value.mode}")
    if value.delta:
        yield "--rateest-delta"
    yield from ("--rateest1" if value.other is not None else "--rateest", value.name)
    for rates, short in ((value.octets, "bps"), (value.packets, "pps")):
        if rates is None:
            continue
        first, second = (_printed(rate)[0] if short == "bps" else str(rate) for rate in rates)
        if value.delta:
            yield from (f"--rateest-{short}1", first)
        yield from comparison
        comparison = ()
        yield f"--rateest-{short}2" if value.delta else f"--rateest-{short}"
        if value.delta or value.other is None:
            yield second
    if value.other is not None:
        yield from ("--rateest2", value.other)


def _to_nft(value: Match | Target, family: Family, rule: Rule) -> NoReturn:
    raise InexpressibleError("RATEEST and rateest: nft has no estimators of rates")


EXTENSIONS: Final = (
    Extension(
        name="RATEEST",
        value=RateEst,
        options=(
            Option("--rateest-name", "name", _NAME),
            Option("--rateest-interval", "interval", _TIME),
            Option("--rateest-ewmalog", "average", _TIME),
        ),
        build=_build_target,
        save=_save_target,
        to_nft=_to_nft,
    ),
    Extension(
        name="rateest",
        value=RateEstimate,
        options=(
            Option("--rateest1", "name", _NAME, aliases=("--rateest",)),
            Option("--rateest2", "other", _NAME),
            Option("--rateest-bps1", "bps1", _BPS, optional=True, preset=0),
            Option("--rateest-pps1", "pps1", _PPS, optional=True, preset=0),
            Option("--rateest-bps2", "bps2", _BPS, aliases=("--rateest-bps",), optional=True, preset=0),
            Option("--rateest-pps2", "pps2", _PPS, aliases=("--rateest-pps",), optional=True, preset=0),
            Option("--rateest-delta", "delta", words=0),
            *(Option(f"--rateest-{mode}", "mode", words=0, preset=mode, invertible=True) for mode in MODES),
        ),
        build=_build_match,
        save=_save_match,
        to_nft=_to_nft,
    ),
)
