"""Cases: rules of TRACE."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "raw/PREROUTING", "-j TRACE", "", "counter meta nftrace set 1"),
    Case("46", "raw/OUTPUT", "-p tcp -j TRACE", "", "meta l4proto 6 counter meta nftrace set 1"),
)
REFUSED = (("-j TRACE --much", "unknown option"),)
