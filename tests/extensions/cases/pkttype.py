"""Cases: rules of pkttype."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.pkttype import TYPES, PktType
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m pkttype --pkt-type HOST", "-m pkttype --pkt-type unicast", "meta pkttype host counter"),
    Case("46", "filter", "-m pkttype ! --pkt-type broadcast", "", "meta pkttype != broadcast counter"),
    Case(
        "46",
        "filter",
        "-m pkttype --pkt-type mcast",
        "-m pkttype --pkt-type multicast",
        "meta pkttype multicast counter",
    ),
    Case("46", "filter", "-m pkttype --pkt-type otherhost", "", "meta pkttype other counter"),
)
REFUSED = (("-m pkttype", "--pkt-type"), ("-m pkttype --pkt-type wrong", "otherhost"))
EQUAL = (("-m pkttype --pkt-type bcast", "-m pkttype --pkt-type Broadcast"),)
DIFFERENT = (("-m pkttype --pkt-type bcast", "-m pkttype --pkt-type mcast"),)
PACKETS = tuple(f"-m pkttype {sign}--pkt-type {name}" for name in TYPES for sign in ("", "! "))


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    name = st.sampled_from(tuple(TYPES))
    return [st.builds(PktType, name | name.map(Not))]
