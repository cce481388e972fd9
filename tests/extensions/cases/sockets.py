"""Cases: rules of socket and cgroup."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.cgroup import Cgroup
from meshfw.extensions.socket import Socket
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "mangle/PREROUTING", "-m socket", "", None),
    Case("46", "mangle/PREROUTING", "-m socket --transparent", "", None),
    Case("46", "mangle/PREROUTING", "-m socket --nowildcard", "", "socket transparent 0-1 counter"),
    Case(
        "46",
        "mangle/PREROUTING",
        "-m socket --nowildcard --transparent",
        "-m socket --transparent --nowildcard",
        "socket transparent 1 counter",
    ),
    Case(
        "46",
        "mangle/PREROUTING",
        "-m socket --restore-skmark --nowildcard",
        "-m socket --nowildcard --restore-skmark",
        None,
    ),
    Case(
        "46",
        "mangle/OUTPUT",
        "-m cgroup --cgroup 0x100001",
        "-m cgroup --cgroup 1048577",
        "socket wildcard . meta cgroup { 0 . 1048577, 1 . 1048577 } counter",
    ),
    Case(
        "46", "mangle/INPUT", "-m cgroup ! --cgroup 0", "", "socket wildcard . meta cgroup != { 0 . 0, 1 . 0 } counter"
    ),
    Case("46", "mangle/OUTPUT", "-m cgroup --path /", '-m cgroup --path "/"', None),
    Case("46", "mangle/POSTROUTING", '-m cgroup ! --path "/"', "", None),
)
REFUSED = (
    ("-m cgroup", "one of --path and --cgroup"),
    ("-m cgroup --path / --cgroup 1", "one of --path and --cgroup"),
    ("-m cgroup --cgroup 4294967296", "4294967296"),
    ('-m cgroup --path ""', "1 to 511"),
    ("-m socket ! --transparent", "negated"),
)
EQUAL = (("-m cgroup --cgroup 16", "-m cgroup --cgroup 0x10"),)
DIFFERENT = (
    ("-m socket", "-m socket --nowildcard"),
    ("-m socket", "-m socket --transparent"),
    ("-m socket --restore-skmark -m mark --mark 1", "-m mark --mark 1 -m socket --restore-skmark"),
    ("-m cgroup --cgroup 1", "-m cgroup ! --cgroup 1"),
    ("-m cgroup --path a", "-m cgroup --path b"),
)
UNSAYABLE = (
    ("-m socket", "without --nowildcard"),
    ("-m socket --nowildcard --restore-skmark", "no mark to copy"),
    ("-m cgroup --path a", "no level"),
)
PACKETS = ("-m socket --nowildcard", "-m socket --transparent --nowildcard")


def matches(family: Family, protocol: int | None) -> list[Any]:
    flag = st.sampled_from((None, True))
    number = st.integers(0, 9) | st.integers(0, 0xFFFFFFFF)
    return [
        st.builds(Socket, flag, flag, st.none() | flag),
        st.builds(Cgroup, class_id=number | number.map(Not)),
        st.builds(Cgroup, path=st.sampled_from(("/", "a b", Not("system.slice/x.service")))),
    ]
