"""The time match: hours, days and dates (iptables-extensions(8), time)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import complement, listed, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Loss, Match, Rule

DAY: Final = 86_400
LAST_DATE: Final = 0x7FFFFFFF
"""The last second where nothing is said (libxt_time.c): a rule that states it has no end."""
WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_WEEKDAY: Final = 0xFE
"""Bits 1 (Monday) to 7 (linux/netfilter/xt_time.h, XT_TIME_ALL_WEEKDAYS)."""
EVERY_MONTHDAY: Final = 0xFFFFFFFE


class Time(Match, frozen=True, kw_only=True):
    """Packets of certain hours (seconds of the day), days (bits from 1) and dates (seconds since 1970), ends included.

    All are UTC, or with ``local`` of the kernel's own time zone. Hours that end before they begin go over midnight;
    with ``contiguous`` those behind it still belong to the day before.
    """

    start: int = 0
    stop: int = DAY - 1
    monthdays: int = EVERY_MONTHDAY
    weekdays: int = EVERY_WEEKDAY
    first: int = 0
    last: int = LAST_DATE
    local: bool = False
    contiguous: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < DAY or not 0 <= self.stop < DAY:
            raise ModelError("a time of day is from 00:00:00 to 23:59:59")
        if not self.monthdays & EVERY_MONTHDAY or not self.weekdays & EVERY_WEEKDAY:
            raise ModelError("no day is left, and iptables-save prints that as an option without a value")
        if not 0 <= self.first <= 0xFFFFFFFF or not 0 <= self.last <= 0xFFFFFFFF:
            raise ModelError("dates are seconds since 1970, of 32 bits")
        if self.contiguous and self.start < self.stop:
            raise ModelError("--contiguous makes sense where the hours go over midnight")

    @property
    def hours(self) -> tuple[tuple[int, int], ...]:
        """The seconds of the day that meet it."""
        if self.start < self.stop:
            return ((self.start, self.stop),)
        if self.start - self.stop <= 1:
            return ((0, DAY - 1),)
        return ((0, self.stop), (self.start, DAY - 1))

    @property
    def carried(self) -> bool:
        """Whether days depend on hours."""
        return self.contiguous and (self.monthdays != EVERY_MONTHDAY or self.weekdays != EVERY_WEEKDAY)

    def atoms(self) -> Iterator[Any]:
        """One for each condition; nothing for all hours, all days, and dates without an end."""
        if self.carried:
            yield ("time days", self.local, self.start, self.stop, self.monthdays, self.weekdays)
        else:
            if self.hours != ((0, DAY - 1),):
                yield ("time hours", self.local, self.hours)
            if self.monthdays != EVERY_MONTHDAY:
                yield ("time monthdays", self.local, self.monthdays)
            if self.weekdays != EVERY_WEEKDAY:
                yield ("time weekdays", self.local, self.weekdays)
        if self.first:
            yield ("time from", self.local, self.first)
        if self.last != LAST_DATE:
            yield ("time until", self.local, self.last)

    def losses(self) -> Iterable[Loss]:
        """A last date of 0, which iptables-save leaves out."""
        if not self.last:
            yield Loss(frozenset({"legacy", "nft"}), "--datestop 1970-01-01T00:00:00: iptables-save leaves it out")


# --- iptables' words ------------------------------------------------------------------------------------------

_CLOCK: Final = re.compile(r"(\d+):(\d+)(?::(\d+))?\Z", re.ASCII)
_DATE: Final = re.compile(r"(\d+)(?:-(\d+)(?:-(\d+)(?:T(\d+)(?::(\d+)(?::(\d+))?)?)?)?)?\Z", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _parse_clock(text: str, context: ParseContext) -> int:
    found = _CLOCK.match(text)
    hour, minute, second = (int(part or 0) for part in found.groups()) if found else (24, 0, 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ModelError(f"{text!r} is no time between 00:00:00 and 23:59:59")
    return hour * 3600 + minute * 60 + second


def _format_clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _parse_date(text: str, context: ParseContext) -> int:
    found = _DATE.match(text)
    if found:
        year, month, day, hour, minute, second = (
            int(part) if part else usual for part, usual in zip(found.groups(), (0, 1, 1, 0, 0, 0), strict=True)
        )
        if 1970 <= year <= 2038 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60:
            # 30 February is a day of March, as for mktime(3)
            moment = datetime(year, month, 1, hour, minute, second, tzinfo=UTC) + timedelta(days=day - 1)
            return int((moment - _EPOCH).total_seconds())
    raise ModelError(f"{text!r} is no date from 1970 to 2038")


def _format_date(seconds: int) -> str:
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"


def _parse_weekdays(text: str, context: ParseContext) -> int:
    mask = 0
    for word in text.split(","):
        days = [index for index, name in enumerate(WEEKDAYS, 1) if word == str(index) or word[:2] == name[:2]]
        if not days:
            raise ModelError(f"{word!r} is no day of the week")
        mask |= 1 << days[0]
    return mask


def _parse_monthdays(text: str, context: ParseContext) -> int:
    mask = 0
    for word in text.split(","):
        if not re.fullmatch(r"[1-9]\d?", word, re.ASCII) or int(word) > 31:
            raise ModelError(f"{word!r} is no day from 1 to 31")
        mask |= 1 << int(word)
    return mask


_TIME: Final = Codec(parse=_parse_clock, format=_format_clock, expected="HH:MM or HH:MM:SS")
_MOMENT: Final = Codec(parse=_parse_date, format=_format_date, expected="YYYY[-MM[-DD[THH[:MM[:SS]]]]]")
_WEEKDAYS: Final = Codec(
    parse=_parse_weekdays,
    format=lambda mask: ",".join(name for index, name in enumerate(WEEKDAYS, 1) if mask >> index & 1),
    expected=f"a list of {', '.join(WEEKDAYS)}",
)
_MONTHDAYS: Final = Codec(
    parse=_parse_monthdays,
    format=lambda mask: ",".join(str(day) for day in range(1, 32) if mask >> day & 1),
    expected="a list of days from 1 to 31",
)


def _build(fields: dict[str, Any], context: ParseContext) -> Time:
    for field, every in (("monthdays", EVERY_MONTHDAY), ("weekdays", EVERY_WEEKDAY)):
        negated, mask = sign(fields.get(field, every))
        fields[field] = mask ^ every if negated else mask
    if fields.pop("utc", False) and "local" in fields:
        raise ModelError("--utc can't stand beside --kerneltz")
    return Time(**fields)


def _save(value: Time, family: Family) -> Iterator[str]:
    if (value.start, value.stop) != (0, DAY - 1):
        yield from ("--timestart", _format_clock(value.start), "--timestop", _format_clock(value.stop))
    if value.monthdays != EVERY_MONTHDAY:
        yield from ("--monthdays", _MONTHDAYS.format(value.monthdays))
    if value.weekdays != EVERY_WEEKDAY:
        yield from ("--weekdays", _WEEKDAYS.format(value.weekdays))
    if value.first:
        yield from ("--datestart", _format_date(value.first))
    yield from ("--datestop", _format_date(value.last))
    if value.local:
        yield "--kerneltz"
    if value.contiguous:
        yield "--contiguous"


# --- nft ------------------------------------------------------------------------------------------------------

_NFT_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def _to_nft(value: Time, family: Family, rule: Rule) -> Iterator[str]:
    """The conditions in numbers, which nft takes for UTC: a time in words it takes for the host's own time zone."""
    if value.local:
        raise InexpressibleError("time --kerneltz: nft's hours and dates are UTC")
    if value.monthdays != EVERY_MONTHDAY:
        raise InexpressibleError("time --monthdays: nft knows no day of the month")
    if value.carried:
        raise InexpressibleError("time --contiguous: nft's day ends at midnight; make it two rules, one for each day")
    if value.first:
        yield f"meta time >= {value.first}"
    if value.last != LAST_DATE:
        yield f"meta time < {value.last + 1}"  # nft counts nanoseconds, and the last second is met as a whole
    hours = value.hours
    if len(hours) == 1 and hours != ((0, DAY - 1),):
        yield f"meta hour {hours[0][0]}-{hours[0][1]}"
    elif len(hours) == 2:
        ((low, high),) = complement(hours, last=DAY - 1)
        yield f"meta hour != {low if low == high else f'{low}-{high}'}"
    if value.weekdays != EVERY_WEEKDAY:
        days = [f'"{_NFT_DAYS[day]}"' for day in range(7) if value.weekdays >> (day or 7) & 1]
        joined = ", ".join(days)
        yield f"meta day {joined if len(days) == 1 else f'{{ {joined} }}'}"


