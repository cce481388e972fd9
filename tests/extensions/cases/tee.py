"""Cases: rules of TEE."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.tee import Tee
from meshfw.model import Family, Interface, Network
from tests.extensions.case import Case

CASES = (
    Case("4", "filter", "-j TEE --gateway 192.0.2.1", "", "counter dup to 192.0.2.1"),
    Case("6", "mangle", "-j TEE --gateway 2001:db8:0::1", "-j TEE --gateway 2001:db8::1", "counter dup to 2001:db8::1"),
    Case(
        "4",
        "mangle/PREROUTING",
        "-j TEE --oif lo --gateway 192.0.2.1",
        "-j TEE --gateway 192.0.2.1 --oif lo",
        'counter dup to 192.0.2.1 device "lo"',
    ),
)
REFUSED = (
    ("-j TEE", "--gateway"),
    ("-j TEE ! --gateway 192.0.2.1", "negated"),
    ("-j TEE --gateway 0.0.0.0", "all zeros"),
    ("-j TEE --gateway 192.0.2.0/24", "not one address"),
    ("-j TEE --gateway nowhere", "nowhere"),
)
DIFFERENT = (
    ("-j TEE --gateway 192.0.2.1", "-j TEE --gateway 192.0.2.2"),
    ("-j TEE --gateway 192.0.2.1", "-j TEE --gateway 192.0.2.1 --oif lo"),
)


def targets(family: Family, protocol: int | None) -> list[Any]:
    """Copies to a neighbour, by the one interface that is everywhere or by any."""
    full = (1 << family.bits) - 1
    gateway = st.integers(1, full).map(lambda address: Network(family, address, full))
    return [st.builds(Tee, gateway, st.sampled_from((None, Interface("lo"))))]
