"""Cases: rules of quota."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.quota import Quota
from meshfw.model import Family, Match, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m quota --quota 0", "", "quota 0 bytes counter"),
    Case("46", "filter", "-m quota ! --quota 111", "", "quota over 111 bytes counter"),
    Case("46", "filter", "-m quota --quota 0x600", "-m quota --quota 1536", "quota 1536 bytes counter"),
    Case("46", "filter", "-m quota --quota 3072", "", "quota 3 kbytes counter"),
    Case("46", "filter", "-m quota ! --quota 1048576", "", "quota over 1 mbytes counter"),
    Case("46", "filter", "-m quota --quota 9223372036854775807", "", "quota 9223372036854775807 bytes counter"),
    Case("46", "filter", "-m quota --quota 18446744073709551615", "", None),
)
REFUSED = (("-m quota", "--quota"), ("-m quota --quota 18446744073709551616", "18446744073709551616"))
EQUAL = (("-m quota --quota 0x10", "-m quota --quota 16"),)
DIFFERENT = (
    ("-m quota --quota 16", "-m quota ! --quota 16"),
    ("-m quota --quota 16 -m mark --mark 1", "-m mark --mark 1 -m quota --quota 16"),
)
UNSAYABLE = (("-m quota ! --quota 9223372036854775808", "nft counts up to"),)
PACKETS = ("-m quota --quota 500", "-m quota ! --quota 500", "-p udp -m quota --quota 87", "-m quota --quota 0")


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Quotas."""
    octets = (
        st.integers(0, 10_000) | st.integers(0, 1 << 43).map(lambda count: count << 10) | st.integers(0, (1 << 64) - 1)
    )
    return [(octets | octets.map(Not)).map(Quota)]