def _second(text: str) -> int:
    """The second of the day, in UTC, that nft lists in the time zone of this process, as that is just now.

    What is before midnight there it lists as hours of 32 bits.
    """
    hour, minute, second = (int(part) for part in f"{text}:0".split(":")[:3])
    seconds = hour * 3600 + minute * 60 + second
    ahead = datetime.now().astimezone().utcoffset() or timedelta()
    return (seconds - (1 << 32) * (seconds >= DAY) - int(ahead.total_seconds())) % DAY


def _from_hour(match: NftMatch, family: Family) -> Time | None:
    if match.op not in ("==", "!=") or match.mask is not None:
        return None
    ends = match.right["range"] if isinstance(match.right, dict) else (match.right, match.right)
    low, high = (_second(end) for end in ends)
    if not match.negated:
        return Time(start=low, stop=high) if low < high else None
    return Time(start=high + 1, stop=low - 1) if 0 < low <= high < DAY - 1 else None


def _from_date(match: NftMatch, family: Family) -> Time | None:
    if match.op not in (">=", "<") or match.mask is not None:
        return None
    moment = int(datetime.fromisoformat(match.right).timestamp())  # in the time zone of this process as well
    return Time(first=moment) if match.op == ">=" else Time(last=moment - 1)


def _from_day(match: NftMatch, family: Family) -> Time | None:
    if match.op != "==" or match.mask is not None:
        return None
    return Time(weekdays=sum(1 << (_NFT_DAYS.index(day) or 7) for day in listed(match.right)))


EXTENSIONS: Final = (
    Extension(
        name="time",
        value=Time,
        options=(
            Option("--timestart", "start", _TIME),
            Option("--timestop", "stop", _TIME),
            Option("--monthdays", "monthdays", _MONTHDAYS, invertible=True),
            Option("--weekdays", "weekdays", _WEEKDAYS, invertible=True),
            Option("--datestart", "first", _MOMENT),
            Option("--datestop", "last", _MOMENT),
            Option("--kerneltz", "local", aliases=("--localtz",), words=0),
            Option("--utc", "utc", words=0),
            Option("--contiguous", "contiguous", words=0),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft={"meta hour": _from_hour, "meta time": _from_date, "meta day": _from_day},
    ),
)
