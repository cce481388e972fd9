"""Cases: rules of time."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.errors import ModelError
from meshfw.extensions.clock import DAY, EVERY_MONTHDAY, EVERY_WEEKDAY, LAST_DATE, Time
from meshfw.model import Family, Match
from tests.extensions.case import Case

END = "--datestop 2038-01-19T03:14:07"


def case(written: str, saved: str, nft: str | None) -> Case:
    """A rule whose times nft lists in the host's time zone."""
    return Case("46", "filter", f"-m time{written}", f"-m time {saved}", nft, same=False)


CASES = (
    case(
        " --timestart 18:00 --timestop 23:59",
        f"--timestart 18:00:00 --timestop 23:59:00 {END}",
        "meta hour 64800-86340 counter",
    ),
    case(" --timestart 8:00", f"--timestart 08:00:00 --timestop 23:59:59 {END}", "meta hour 28800-86399 counter"),
    case(" --timestop 8:5:7", f"--timestart 00:00:00 --timestop 08:05:07 {END}", "meta hour 0-29107 counter"),
    case(
        " --timestart 22:00 --timestop 6:00",
        f"--timestart 22:00:00 --timestop 06:00:00 {END}",
        "meta hour != 21601-79199 counter",
    ),
    case(
        " --timestart 22:00 --timestop 21:59:58 --contiguous",
        f"--timestart 22:00:00 --timestop 21:59:58 {END} --contiguous",
        "meta hour != 79199 counter",
    ),
    case(" --timestart 6:00 --timestop 6:00", f"--timestart 06:00:00 --timestop 06:00:00 {END}", "counter"),
    case(
        " --datestart 2020-02-30T5 --datestop 2037-12-31",
        "--datestart 2020-03-01T05:00:00 --datestop 2037-12-31T00:00:00",
        "meta time >= 1583038800 meta time < 2145830401 counter",
    ),
    case(
        " --weekdays Sa,Su --timestart 12:00 --timestop 19:00 --datestart 2020",
        f"--timestart 12:00:00 --timestop 19:00:00 --weekdays Sat,Sun --datestart 2020-01-01T00:00:00 {END}",
        'meta time >= 1577836800 meta hour 43200-68400 meta day { "Sunday", "Saturday" } counter',
    ),
    case(" --utc --weekdays 7", f"--weekdays Sun {END}", 'meta day "Sunday" counter'),
    case(
        " ! --weekdays Mon",
        f"--weekdays Tue,Wed,Thu,Fri,Sat,Sun {END}",
        'meta day { "Sunday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" } counter',
    ),
    case(" --weekdays 1,2,3,4,5,6,7", END, "counter"),
    case(" --localtz --weekdays Monday,Tu,3", f"--weekdays Mon,Tue,Wed {END} --kerneltz", None),
    case(" --kerneltz --datestop 2021", "--datestop 2021-01-01T00:00:00 --kerneltz", None),
    case(" --monthdays 31,1", f"--monthdays 1,31 {END}", None),
    case(
        " --timestart 23:00 --timestop 1:00 --contiguous --weekdays Fri",
        f"--timestart 23:00:00 --timestop 01:00:00 --weekdays Fri {END} --contiguous",
        None,
    ),
)
REFUSED = (
    ("-m time --timestart 24:00", "24:00"),
    ("-m time --timestart 8", "8"),
    ("-m time --datestart 2039", "2039"),
    ("-m time --datestart 2020-01-01T00:00:60", "00:00:60"),
    ("-m time --datestart tomorrow", "tomorrow"),
    ("-m time --weekdays mon", "mon"),
    ("-m time --weekdays 8", "8"),
    ("-m time --weekdays 0", "0"),
    ("-m time ! --weekdays 1,2,3,4,5,6,7", "no day is left"),
    ("-m time --monthdays 32", "32"),
    ("-m time --monthdays 0", "0"),
    ("-m time --utc --kerneltz", "beside"),
    ("-m time --contiguous", "midnight"),
    ("-m time --timestart 2:00 --timestop 6:00 --contiguous", "midnight"),
    ("-m time --days Sat", "--days"),
)
EQUAL = (
    ("-m time --timestart 8:00", "-m time --timestart 08:00:00 --timestop 23:59:59"),
    ("-m time --timestart 6:00 --timestop 6:00", ""),
    ("-m time --timestart 6:00 --timestop 5:59:59", ""),
    ("-m time --weekdays Mon --timestart 8:00", "-m time --timestart 8:00 -m time --weekdays 1"),
    ("-m time ! --weekdays Sat,Sun", "-m time --weekdays Mon,Tue,Wed,Thu,Fri"),
    ("-m time --timestart 22:00 --timestop 6:00 --contiguous", "-m time --timestart 22:00 --timestop 6:00"),
)
DIFFERENT = (
    ("-m time --timestart 8:00", "-m time --timestart 8:01"),
    ("-m time --weekdays Mon", "-m time --monthdays 1"),
    ("-m time --weekdays Mon", "-m time --weekdays Mon --kerneltz"),
    ("-m time --datestart 2020", "-m time --datestop 2020"),
    (
        "-m time --timestart 22:00 --timestop 6:00 --weekdays 1 --contiguous",
        "-m time --timestart 22:00 --timestop 6:00 --weekdays 1",
    ),
)
UNSAYABLE = (
    ("-m time --kerneltz", "--kerneltz"),
    ("-m time --monthdays 1", "day of the month"),
    ("-m time --timestart 22:00 --timestop 6:00 --weekdays 1 --contiguous", "midnight"),
)
PACKETS = (
    "-m time --timestop 11:59:59",
    "-m time --timestart 12:00",
    "-m time --timestart 6:00 --timestop 18:00",
    "-m time --timestart 18:00:01 --timestop 5:59:59",
    "-m time --timestart 3:00 --timestop 15:00",
    "-m time --timestart 15:00:01 --timestop 2:59:59",
    "-m time --weekdays Mon,Tue,Wed",
    "-m time ! --weekdays Mon,Tue,Wed",
    "-m time --weekdays Mon,Wed,Fri,Sun",
    "-m time --weekdays Tue,Thu,Sat",
    "-m time --datestart 2020",
    "-m time --datestart 2021 --datestop 2037-12-31T23:59:59",
    "-m time --datestop 2020",
)


def _made(fields: dict[str, Any]) -> Any:
    """The match; None where there is none."""
    try:
        return Time(**fields)
    except ModelError:
        return None


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Hours, days and dates."""
    clock = st.integers(0, DAY - 1)
    made = st.fixed_dictionaries(
        {},
        optional={
            "start": clock,
            "stop": clock,
            "monthdays": st.integers(1, 0x7FFFFFFF).map(lambda mask: mask << 1) | st.just(EVERY_MONTHDAY),
            "weekdays": st.integers(1, 0x7F).map(lambda mask: mask << 1) | st.just(EVERY_WEEKDAY),
            "first": st.integers(0, LAST_DATE),
            "last": st.integers(1, LAST_DATE),
            "local": st.booleans(),
            "contiguous": st.booleans(),
        },
    )
    return [made.map(_made).filter(lambda held: held is not None)]
