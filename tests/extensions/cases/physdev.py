"""Cases: rules of physdev."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.physdev import Physdev
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m physdev --physdev-in lo", "", None),
    Case(
        "46",
        "filter",
        "-m physdev --physdev-is-bridged --physdev-in vnet+ --physdev-is-in",
        "-m physdev --physdev-is-in --physdev-in vnet+ --physdev-is-bridged",
        None,
    ),
    Case(
        "46",
        "filter/INPUT",
        "-m physdev ! --physdev-in tap0 ! --physdev-is-in",
        "-m physdev ! --physdev-is-in ! --physdev-in tap0",
        None,
    ),
    Case("46", "mangle/POSTROUTING", "-m physdev --physdev-is-out --physdev-out eth2 ! --physdev-is-bridged", "", None),
    Case("46", "filter/OUTPUT", "-m physdev --physdev-out + --physdev-is-bridged", "", None),
)
REFUSED = (
    ("-m physdev", "at least one"),
    ("-m physdev --physdev-in", "no value"),
    ("-m physdev --physdev-in a/b", "a/b"),
    ("-m physdev --physdev-in abcdefghijklmnop", "15 bytes"),
    ("-m physdev --physdev-in a --physdev-in b", "twice"),
)
EQUAL = (
    ("-m physdev --physdev-in a --physdev-is-bridged", "-m physdev --physdev-is-bridged -m physdev --physdev-in a"),
)
DIFFERENT = (
    ("-m physdev --physdev-in a", "-m physdev --physdev-out a"),
    ("-m physdev --physdev-in a", "-m physdev ! --physdev-in a"),
    ("-m physdev --physdev-in a", "-m physdev --physdev-in a+"),
    ("-m physdev --physdev-is-in", "-m physdev ! --physdev-is-in"),
    ("-m physdev --physdev-in a", "-i a"),
)
UNSAYABLE = (("-m physdev --physdev-in a ! --physdev-is-bridged", "--physdev-in --physdev-is-bridged: .* ports"),)


def matches(family: Family, protocol: int | None) -> list[Any]:
    flag = st.sampled_from((None, True, Not(True)))
    port = st.none() | st.sampled_from(("eth0", "vnet+", "+", Not("eth0"), Not("tap+")))
    return [st.builds(Physdev, st.sampled_from((True, Not(True))), port, flag, port, flag)]
