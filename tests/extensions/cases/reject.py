"""Cases: rules of reject."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("4", "filter", "-j REJECT", "-j REJECT --reject-with icmp-port-unreachable", "counter reject"),
    Case("6", "filter", "-j REJECT", "-j REJECT --reject-with icmp6-port-unreachable", "counter reject"),
    Case(
        "46",
        "filter",
        "-p tcp -j REJECT --reject-with tcp",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "meta l4proto 6 counter reject with tcp reset",
    ),
    Case("4", "filter", "-j REJECT --reject-with icmp-port-unreachable", "", "counter reject"),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with net-unreach",
        "-j REJECT --reject-with icmp-net-unreachable",
        "counter reject with icmp net-unreachable",
    ),
    Case(
        "4", "filter", "-j REJECT --reject-with icmp-host-unreachable", "", "counter reject with icmp host-unreachable"
    ),
    Case(
        "4", "filter", "-j REJECT --reject-with icmp-proto-unreachable", "", "counter reject with icmp prot-unreachable"
    ),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with net-prohib",
        "-j REJECT --reject-with icmp-net-prohibited",
        "counter reject with icmp net-prohibited",
    ),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with ICMP-HOST-PROHIBITED",
        "-j REJECT --reject-with icmp-host-prohibited",
        "counter reject with icmp host-prohibited",
    ),
    Case(
        "4",
        "filter",
        "-j REJECT --reject-with admin-prohib",
        "-j REJECT --reject-with icmp-admin-prohibited",
        "counter reject with icmp admin-prohibited",
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with no-route",
        "-j REJECT --reject-with icmp6-no-route",
        "counter reject with icmpv6 no-route",
    ),
    Case(
        "6", "filter", "-j REJECT --reject-with icmp6-adm-prohibited", "", "counter reject with icmpv6 admin-prohibited"
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with addr-unreach",
        "-j REJECT --reject-with icmp6-addr-unreachable",
        "counter reject with icmpv6 addr-unreachable",
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with policy-fail",
        "-j REJECT --reject-with icmp6-policy-fail",
        "counter reject with icmpv6 policy-fail",
    ),
    Case(
        "6",
        "filter",
        "-j REJECT --reject-with reject-route",
        "-j REJECT --reject-with icmp6-reject-route",
        "counter reject with icmpv6 reject-route",
    ),
)
