"""Cases: rules of connbytes."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.connbytes import DIRECTIONS, MAX, MODES, ConnBytes
from meshfw.model import Family, Match, Not
from tests.extensions.case import Case

M = "-m connbytes"
P = "--connbytes-mode packets --connbytes-dir"
B = "--connbytes-mode bytes --connbytes-dir"
CASES = (
    Case("46", "filter", f"{M} --connbytes 0:1000 {P} reply", "", "ct reply packets 0-1000 counter"),
    Case(
        "46",
        "filter",
        f"{M} --connbytes 200: {P} original",
        f"{M} --connbytes 200 {P} original",
        "ct original packets >= 200 counter",
    ),
    Case("46", "filter", f"{M} ! --connbytes 200 {P} reply", "", "ct reply packets < 200 counter"),
    Case(
        "46",
        "filter",
        f"{M} --connbytes-dir both --connbytes-mode bytes --connbytes :600",
        f"{M} --connbytes 0:600 {B} both",
        "ct bytes 0-600 counter",
    ),
    Case("46", "filter", f"{M} ! --connbytes 200:600 {B} both", "", "ct bytes != 200-600 counter"),
    Case(
        "46",
        "filter",
        f"{M} --connbytes 200:200 --connbytes-mode avgpkt --connbytes-dir both",
        "",
        "ct avgpkt 200 counter",
    ),
    Case("46", "filter", f"{M} --connbytes 0 {B} reply", "", "ct reply bytes >= 0 counter"),
    Case("46", "filter", f"{M} ! --connbytes 0 {B} reply", "", None),
    Case("46", "filter", f"{M} --connbytes 18446744073709551615 {B} both", "", "ct bytes 18446744073709551615 counter"),
    Case(
        "46", "filter", f"{M} --connbytes 5:9223372036854775808 {B} both", "", "ct bytes 5-9223372036854775808 counter"
    ),
)
REFUSED = (
    (f"{M} --connbytes 5 --connbytes-mode packets", "--connbytes-dir"),
    (f"{M} --connbytes 9:5 {P} both", "smaller"),
    (f"{M} --connbytes 5 --connbytes-mode pkt --connbytes-dir both", "pkt"),
    (f"{M} --connbytes 5 {P} back", "back"),
    (f"{M} --connbytes 18446744073709551616 {P} both", "18446744073709551616"),
)
EQUAL = (
    (f"{M} ! --connbytes 0:9 {P} both", f"{M} --connbytes 10 {P} both"),
    (f"{M} --connbytes 5 {P} both", f"{M} --connbytes 5:18446744073709551615 {P} both"),
)
DIFFERENT = (
    (f"{M} --connbytes 5 {P} both", f"{M} --connbytes 5 {B} both"),
    (f"{M} --connbytes 5 {P} both", f"{M} --connbytes 5 {P} reply"),
    (f"{M} --connbytes 5:5 {P} both", f"{M} ! --connbytes 5:5 {P} both"),
    (f"{M} --connbytes 0 {P} both", ""),  # it still asks for a connection
)
UNSAYABLE = ((f"{M} ! --connbytes 0: {P} both", "no packet"),)
PACKETS = (
    f"{M} --connbytes 2 {P} original",
    f"{M} ! --connbytes 2 {P} original",
    f"{M} --connbytes 1:2 {P} both",
    f"{M} ! --connbytes 1:2 {P} both",
    f"{M} --connbytes 0:0 {P} reply",
    f"{M} --connbytes 1 {B} reply",
    f"{M} --connbytes 30:60 {B} original",
    f"{M} ! --connbytes 40:80 {B} both",
    f"{M} --connbytes 29:40 --connbytes-mode avgpkt --connbytes-dir both",
)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Ranges of counts."""
    number = st.integers(0, 20) | st.integers(0, MAX) | st.sampled_from((MAX - 1, MAX, 1 << 63))
    counts = st.tuples(number, number).map(lambda pair: (min(pair), max(pair)))
    return [st.builds(ConnBytes, counts | counts.map(Not), st.sampled_from(MODES), st.sampled_from(DIRECTIONS))]
