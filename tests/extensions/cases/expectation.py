"""Cases: rules of helper."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.expectation import Expected
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m helper --helper ftp", "", 'ct helper "ftp" counter'),
    Case("46", "filter", "-m helper --helper Q.931", '-m helper --helper "Q.931"', 'ct helper "Q.931" counter'),
    Case("46", "filter", "-m helper ! --helper irc", "", None),
    Case("46", "filter", "-m helper --helper ftp-2121", "", None),
    Case("46", "filter", "-m helper --helper snmp_trap", "", None),
    Case("46", "filter", '-m helper --helper ""', "", None),
    Case("46", "filter", '-m helper --helper "a b"', "", 'ct helper "a b" counter'),
    Case(
        "46",
        "filter",
        "-m helper --helper a-name-of-more-than-twenty-nine-bytes",
        "-m helper --helper a-name-of-more-than-twenty-ni",
        None,
    ),
)
REFUSED = (("-m helper", "--helper"), ("-m helper --helper ftp --helper irc", "twice"))
DIFFERENT = (
    ("-m helper --helper ftp", "-m helper --helper irc"),
    ("-m helper --helper ftp", "-m helper ! --helper ftp"),
    ('-m helper --helper ""', ""),
)
UNSAYABLE = (
    ("-m helper ! --helper ftp", "no helper expected"),
    ("-m helper --helper ftp-2121", "helper ftp for it as well"),
    ('-m helper --helper ""', "any helper"),
)
PACKETS = ("-m helper --helper ftp",)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    name = st.sampled_from(("", "ftp", "ftp-2121", "Q.931", "sip")) | st.text("ab -_.", max_size=16)
    return [st.builds(Expected, name | name.map(Not))]
