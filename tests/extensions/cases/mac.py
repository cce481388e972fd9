"""Cases: rules of mac."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case(
        "46",
        "filter",
        "-m mac --mac-source AA:BB:CC:0D:EE:FF",
        "-m mac --mac-source aa:bb:cc:0d:ee:ff",
        "ether saddr aa:bb:cc:0d:ee:ff counter",
    ),
    Case(
        "46",
        "filter",
        "-m mac ! --mac-source 0:1:2:3:4:5",
        "-m mac ! --mac-source 00:01:02:03:04:05",
        "ether saddr != 00:01:02:03:04:05 counter",
    ),
)
