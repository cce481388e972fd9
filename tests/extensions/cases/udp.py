"""Cases: rules of udp."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-p udp --dport 53", "-p udp -m udp --dport 53", "udp dport 53 counter"),
    Case(
        "46",
        "filter",
        "-p udp ! --sport 53 --dport 1024:65535",
        "-p udp -m udp ! --sport 53 --dport 1024:65535",
        "udp sport != 53 udp dport 1024-65535 counter",
    ),
    Case("46", "filter", "-p udp -m udp --source-port domain", "-p udp -m udp --sport 53", "udp sport 53 counter"),
    Case("46", "filter", "-p udp -m udp", "", "meta l4proto 17 counter"),
    Case("46", "filter", "-p udp --sport 4:3", "-p udp -m udp --sport 4:3", "udp sport != 0-65535 counter"),
    Case("46", "filter", "-p udp ! --sport 4:3", "-p udp -m udp ! --sport 4:3", "meta l4proto 17 counter"),
    Case("46", "filter", "-p udp ! --sport :", "-p udp -m udp ! --sport 0:65535", "udp sport != 0-65535 counter"),
)
EQUAL = (
    ("-p udp --sport 4:3", "-p udp ! --sport 0:65535"),
    ("-p udp ! --sport 4:3", "-p udp"),
)
DIFFERENT = (
    ("-p udp --sport 4:3", "-p udp --dport 4:3"),
    ("-p udp --sport 4:3", "-p udp --sport 3:4"),
)
PACKETS = ("-p udp --sport 204:203", "-p udp ! --sport 204:203", "-p udp ! --sport :")
