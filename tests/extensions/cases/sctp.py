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
    Case("46", "filter", "-p sctp --sport :", "-p sctp -m sctp --sport 0:65535", "meta l4proto 132 counter"),
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
    Case(
        "46",
        "filter",
        "-p sctp --chunk-types all INIT,ECN_CWR",
        "-p sctp -m sctp --chunk-types all INIT,ECN_CWR",
        "meta l4proto 132 sctp chunk init exists sctp chunk cwr exists counter",
    ),
    Case(
        "46",
        "filter",
        "-p sctp --dport 9 ! --chunk-types any DATA,SHUTDOWN_COMPLETE",
        "-p sctp -m sctp --dport 9 ! --chunk-types any DATA,SHUTDOWN_COMPLETE",
        "sctp dport 9 sctp chunk data missing sctp chunk shutdown-complete missing counter",
    ),
    Case("46", "filter", "-p sctp ! --sport :", "-p sctp -m sctp ! --sport 0:65535", "sctp sport != 0-65535 counter"),
)
REFUSED = (("-p sctp --sport 4:3", "ascending"),)
EQUAL = (
    ("-p sctp --chunk-types any INIT", "-p sctp --chunk-types all INIT"),
    ("-p sctp ! --chunk-types any INIT,DATA", "-p sctp ! --chunk-types any INIT -m sctp ! --chunk-types all DATA"),
)
DIFFERENT = (
    ("-p sctp --chunk-types any INIT", "-p sctp --chunk-types only INIT"),
    ("-p sctp --chunk-types any INIT", "-p sctp ! --chunk-types any INIT"),
    ("-p sctp --chunk-types any INIT,DATA", "-p sctp ! --chunk-types any INIT,DATA"),
)
UNSAYABLE = (
    ("-p sctp --chunk-types only INIT", "what all chunks are"),
    ("-p sctp --chunk-types any INIT,DATA", "rule for each"),
    ("-p sctp ! --chunk-types all INIT,DATA", "rule for each"),
    ("-p sctp --chunk-types all DATA:B", "first chunk"),
    ("-p sctp --chunk-types all PAD", "no name"),
)
PACKETS = (
    "-p sctp",
    "-p sctp --dport 9",
    "-p sctp ! --sport :",
    "-p sctp --chunk-types any INIT",
    "-p sctp ! --chunk-types any INIT",
    "-p sctp --chunk-types all DATA,SACK",
    "-p sctp --dport 9 ! --chunk-types any DATA,SACK",
    "-p sctp ! --chunk-types all COOKIE_ECHO",
)
