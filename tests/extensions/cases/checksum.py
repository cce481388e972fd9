"""Cases: rules of CHECKSUM."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case(
        "46",
        "mangle/POSTROUTING",
        "-p udp --dport 68 -j CHECKSUM --checksum-fill",
        "-p udp -m udp --dport 68 -j CHECKSUM --checksum-fill",
        None,
    ),
)
REFUSED = (("-j CHECKSUM", "--checksum-fill"),)
UNSAYABLE = (("-j CHECKSUM --checksum-fill", "fills in"),)
