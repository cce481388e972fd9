"""Cases: rules of connlabel."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.connlabel import LABEL_MAX, ConnLabel
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", '-m connlabel --label "40"', "", "ct label 40 counter"),
    Case("46", "filter", "-m connlabel --label 0x7f", '-m connlabel --label "127"', "ct label 127 counter"),
    Case("46", "filter", "-m connlabel ! --label 0", '-m connlabel ! --label "0"', None),
    Case("46", "filter", "-m connlabel --set ! --label 41", '-m connlabel ! --label "41" --set', None),
)
REFUSED = (
    ("-m connlabel --set", "--label"),
    ("-m connlabel --label 128", "between 0 and 127"),
    ("-m connlabel --label web", "say its number"),
    ("-m connlabel --label 1 ! --set", "can't be negated"),
)
EQUAL = (("-m connlabel --label 0x10", "-m connlabel --label 16"),)
DIFFERENT = (
    ("-m connlabel --label 1", "-m connlabel --label 2"),
    ("-m connlabel --label 1", "-m connlabel ! --label 1"),
    ("-m connlabel --label 1", "-m connlabel --label 1 --set"),
)
UNSAYABLE = (
    ("-m connlabel --label 1 --set", "--set"),
    ("-m connlabel ! --label 1", "without a connection"),
)
PACKETS = (
    "-m connlabel --label 3",
    "-p udp --dport 101 -m connlabel --label 0",
)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    label = st.integers(0, LABEL_MAX)
    return [st.builds(ConnLabel, label | label.map(Not), st.booleans())]
