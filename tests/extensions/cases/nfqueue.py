"""Cases: rules of NFQUEUE and QUEUE."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.nfqueue import NfQueue
from meshfw.model import Family
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-j NFQUEUE", "-j NFQUEUE --queue-num 0", "counter queue to 0"),
    Case("46", "nat/OUTPUT", "-j NFQUEUE --queue-num 65535", "", "counter queue to 65535"),
    Case(
        "46",
        "mangle",
        "-j NFQUEUE --queue-bypass",
        "-j NFQUEUE --queue-num 0 --queue-bypass",
        "counter queue flags bypass to 0",
    ),
    Case("46", "filter", "-j NFQUEUE --queue-balance 0:65534", "", "counter queue to 0-65534"),
    Case(
        "46",
        "filter",
        "-j NFQUEUE --queue-cpu-fanout --queue-bypass --queue-balance 1:",
        "-j NFQUEUE --queue-balance 1:65535 --queue-bypass --queue-cpu-fanout",
        "counter queue flags bypass,fanout to 1-65535",
    ),
    Case(
        "46",
        "filter",
        "-j NFQUEUE --queue-balance :6 --queue-cpu-fanout",
        "-j NFQUEUE --queue-balance 0:6 --queue-cpu-fanout",
        "counter queue flags fanout to 0-6",
    ),
)
UNHELD = (Case("46", "filter", "-p tcp -j QUEUE", "", "meta l4proto 6 counter queue to 0"),)
REFUSED = (
    ("-j NFQUEUE --queue-num 65536", "65536"),
    ("-j NFQUEUE --queue-balance 4", "'4'"),
    ("-j NFQUEUE --queue-balance 4:4", "4:4"),
    ("-j NFQUEUE --queue-balance :", "65535 queues"),
    ("-j NFQUEUE --queue-num 1 --queue-balance 1:2", "beside"),
    ("-j NFQUEUE --queue-num 1 --queue-cpu-fanout", "needs --queue-balance"),
    ("-j QUEUE --queue-num 1", "unknown option"),
)
EQUAL = (
    ("-j NFQUEUE", "-j NFQUEUE --queue-num 0"),
    ("-j QUEUE", "-j NFQUEUE"),
)
DIFFERENT = (
    ("-j NFQUEUE", "-j NFQUEUE --queue-bypass"),
    ("-j NFQUEUE --queue-balance 0:6", "-j NFQUEUE --queue-balance 0:6 --queue-cpu-fanout"),
    ("-j QUEUE", "-j NFQUEUE --queue-num 1"),
)


def targets(family: Family, protocol: int | None) -> list[Any]:
    """Queues of a program."""
    number = st.integers(0, 9) | st.integers(0, 0xFFFF)

    def queue(ends: tuple[int, int], bypass: bool, fanout: bool) -> NfQueue:
        first, last = sorted(ends)
        last = min(last, first + 0xFFFE)
        return NfQueue(first=first, last=last, bypass=bypass, fanout=fanout and first < last)

    return [st.builds(queue, st.tuples(number, number), st.booleans(), st.booleans())]
