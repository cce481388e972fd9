"""Cases: rules of sctp."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-p sctp --dport 36412", "-p sctp -m sctp --dport 36412", "sctp dport 36412 counter"),
    Case(
        "46",
        "filter",
        "-p sctp ! --sport 1:2 --dport 3:",
        "-p sctp -m sctp ! --sport 1:2 --dport 3:65535",
        "sctp sport != 1-2 sctp dport 3-65535 counter",
    ),
    Case("46", "filter", "-p sctp --sport :", "-p sctp -m sctp --sport 0:65535", "sctp sport 0-65535 counter"),
    Case(
        "46", "filter", "-p sctp --chunk-types any INIT,DATA:Be", "-p sctp -m sctp --chunk-types any DATA:Be,INIT", None
    ),
    Case(
        "46",
        "filter",
        "-p sctp ! --chunk-types only shutdown_complete:t,abort:T",
        "-p sctp -m sctp ! --chunk-types only ABORT:T,SHUTDOWN_COMPLETE:t",
        None,
    ),
    Case(
        "46",
        "filter",
        "-p sctp --dport 9 --chunk-types all ALL",
        "-p sctp -m sctp --dport 9 --chunk-types all ALL",
        None,
    ),
    Case("46", "filter", "-p sctp --chunk-types any NONE", "-p sctp -m sctp --chunk-types any NONE", None),
)
