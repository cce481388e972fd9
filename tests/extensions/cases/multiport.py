"""Cases: rules of multiport."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-p tcp -m multiport --dports 443,80,80", "", "tcp dport { 80, 443 } counter"),
    Case("46", "filter", "-p udp -m multiport ! --sports 53,1024:65535", "", "udp sport != { 53, 1024-65535 } counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 80", "", "tcp dport 80 counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 82,80,81", "", "tcp dport { 80, 81, 82 } counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 80,81,90:100", "", "tcp dport { 80-81, 90-100 } counter"),
    Case("46", "filter", "-p tcp -m multiport --dports 80:90,85:95", "", "tcp dport 80-95 counter"),
    Case(
        "46",
        "filter",
        "-p tcp -m multiport --ports 80,443",
        "",
        "tcp sport . tcp dport { 80 . 0-65535, 443 . 0-65535, 0-79 . 80, 0-79 . 443, 81-442 . 80, "
        "81-442 . 443, 444-65535 . 80, 444-65535 . 443 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p sctp -m multiport ! --ports 80,443",
        "",
        "sctp sport != { 80, 443 } sctp dport != { 80, 443 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p udplite -m multiport --source-ports 5",
        "-p udplite -m multiport --sports 5",
        "udplite sport 5 counter",
    ),
    Case(
        "46",
        "filter",
        "-p dccp -m multiport --destination-ports 5,6",
        "-p dccp -m multiport --dports 5,6",
        "dccp dport { 5, 6 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp -m multiport --ports 1:9",
        "",
        "tcp sport . tcp dport { 1-9 . 0-65535, 0 . 1-9, 10-65535 . 1-9 } counter",
    ),
    Case("46", "filter", "-p tcp -m multiport --dports 0:65535", "", "meta l4proto 6 counter"),
    Case("46", "filter", "-p tcp -m multiport ! --dports 0:65535", "", "tcp dport != 0-65535 counter"),
    Case(
        "46",
        "filter",
        "-p tcp -m multiport --dports ssh,domain",
        "-p tcp -m multiport --dports 22,53",
        "tcp dport { 22, 53 } counter",
    ),
)

PACKETS = ("-p udp -m multiport ! --dports 0:65535", "-p udp -m multiport ! --ports 0:65535")
