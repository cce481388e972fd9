"""Cases: rules of statistic."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.statistic import STEPS, Nth, Statistic
from meshfw.model import Family, Match
from tests.extensions.case import Case

R = "-m statistic --mode random"
N = "-m statistic --mode nth"
CASES = (
    Case("46", "filter", f"{R} ! --probability 0.50000000000", "", "meta random & 2147483647 >= 1073741824 counter"),
    Case(
        "46",
        "filter",
        f"{R} --probability 0.8",
        f"{R} --probability 0.79999999981",
        "meta random & 2147483647 < 1717986918 counter",
    ),
    Case(
        "46",
        "filter",
        f"{R} --probability 1",
        f"{R} --probability 1.00000000000",
        "meta random & 2147483647 < 2147483648 counter",
    ),
    Case(
        "46",
        "filter",
        f"{R} --probability 1e-10",
        f"{R} --probability 0.00000000000",
        "meta random & 2147483647 < 0 counter",
    ),
    Case(
        "46",
        "filter",
        f"{R} --probability .001",
        f"{R} --probability 0.00100000016",
        "meta random & 2147483647 < 2147484 counter",
    ),
    Case("46", "nat/PREROUTING", f"{N} --every 10 --packet 1", "", "numgen inc mod 10 1 counter"),
    Case("46", "filter", f"{N} ! --every 10 --packet 5", "", "numgen inc mod 10 != 5 counter"),
    Case("46", "filter", f"{N} --every 1 --packet 0", "", "numgen inc mod 1 0 counter"),
    Case("46", "filter", f"{N} --every 4294967295 --packet 3", "", "numgen inc mod 4294967295 3 counter"),
)
REFUSED = (
    ("-m statistic", "--probability P"),
    ("-m statistic --probability 1", "--mode"),
    (f"{R} --probability 1.1", "1.1"),
    (f"{R} --probability nan", "nan"),
    (f"{R} --probability 0,5", "0,5"),
    ("-m statistic --mode rand --probability 0.5", "rand"),
    (f"{N} --every 5", "--packet"),
    (f"{N} --packet 5", "--every"),
    (f"{N} --every 5 --packet 5", "packet 5 of every 5"),
    (f"{N} --every 0 --packet 0", "between 1"),
    (f"{N} --probability 0.5", "--mode"),
    (f"{R} --every 3 --packet 0 --probability 0.5", "--mode"),
)
EQUAL = (
    (f"{R} --probability 0.8", f"{R} --probability 0.79999999981"),
    (f"{R} ! --probability 0", f"{N} --every 1 --packet 0"),
)
DIFFERENT = (
    (f"{R} --probability 0.5", f"{R} ! --probability 0.5"),
    (f"{N} --every 5 --packet 1", f"{N} --every 5 --packet 2"),
    (f"{N} --every 5 --packet 1", f"{N} ! --every 5 --packet 1"),
    (f"{N} --every 5 --packet 1 -m mark --mark 1", f"-m mark --mark 1 {N} --every 5 --packet 1"),
    (f"{R} --probability 0", ""),
)
PACKETS = (
    f"{R} --probability 1",
    f"{R} --probability 0",
    f"{N} --every 3 --packet 0",
    f"-p udp {N} --every 10 --packet 7",
    f"-p udp {N} --every 1000 --packet 17",
    f"-p udp {N} --every 1000 --packet 16 -m multiport --dports 101:105",
    f"-p udp {N} ! --every 4 --packet 3 -m multiport --dports 101:104 {N} --every 2 --packet 1",
)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Chances and every so many."""
    every = st.tuples(st.integers(1, 20) | st.integers(1, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
    nth = every.map(lambda pair: Nth(pair[0], pair[1] % pair[0]))
    return [
        st.builds(Statistic, nth | st.integers(0, STEPS) | st.sampled_from((0, 1, STEPS - 1, STEPS)), st.booleans())
    ]
