"""Cases: rules of conntrack."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case("46", "filter", "-m conntrack --ctstate RELATED,ESTABLISHED", "", "ct state established,related counter"),
    Case(
        "46",
        "filter",
        "-m conntrack --ctstate established,new,invalid",
        "-m conntrack --ctstate INVALID,NEW,ESTABLISHED",
        "ct state invalid,established,new counter",
    ),
    Case("46", "filter", "-m conntrack ! --ctstate NEW", "", "ct state invalid,established,related,untracked counter"),
    Case("46", "filter", "-m conntrack ! --ctstate INVALID,UNTRACKED", "", "ct state established,related,new counter"),
    Case("46", "filter", "-m conntrack --ctstate UNTRACKED", "", "ct state untracked counter"),
    Case("46", "filter", "-m conntrack --ctstate DNAT", "", "ct status dnat counter"),
    Case(
        "46",
        "filter",
        "-m conntrack --ctstate DNAT,SNAT",
        "-m conntrack --ctstate SNAT,DNAT",
        "ct status snat,dnat counter",
    ),
    Case("46", "filter", "-m conntrack --ctstate ESTABLISHED,DNAT", "", None),
    Case("46", "filter", "-m conntrack ! --ctstate DNAT", "", None),
    Case("46", "filter", "-m conntrack --ctproto tcp", "-m conntrack --ctproto 6", "ct protocol 6 counter"),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctproto 17 --ctdir reply",
        "-m conntrack ! --ctproto 17 --ctdir REPLY",
        "ct protocol != 17 ct direction reply counter",
    ),
    Case(
        "4",
        "filter",
        "-m conntrack --ctorigsrc 10.0.0.1 --ctorigdst 10.0.0.0/8",
        "",
        "ct original ip saddr 10.0.0.1 ct original ip daddr 10.0.0.0/8 counter",
    ),
    Case(
        "4",
        "filter",
        "-m conntrack ! --ctreplsrc 10.0.0.1 ! --ctrepldst 10.1.0.0/16",
        "",
        "ct reply ip saddr != 10.0.0.1 ct reply ip daddr != 10.1.0.0/16 counter",
    ),
    Case(
        "6",
        "filter",
        "-m conntrack --ctorigsrc fd00::1 --ctorigdst fd00::/8",
        "",
        "ct original ip6 saddr fd00::1 ct original ip6 daddr fd00::/8 counter",
    ),
    Case(
        "6",
        "filter",
        "-m conntrack ! --ctreplsrc fd00::1 ! --ctrepldst fd00:1::/32",
        "",
        "ct reply ip6 saddr != fd00::1 ct reply ip6 daddr != fd00:1::/32 counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp -m conntrack --ctorigsrcport 1024: --ctorigdstport 80",
        "-p tcp -m conntrack --ctorigsrcport 1024:65535 --ctorigdstport 80",
        "meta l4proto 6 ct original proto-src 1024-65535 ct original proto-dst 80 counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack --ctproto 17 ! --ctreplsrcport 53 --ctrepldstport 1:9",
        "",
        "ct protocol 17 ct reply proto-src != 53 ct reply proto-dst 1-9 counter",
    ),
    Case("46", "filter", "-m conntrack --ctorigdstport 80", "", None),
    Case(
        "46",
        "filter",
        "-p tcp --dport 80 -m conntrack --ctproto 6 --ctorigdstport 81",
        "-p tcp -m tcp --dport 80 -m conntrack --ctproto 6 --ctorigdstport 81",
        "tcp dport 80 ct protocol 6 ct original proto-dst 81 counter",
    ),
    Case("46", "filter", "-p tcp -m conntrack --ctproto 6 -m tcp --dport 80", "", None),
    Case("46", "filter", "-p tcp -m conntrack --ctorigdstport 81 -m tcp --dport 80", "", None),
    Case(
        "46",
        "filter",
        "-m conntrack --ctstatus ASSURED,EXPECTED",
        "-m conntrack --ctstatus EXPECTED,ASSURED",
        "ct status expected,assured counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctstatus ASSURED,CONFIRMED,SEEN_REPLY",
        "-m conntrack ! --ctstatus SEEN_REPLY,ASSURED,CONFIRMED",
        "ct status ! seen-reply,assured,confirmed counter",
    ),
    Case("46", "filter", "-m conntrack --ctstatus NONE", "", "ct status 0x0 counter"),
    Case("46", "filter", "-m conntrack ! --ctstatus NONE", "", "ct status ! 0x0 counter"),
    Case(
        "46",
        "filter",
        "-p tcp -m conntrack --ctorigdstport 4:3",
        "",
        "meta l4proto 6 ct original proto-dst != 0-65535 counter",
    ),
    Case(
        "46",
        "filter",
        "-p udp -m conntrack ! --ctreplsrcport 4:3",
        "",
        "meta l4proto 17 ct reply proto-src 0-65535 counter",
    ),
    Case("46", "filter", "-m conntrack --ctexpire 9:8", "", None),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED",
        "",
        "ct state ! invalid,established,related,new,untracked counter",
    ),
    Case("46", "filter", "-m conntrack --ctexpire 10:20", "", "ct expiration >= 10s ct expiration < 21s counter"),
    Case(
        "46",
        "filter",
        "-m conntrack --ctexpire 3600:",
        "-m conntrack --ctexpire 3600:4294967295",
        "ct expiration >= 1h counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack ! --ctexpire :90000",
        "-m conntrack ! --ctexpire 0:90000",
        "ct expiration >= 1d1h1s counter",
    ),
    Case("46", "filter", "-m conntrack ! --ctexpire 10:20", "", None),
    Case(
        "46",
        "filter",
        "-m conntrack --ctdir ORIGINAL --ctstate ESTABLISHED",
        "-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL",
        "ct state established ct direction original counter",
    ),
    Case(
        "46",
        "filter",
        "-m conntrack --ctdir ORIGINAL --ctstate INVALID",
        "-m conntrack --ctstate INVALID --ctdir ORIGINAL",
        None,
    ),
    Case(
        "46",
        "filter",
        "-m state --state ESTABLISHED,RELATED",
        "-m state --state RELATED,ESTABLISHED",
        "ct state established,related counter",
    ),
    Case("46", "filter", "-m state ! --state INVALID", "", "ct state established,related,new,untracked counter"),
    Case("46", "filter", "-m state --state n", "-m state --state NEW", "ct state new counter"),
)

EQUAL = (
    ("-m conntrack --ctexpire 0:", "-m conntrack ! --ctexpire 9:8"),
    ("-m conntrack --ctorigdstport 4:3", "-m conntrack ! --ctorigdstport 0:65535"),
)
DIFFERENT = (
    ("-m conntrack --ctorigdstport 4:3", "-m conntrack ! --ctorigdstport 4:3"),
    ("-m conntrack --ctorigdstport 4:3", "-m conntrack --ctorigsrcport 4:3"),
    ("-m conntrack --ctstatus NONE", "-m conntrack ! --ctstatus NONE"),
)
UNSAYABLE = (
    ("-m conntrack ! --ctexpire 5:6", "below"),
    ("-m conntrack --ctexpire 0:", "0 s as nothing"),
    ("-m conntrack --ctexpire 9:8", "0 s as nothing"),
)
PACKETS = (
    "-m conntrack --ctstatus NONE",
    "-m conntrack ! --ctstatus NONE",
    "-p udp -m conntrack --ctorigdstport 4:3",
    "-p udp -m conntrack ! --ctreplsrcport 4:3",
    "-p udp -m conntrack --ctreplsrcport :",
    "-m conntrack ! --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED",
)
