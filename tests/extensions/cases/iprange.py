"""Cases: rules of iprange."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("4", "filter", "-m iprange --src-range 10.0.0.5-10.0.0.9", "", "ip saddr 10.0.0.5-10.0.0.9 counter"),
    Case(
        "4",
        "filter",
        "-m iprange ! --dst-range 10.0.0.0-10.0.0.255 --src-range 10.0.0.1",
        "-m iprange --src-range 10.0.0.1-10.0.0.1 ! --dst-range 10.0.0.0-10.0.0.255",
        "ip saddr 10.0.0.1-10.0.0.1 ip daddr != 10.0.0.0-10.0.0.255 counter",
    ),
    Case("6", "filter", "-m iprange ! --src-range fd00::5-fd00::9", "", "ip6 saddr != fd00::5-fd00::9 counter"),
    Case("4", "filter", "-m iprange --src-range 0.0.0.0-255.255.255.255", "", "counter"),
    Case(
        "4",
        "filter",
        "-m iprange ! --src-range 0.0.0.0-255.255.255.255",
        "",
        "ip saddr != 0.0.0.0-255.255.255.255 counter",
    ),
    Case("4", "filter", "-m iprange --dst-range 10.0.0.9-10.0.0.1", "", "ip daddr != 0.0.0.0-255.255.255.255 counter"),
    Case("4", "filter", "-m iprange ! --dst-range 10.0.0.9-10.0.0.1", "", "counter"),
)
EQUAL = (
    ("-m iprange ! --src-range 10.0.0.9-10.0.0.1", ""),
    ("-m iprange --src-range 10.0.0.9-10.0.0.1", "-m iprange ! --src-range 0.0.0.0-255.255.255.255"),
)
DIFFERENT = (("-m iprange --src-range 10.0.0.9-10.0.0.1", "-m iprange --src-range 10.0.0.1-10.0.0.9"),)
