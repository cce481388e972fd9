"""Cases: rules of LOG, NFLOG and AUDIT."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.log import Audit, NfLog
from meshfw.model import Family
from tests.extensions.case import Case

LONG = "x" * 63

CASES = (
    Case("46", "filter", "-j LOG", "", "counter log"),
    Case(
        "46",
        "mangle",
        '-j LOG --log-prefix "dropped: " --log-level info',
        '-j LOG --log-prefix "dropped: " --log-level 6',
        'counter log prefix "dropped: " level info',
    ),
    Case("46", "filter", "-j LOG --log-level 4", "-j LOG", "counter log"),
    Case(
        "46",
        "filter",
        "-j LOG --log-level panic --log-uid",
        "-j LOG --log-level 0 --log-uid",
        "counter log level emerg flags skuid",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options",
        "counter log flags tcp sequence,options",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-macdecode --log-ip-options",
        "-j LOG --log-ip-options --log-macdecode",
        "counter log flags ip options flags ether",
    ),
    Case(
        "46",
        "filter",
        "-j LOG --log-macdecode --log-ip-options --log-uid --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode",
        "counter log flags all",
    ),
    Case(
        "46",
        "filter",
        '-j LOG --log-prefix "cut after its twenty-ninth character"',
        '-j LOG --log-prefix "cut after its twenty-ninth ch"',
        'counter log prefix "cut after its twenty-ninth ch"',
    ),
    Case(
        "46",
        "filter",
        '-j LOG --log-prefix "a\\\\b\'c;{}#%"',
        '-j LOG --log-prefix "a\\\\b\\\'c;{}#%"',
        'counter log prefix "a\\b\'c;{}#%"',
    ),
    Case("46", "filter", '-j LOG --log-prefix "costs $5"', "", None),
    Case("46", "filter", '-j LOG --log-prefix "say \\"x\\""', "", None),
    Case(
        "46",
        "filter",
        "-j LOG --log-uid --log-tcp-options --log-tcp-sequence",
        "-j LOG --log-tcp-sequence --log-tcp-options --log-uid",
        "counter log flags tcp sequence,options flags skuid",
    ),
    Case("46", "filter", "-j LOG --log-tcp-sequence --log-uid", "", "counter log flags tcp sequence flags skuid"),
    Case("46", "filter", "-j NFLOG --nflog-group 0", "-j NFLOG", "counter log group 0"),
    Case(
        "46",
        "filter",
        '-j NFLOG --nflog-threshold 2 --nflog-size 6 --nflog-group 5 --nflog-prefix "API0|a/b"',
        '-j NFLOG --nflog-prefix "API0|a/b" --nflog-group 5 --nflog-size 6 --nflog-threshold 2',
        'counter log prefix "API0|a/b" group 5 snaplen 6 queue-threshold 2',
    ),
    Case("46", "nat/OUTPUT", "-j NFLOG --nflog-size 0", "", "counter log group 0 snaplen 0"),
    Case(
        "46",
        "filter",
        f"-j NFLOG --nflog-prefix {LONG}yy",
        f"-j NFLOG --nflog-prefix {LONG}",
        f'counter log prefix "{LONG}" group 0',
    ),
    Case("46", "filter", "-j NFLOG --nflog-range 80", "", "counter log group 0"),
    Case("46", "filter", '-j NFLOG --nflog-prefix "$"', "", None),
    Case("46", "filter", "-j AUDIT --type ACCEPT", "-j AUDIT --type accept", "counter log level audit"),
    Case("46", "filter", "-j AUDIT --type drop", "", "counter log level audit"),
    Case("46", "filter", "-j AUDIT --type reject", "", "counter log level audit"),
)
REFUSED = (
    ("-j NFLOG --nflog-group 65536", "65536"),
    ("-j NFLOG --nflog-range -1", "-1"),
    ("-j NFLOG --nflog-size 4294967296", "4294967296"),
    ("-j NFLOG --nflog-threshold 65536", "65536"),
    ("-j NFLOG --nflog-size 1 --nflog-range 1", "beside"),
    ('-j NFLOG --nflog-prefix ""', "at least one"),
    ("-j AUDIT", "--type"),
    ("-j AUDIT --type wrong", "wrong"),
)
EQUAL = (
    ("-j NFLOG --nflog-group 0 --nflog-threshold 0", "-j NFLOG"),
    ("-j NFLOG --nflog-range 0", "-j NFLOG"),
    ("-j AUDIT --type Drop", "-j AUDIT --type drop"),
)
DIFFERENT = (
    ("-j NFLOG", "-j LOG"),
    ("-j NFLOG --nflog-size 0", "-j NFLOG"),
    ("-j NFLOG --nflog-group 1", "-j NFLOG --nflog-group 2"),
    ("-j NFLOG --nflog-range 1", "-j NFLOG --nflog-size 1"),
    ("-j AUDIT --type drop", "-j AUDIT --type accept"),
)


def targets(family: Family, protocol: int | None) -> list[Any]:
    """Records for a group of programs and for the audit."""
    number = st.integers(0, 9) | st.integers(0, 0xFFFF)
    text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
    return [
        st.builds(
            NfLog,
            prefix=text,
            group=number,
            size=st.none() | st.integers(0, 0xFFFFFFFF),
            threshold=number,
        ),
        st.builds(Audit, st.sampled_from(("accept", "drop", "reject"))),
    ]
