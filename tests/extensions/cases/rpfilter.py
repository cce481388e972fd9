"""Cases: rules of rpfilter."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.rpfilter import RpFilter
from meshfw.model import Family
from tests.extensions.case import Case

CASES = (
    Case("46", "raw/PREROUTING", "-m rpfilter -j ACCEPT", "", None),
    Case(
        "46",
        "mangle/PREROUTING",
        "-m rpfilter --invert --accept-local --validmark --loose -j DROP",
        "-m rpfilter --loose --validmark --accept-local --invert -j DROP",
        None,
    ),
)
REFUSED = (("-m rpfilter ! --loose", "can't be negated"),)
DIFFERENT = (
    ("-m rpfilter", ""),
    ("-m rpfilter", "-m rpfilter --invert"),
    ("-m rpfilter", "-m rpfilter --loose"),
    ("-m rpfilter", "-m rpfilter --validmark"),
    ("-m rpfilter", "-m rpfilter --accept-local"),
)
UNSAYABLE = (("-m rpfilter --validmark --invert", "broadcast address"),)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    flag = st.booleans()
    return [st.builds(RpFilter, loose=flag, validmark=flag, accept_local=flag, invert=flag)]
