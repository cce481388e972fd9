"""Cases: rules of icmp."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("4", "filter", "-p icmp --icmp-type any", "-p icmp -m icmp --icmp-type any", "meta l4proto 1 counter"),
    Case("4", "filter", "-p icmp ! --icmp-type any", "-p icmp -m icmp ! --icmp-type any", "icmp type != 0-255 counter"),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type echo-request",
        "-p icmp -m icmp --icmp-type 8",
        "icmp type echo-request counter",
    ),
    Case(
        "4",
        "filter",
        "-p icmp -m icmp --icmp-type PING",
        "-p icmp -m icmp --icmp-type 8",
        "icmp type echo-request counter",
    ),
    Case(
        "4", "filter", "-p icmp ! --icmp-type 0", "-p icmp -m icmp ! --icmp-type 0", "icmp type != echo-reply counter"
    ),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type fragmentation-needed",
        "-p icmp -m icmp --icmp-type 3/4",
        "icmp type . icmp code { destination-unreachable . frag-needed } counter",
    ),
    Case(
        "4",
        "filter",
        "-p icmp ! --icmp-type 3/4",
        "-p icmp -m icmp ! --icmp-type 3/4",
        "icmp type . icmp code != { destination-unreachable . frag-needed } counter",
    ),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type 3/0:255",
        "-p icmp -m icmp --icmp-type 3",
        "icmp type destination-unreachable counter",
    ),
    Case("4", "filter", "-p icmp --icmp-type 255/7", "-p icmp -m icmp --icmp-type any", "meta l4proto 1 counter"),
    Case(
        "4",
        "filter",
        "-p icmp --icmp-type 42/200",
        "-p icmp -m icmp --icmp-type 42/200",
        "icmp type . icmp code { 42 . 200 } counter",
    ),
    Case(
        "6",
        "filter",
        "-p ipv6-icmp --icmpv6-type packet-too-big",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 2",
        "icmpv6 type packet-too-big counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 -m icmp6 --icmpv6-type neighbor-solicitation",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 135",
        "icmpv6 type nd-neighbor-solicit counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 ! --icmpv6-type 1/4",
        "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4",
        "icmpv6 type . icmpv6 code != { destination-unreachable . port-unreachable } counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 --icmpv6-type unknown-option",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 4/2",
        "icmpv6 type . icmpv6 code { parameter-problem . 2 } counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 --icmpv6-type 255",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 255",
        "icmpv6 type 255 counter",
    ),
    Case(
        "6",
        "filter",
        "-p icmpv6 -m ipv6-icmp --icmpv6-type 143",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 143",
        "icmpv6 type mld2-listener-report counter",
    ),
)
