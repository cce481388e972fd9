"""Cases: rules of SNPT and DNPT."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.npt import PREFIX_MAX, Dnpt, Snpt
from meshfw.model import Family, Network
from tests.extensions.case import Case

_PREFIXES = "--src-pfx fd00:1::/64 --dst-pfx 2001:db8::/48"

_SHORT = "-j SNPT --src-pfx fe00::/7 --dst-pfx fd00::/16"

CASES = (
    Case("6", "mangle/POSTROUTING", f"-j SNPT {_PREFIXES}", "", None),
    Case(
        "6",
        "mangle/INPUT",
        "-j SNPT --dst-pfx fd00::/ffff:: --src-pfx fe00::/7",
        "-j SNPT --src-pfx fe00::/7 --dst-pfx fd00::/16",
        None,
    ),
    Case("6", "mangle/PREROUTING", f"-j DNPT {_PREFIXES}", "", None),
    Case("6", "mangle/OUTPUT", f"-j DNPT {_PREFIXES}", "", None),
)


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    if family is Family.IPV4:
        return []
    full = (1 << 128) - 1
    prefix = st.tuples(st.integers(0, full), st.integers(1, PREFIX_MAX)).map(
        lambda pair: Network(Family.IPV6, pair[0] & (full ^ full >> pair[1]), full ^ full >> pair[1])
    )
    return [st.builds(Snpt, prefix, prefix), st.builds(Dnpt, prefix, prefix)]
