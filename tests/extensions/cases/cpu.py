"""Cases: rules of cpu."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.cpu import Cpu
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m cpu --cpu 0x10", "-m cpu --cpu 16", "meta cpu 16 counter"),
    Case("46", "filter", "-m cpu ! --cpu 4294967295", "", "meta cpu != 4294967295 counter"),
)
REFUSED = (("-m cpu", "--cpu"), ("-m cpu --cpu 4294967296", "between 0 and 4294967295"))
DIFFERENT = (("-m cpu --cpu 1", "-m cpu ! --cpu 1"),)
PACKETS = ("-m cpu --cpu 99999", "-m cpu ! --cpu 99999")


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    number = st.integers(0, 3) | st.integers(0, 0xFFFFFFFF)
    return [st.builds(Cpu, number | number.map(Not))]
