"""Cases: rules of IDLETIMER."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.idletimer import TIMEOUT_MAX, IdleTimer
from meshfw.model import Family, Target
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-j IDLETIMER --label foo --timeout 42", "-j IDLETIMER --timeout 42 --label foo", None),
    Case(
        "46",
        "filter",
        "-j IDLETIMER --timeout 0x10 --label bar --alarm",
        "-j IDLETIMER --timeout 16 --label bar --alarm",
        None,
    ),
)
REFUSED = (
    ("-j IDLETIMER", "--timeout"),
    ("-j IDLETIMER --timeout 42", "--label"),
    ("-j IDLETIMER --timeout 0 --label a", "between 1"),
    (f"-j IDLETIMER --timeout {TIMEOUT_MAX + 1} --label a", str(TIMEOUT_MAX)),
    ("-j IDLETIMER --timeout 1 --label power", "/sys"),
    (f"-j IDLETIMER --timeout 1 --label {'x' * 28}", "27"),
)
DIFFERENT = (
    ("-j IDLETIMER --timeout 1 --label a", "-j IDLETIMER --timeout 2 --label a"),
    ("-j IDLETIMER --timeout 1 --label a", "-j IDLETIMER --timeout 1 --label a --alarm"),
)
UNSAYABLE = (("-j IDLETIMER --timeout 1 --label a", "timer"),)


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Target]]:
    """Timers, those of one label all of one kind: a kernel takes no others."""
    kind = st.sampled_from((("a", False), ("eth0.5", False), ("b", True), ("eth0.6", True)))
    return [st.tuples(st.integers(1, TIMEOUT_MAX), kind).map(lambda held: IdleTimer(held[0], *held[1]))]
