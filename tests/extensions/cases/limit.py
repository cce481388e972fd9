"""Cases: rules of limit."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m limit", "-m limit --limit 3/hour", "limit rate 3/hour counter"),
    Case("46", "filter", "-m limit --limit 5/minute", "-m limit --limit 5/min", "limit rate 5/minute counter"),
    Case(
        "46",
        "filter",
        "-m limit --limit 60/min --limit-burst 7",
        "-m limit --limit 1/sec --limit-burst 7",
        "limit rate 1/second burst 7 packets counter",
    ),
    Case("46", "filter", "-m limit --limit 24/day", "-m limit --limit 1/hour", "limit rate 1/hour counter"),
    Case("46", "filter", "-m limit --limit 7", "-m limit --limit 7/sec", "limit rate 7/second counter"),
    Case("46", "filter", "-m limit --limit 9999/s", "-m limit --limit 10000/sec", "limit rate 10000/second counter"),
    Case(
        "46",
        "filter",
        "-m limit --limit 7777/h --limit-burst 5",
        "-m limit --limit 7777/hour",
        "limit rate 7777/hour counter",
    ),
    Case("46", "filter", "-m limit --limit 1/day", "", "limit rate 1/day counter"),
    Case(
        "46", "filter", "-m limit --limit 1/day --limit-burst 10000", "", "limit rate 1/day burst 10000 packets counter"
    ),
    Case("46", "filter", "-m limit --limit 1/day --limit-burst 1", "", "limit rate 1/day burst 1 packets counter"),
)
