"""Cases: rules of length."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.length import Length
from meshfw.extensions.spans import Span
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m length --length 0x20", "-m length --length 32", "meta length 32 counter"),
    Case("46", "filter", "-m length --length 7:7", "-m length --length 7", "meta length 7 counter"),
    Case("46", "filter", "-m length ! --length :400", "-m length ! --length 0:400", "meta length != 0-400 counter"),
    Case("46", "filter", "-m length --length 86:", "-m length --length 86:65535", "meta length 86-65535 counter"),
    Case("46", "filter", "-m length ! --length 0:65535", "", "meta length != 0-65535 counter"),
    Case("46", "filter", "-m length --length 4:3", "", "meta length != 0-4294967295 counter"),
    Case("46", "filter", "-m length ! --length 4:3", "", "meta length 0-4294967295 counter"),
)
REFUSED = (
    ("-m length", "--length"),
    ("-m length --length 0:65536", "between 0 and 65535"),
    ("-m length --length -1", "not a number"),
)
EQUAL = (("-m length ! --length 9:3", ""), ("-m length --length 9:3", "-m length --length 4:2"))
DIFFERENT = (("-m length --length 0:65535", "-m length ! --length 0:65535"),)
PACKETS = (
    "-m length --length 60",
    "-m length ! --length 60",
    "-m length --length 60:100",
    "-m length ! --length 60:100",
    "-m length --length 100:60",
    "-m length ! --length 100:60",
    *(f"-m length --length {octets}" for octets in range(48, 72, 2)),
)

_OCTETS = st.integers(0, 0xFFFF) | st.integers(0, 9) | st.just(0xFFFF)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    span = st.builds(Span, _OCTETS, _OCTETS)
    return [st.builds(Length, span | span.map(Not))]
