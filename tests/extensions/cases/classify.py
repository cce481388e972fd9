"""Cases: rules of CLASSIFY."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.classify import Classify
from meshfw.model import Family
from tests.extensions.case import Case

CASES = (
    Case(
        "46",
        "mangle",
        "-j CLASSIFY --set-class 1:2",
        "-j CLASSIFY --set-class 0001:0002",
        "counter meta priority set 1:2",
    ),
    Case("46", "mangle/OUTPUT", "-j CLASSIFY --set-class 0000:ffff", "", "counter meta priority set 0:ffff"),
    Case(
        "46",
        "mangle",
        "-j CLASSIFY --set-class 0:0",
        "-j CLASSIFY --set-class 0000:0000",
        "counter meta priority set none",
    ),
    Case(
        "46",
        "mangle",
        "-j CLASSIFY --set-class FFFF:FFFF",
        "-j CLASSIFY --set-class ffff:ffff",
        "counter meta priority set root",
    ),
    Case(
        "46",
        "filter",
        "-j CLASSIFY --set-class 0x1:12345",
        "-j CLASSIFY --set-class 0001:2345",
        "counter meta priority set 1:2345",
    ),
)
REFUSED = (
    ("-j CLASSIFY", "--set-class"),
    ("-j CLASSIFY --set-class 1", "1"),
    ("-j CLASSIFY --set-class 1:x", "hexadecimal"),
    ("-j CLASSIFY --set-class 1:-1", "-1"),
    ("-j CLASSIFY ! --set-class 1:1", "negated"),
)
EQUAL = (("-j CLASSIFY --set-class 1:A", "-j CLASSIFY --set-class 0001:000a"),)
DIFFERENT = (
    ("-j CLASSIFY --set-class 1:2", "-j CLASSIFY --set-class 2:1"),
    ("-j CLASSIFY --set-class 0:0", "-j CLASSIFY --set-class ffff:ffff"),
)


def targets(family: Family, protocol: int | None) -> list[Any]:
    """Classes."""
    return [st.builds(Classify, st.integers(0, 0xFFFFFFFF) | st.sampled_from((0, 0xFFFFFFFF, 0xFFFF)))]
