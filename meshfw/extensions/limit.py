"""The limit match: a token bucket over the packets that reach it (iptables-extensions(8), limit)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.codecs import integer
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Loss, Match, Rule

SCALE: Final = 10_000
"""The kernel counts the time of one packet in 1/10,000 s (linux/netfilter/xt_limit.h, XT_LIMIT_SCALE)."""
UNITS: Final = {"day": 86_400, "hour": 3_600, "min": 60, "sec": 1}
"""Seconds of each unit, the longest first, as iptables tries them in printing (libxt_limit.c)."""
_SPELLINGS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_NFT_UNITS: Final = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}
BURST: Final = 5
_CREDIT: Final = 0xFFFFFFFF // 32_000 * SCALE
"""The longest time that a full bucket may stand for: xt_limit.c counts 32,000 credits/s (HZ 250, 1000) in 32 bits."""


class Rate(msgspec.Struct, frozen=True, gc=False, order=True):
    """So many packets in a unit of so many seconds."""

    packets: int
    unit: int = 1

    def __post_init__(self) -> None:
        if self.unit not in UNITS.values():
            raise ModelError(f"{self.unit} s is no unit of a rate")
        if self.packets < 1:
            raise ModelError("a rate counts at least one packet")
        if self.period < 1:
            raise ModelError(f"rate {self.packets} in {self.unit} s is too fast: {SCALE} packets/s is the most")

    @property
    def period(self) -> int:
        """The time of one packet in 1/10,000 s, as the kernel keeps it."""
        return SCALE * self.unit // self.packets

    @property
    def reduced(self) -> Rate:
        """The rate as the tools print it: the kernel's period in the shortest unit that still shows it."""
        units = list(UNITS.values())
        chosen = units[0]
        for unit in units[1:]:
            packets, rest = divmod(unit * SCALE, self.period)
            if packets < rest or self.period > unit * SCALE:
                break
            chosen = unit
        return Rate(chosen * SCALE // self.period, chosen)

    def __str__(self) -> str:
        name = next(name for name, seconds in UNITS.items() if seconds == self.unit)
        return f"{self.packets}/{name}"


class Limit(Match, frozen=True):
    """At most ``burst`` packets at once and ``rate`` in the long run."""

    stateful: ClassVar[bool] = True
    rate: Rate = Rate(3, UNITS["hour"])
    burst: int = BURST

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "rate", self.rate.reduced)
        if not 1 <= self.burst <= 10_000:
            raise ModelError(f"burst {self.burst} is not between 1 and 10000")

    def atoms(self) -> Iterable[Any]:
        """Rate and burst."""
        return (("limit", self.rate, self.burst),)

    def losses(self) -> Iterable[Loss]:
        """A full bucket that overflows on the legacy tables; nf_tables counts in 64 bits."""
        if self.rate.period * self.burst > _CREDIT:
            text = (
                f"--limit {self.rate} with burst {self.burst} is more than iptables-legacy can count: lower the burst"
            )
            yield Loss(frozenset({"legacy"}), text, shown=False)


def _parse(text: str, context: ParseContext) -> Rate:
    count, slash, unit = text.partition("/")
    found = [seconds for name, seconds in _SPELLINGS.items() if unit and name.startswith(unit.lower())]
    if (slash and not found) or not (count.isascii() and count.isdigit()):
        raise ModelError(f"{text!r} is not a rate")
    return Rate(int(count), found[0] if slash else 1)


_RATE: Final = Codec(parse=_parse, format=str, expected="PACKETS/UNIT with UNIT second, minute, hour or day")


def _to_nft(value: Limit, family: Family, rule: Rule) -> Iterable[str]:
    burst = f" burst {value.burst} packets" if value.burst != BURST else ""  # nft's own default is 5 as well
    yield f"limit rate {value.rate.packets}/{_NFT_UNITS[value.rate.unit]}{burst}"


def _from_nft(body: Any, family: Family) -> Limit | None:
    units = {name: seconds for seconds, name in _NFT_UNITS.items()}
    if set(body) - {"rate", "burst", "per"} or body["per"] not in units:
        return None
    return Limit(Rate(int(body["rate"]), units[body["per"]]), int(body["burst"]))


EXTENSIONS: Final = (
    Extension(
        name="limit",
        value=Limit,
        options=(
            Option("--limit", "rate", _RATE),
            Option("--limit-burst", "burst", integer("a number of packets", low=1, high=10_000)),
        ),
        save=lambda value, family: (
            "--limit",
            str(value.rate),
            *(("--limit-burst", str(value.burst)) if value.burst != BURST else ()),
        ),
        to_nft=_to_nft,
        from_nft={"limit": _from_nft},
    ),
)
