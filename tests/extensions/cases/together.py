"""Cases: rules with several extensions together."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case(
        "46",
        "filter",
        "-p tcp -m limit --limit 3/sec -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
        "",
        "meta l4proto 6 limit rate 3/second tcp dport 22 ct state new counter accept",
    ),
    Case(
        "46",
        "filter",
        "-p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -m limit --limit 3/sec -j LOG --log-prefix ssh",
        "",
        'ct state new tcp dport 22 limit rate 3/second counter log prefix "ssh"',
    ),
    Case(
        "4",
        "filter",
        "-p udp -m multiport --dports 53,853 -m mark --mark 1 -m udp --sport 1024: -j REJECT",
        "-p udp -m multiport --dports 53,853 -m mark --mark 0x1 -m udp --sport 1024:65535 -j REJECT "
        "--reject-with icmp-port-unreachable",
        "udp dport { 53, 853 } meta mark 0x00000001 udp sport 1024-65535 counter reject",
    ),
    Case(
        "6",
        "filter",
        "-p udp -m multiport --dports 53,853 -m mark --mark 1 -m udp --sport 1024: -j REJECT",
        "-p udp -m multiport --dports 53,853 -m mark --mark 0x1 -m udp --sport 1024:65535 -j REJECT "
        "--reject-with icmp6-port-unreachable",
        "udp dport { 53, 853 } meta mark 0x00000001 udp sport 1024-65535 counter reject",
    ),
    Case(
        "4",
        "filter",
        "-s 10.0.0.0/8 -m iprange --src-range 10.0.0.5-10.0.0.9 -j DROP",
        "",
        "ip saddr 10.0.0.0/8 ip saddr 10.0.0.5-10.0.0.9 counter drop",
    ),
)
