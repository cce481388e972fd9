"""Cases: rules of RATEEST and rateest; iptables loads the second where the first stands, in a table before."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.rateest import MODES, RateEst, RateEstimate
from meshfw.model import Family, Match, Target
from tests.extensions.case import Case

T = "-j RATEEST --rateest-name"
M = "-m rateest"
CASES = (
    Case(
        "46",
        "raw/PREROUTING",
        f"{T} RE1 --rateest-interval 250ms --rateest-ewmalog 0.5s",
        f"{T} RE1 --rateest-interval 250.0ms --rateest-ewmalog 500.0ms",
        None,
    ),
    Case(
        "46",
        "raw/PREROUTING",
        f"{T} RE2 --rateest-interval 900000 --rateest-ewmalog 20SECS",
        f"{T} RE2 --rateest-interval 1.0s --rateest-ewmalog 16.0s",
        None,
    ),
    Case(
        "46",
        "filter",
        f"{M} --rateest-delta --rateest RE1 --rateest-bps1 8bit --rateest-lt --rateest-bps2 16bit",
        "",
        None,
    ),
    Case("46", "filter", f"{M} --rateest1 RE1 --rateest-lt --rateest-bps --rateest2 RE2", "", None),
    Case(
        "46",
        "filter",
        f"{M} --rateest-delta --rateest1 RE1 --rateest-pps1 8 ! --rateest-gt --rateest-pps2 9 --rateest2 RE2",
        f"{M} --rateest-delta --rateest1 RE1 --rateest-pps1 8 ! --rateest-gt --rateest-pps2 9 --rateest2 RE2",
        None,
    ),
    Case(
        "46",
        "filter",
        f"{M} --rateest RE1 --rateest-eq --rateest-bps 1250KBps",
        f"{M} --rateest RE1 --rateest-eq --rateest-bps 10000Kbit",
        None,
    ),
    Case("46", "filter", f"{M} --rateest RE1 --rateest-gt --rateest-pps 7", "", None),
    Case(
        "46",
        "filter",
        f"{M} --rateest RE1 --rateest-gt --rateest-bps 2gbit",
        f"{M} --rateest RE1 --rateest-gt --rateest-bps 2000Mbit",
        None,
    ),
)
REFUSED = (
    ("-j RATEEST", "--rateest-name"),
    (f"{T} x --rateest-interval 9s --rateest-ewmalog 20s", "0.25 to 8"),
    (f"{T} x --rateest-interval 1s --rateest-ewmalog 1s", "ewmalog"),
    (f"{T} x --rateest-interval 1s --rateest-ewmalog 5h", "5h"),
    (f"{T} sixteencharacters --rateest-interval 1s --rateest-ewmalog 5s", "15"),
    (M, "--rateest"),
    (f"{M} --rateest RE1", "--rateest-lt"),
    (f"{M} --rateest RE1 --rateest-lt", "--rateest-bps"),
    (f"{M} --rateest RE1 --rateest-lt --rateest-gt --rateest-bps 5", "twice"),
    (f"{M} --rateest RE1 --rateest-lt --rateest-bps 5parsec", "5parsec"),
    (f"{M} --rateest RE1 --rateest-lt --rateest-bps 5tbps", "count"),
)
EQUAL = (
    (
        f"{M} --rateest RE1 --rateest-lt --rateest-bps 34359738360bit",
        f"{M} --rateest RE1 --rateest-lt --rateest-bps 34359738367",
    ),
    (f"{M} --rateest RE1 --rateest-lt --rateest-bps 8000", f"{M} --rateest1 RE1 --rateest-bps2 1KBps --rateest-lt"),
    (
        f"{T} x --rateest-interval 1s --rateest-ewmalog 20s",
        f"{T} x --rateest-interval 0.9s --rateest-ewmalog 17s",
    ),
)
DIFFERENT = (
    (f"{M} --rateest RE1 --rateest-lt --rateest-bps 8", f"{M} --rateest RE1 --rateest-lt --rateest-pps 8"),
    (f"{M} --rateest RE1 --rateest-lt --rateest-bps 8", f"{M} --rateest RE1 ! --rateest-lt --rateest-bps 8"),
    (
        f"{M} --rateest RE1 --rateest-lt --rateest-bps",
        f"{M} --rateest1 RE1 --rateest-lt --rateest-bps --rateest2 RE2",
    ),
)
UNSAYABLE = ((f"{M} --rateest RE1 --rateest-lt --rateest-bps 8", "no estimators"),)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Comparisons of one rate with a number."""
    rate = st.integers(0, 0xFFFFFFFF).map(lambda number: (0, number))
    common = {"name": st.just("RE1"), "mode": st.sampled_from(MODES), "negated": st.booleans()}
    return [st.builds(RateEstimate, octets=rate, **common), st.builds(RateEstimate, packets=rate, **common)]


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Target]]:
    """Estimators, those of one name all alike: a kernel takes no others."""
    spans = st.tuples(st.integers(0, 5), st.integers(1, 8))
    return [spans.map(lambda held: RateEst(f"{held[0]}in{held[1]}", *held))]
