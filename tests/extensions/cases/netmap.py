"""Cases: rules of NETMAP."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.netmap import Netmap
from meshfw.model import Family, Network
from tests.extensions.case import Case

_OUT = "nat/OUTPUT"

CASES = (
    Case(
        "4",
        "nat/PREROUTING",
        "-d 192.0.2.0/24 -j NETMAP --to 10.0.0.5/24",
        "-d 192.0.2.0/24 -j NETMAP --to 10.0.0.0/24",
        "ip daddr 192.0.2.0/24 counter dnat prefix to 10.0.0.0/24",
    ),
    Case(
        "4", "nat/OUTPUT", "-j NETMAP --to 10.0.0.5", "-j NETMAP --to 10.0.0.5/32", "counter dnat prefix to 10.0.0.5/32"
    ),
    Case("4", "nat/POSTROUTING", "-j NETMAP --to 10.0.0.0/8", "", "counter snat prefix to 10.0.0.0/8"),
    Case("6", "nat/INPUT", "-j NETMAP --to fd00::/64", "", "counter snat prefix to fd00::/64"),
    Case("6", "nat/PREROUTING", "-j NETMAP --to fd00::5/128", "", "counter dnat prefix to fd00::5/128"),
)
REFUSED = (
    ("-j NETMAP", "--to"),
    ("-j NETMAP --to 10.0.0.0/255.0.255.0", "gaps"),
    ("-j NETMAP --to 10.1", "not an IPv4"),
)
DIFFERENT = (
    ("-j NETMAP --to 10.0.0.0/8", "-j NETMAP --to 10.0.0.0/16"),
    ("-j NETMAP --to 10.0.0.1", "-j DNAT --to-destination 10.0.0.1"),
)
UNSAYABLE = (("-j NETMAP --to 10.0.0.0/8", "isn't known from which hook"),)


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    full = (1 << family.bits) - 1
    return [
        st.tuples(st.integers(0, full), st.integers(0, family.bits)).map(
            lambda pair: Netmap(Network(family, pair[0] & (full ^ full >> pair[1]), full ^ full >> pair[1]))
        )
    ]
