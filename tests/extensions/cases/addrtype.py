"""Cases: rules of addrtype."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m addrtype --dst-type LOCAL", "", "fib daddr type local counter"),
    Case(
        "4",
        "filter",
        "-m addrtype ! --src-type local --dst-type UNICAST,BROADCAST",
        "-m addrtype ! --src-type LOCAL --dst-type UNICAST,BROADCAST",
        "fib saddr type != local fib daddr type { unicast, broadcast } counter",
    ),
    Case(
        "4",
        "filter",
        "-m addrtype --src-type THROW,LOCAL",
        "-m addrtype --src-type LOCAL,THROW",
        "fib saddr type { local, 9 } counter",
    ),
    Case("4", "filter", "-m addrtype --src-type NAT", "", "fib saddr type 10 counter"),
    Case(
        "46",
        "filter",
        "-m addrtype --dst-type ANYCAST,LOCAL --limit-iface-in",
        "-m addrtype --dst-type LOCAL,ANYCAST --limit-iface-in",
        "fib daddr . iif type { local, anycast } counter",
    ),
    Case(
        "46",
        "filter",
        "-m addrtype --src-type LOCAL --limit-iface-out",
        "",
        "fib saddr . oif type local counter",
    ),
    Case("46", "mangle", "-m addrtype ! --src-type LOCAL", "", "fib saddr type != local counter"),
    Case("6", "filter", "-m addrtype --dst-type MULTICAST", "", None),
)
