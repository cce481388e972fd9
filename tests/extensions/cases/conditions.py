"""Cases: conditions of every rule, without any extension."""

from __future__ import annotations

from tests.extensions.case import Case

CASES = (
    Case(
        "4",
        "filter",
        "-s 10.1/0x10 -d 010.0.0.1/255.0.255.0 -j DROP",
        "-s 10.1.0.0/16 -d 8.0.0.0/255.0.255.0 -j DROP",
        "ip saddr 10.1.0.0/16 ip daddr & 255.0.255.0 == 8.0.0.0 counter drop",
    ),
    Case(
        "6",
        "filter",
        "-s 2001:db8::1/ffff::ffff -j DROP",
        "-s 2001::1/ffff::ffff -j DROP",
        "ip6 saddr & ffff::ffff == 2001::1 counter drop",
    ),
    Case("46", "filter", "-i a*b -o a*b*+ -j DROP", "", 'iifname "a*b" oifname "a*b**" counter drop'),
    Case("46", "filter", "! -i a* -j DROP", "", 'iifname != "a\\*" counter drop'),
    Case("46", "filter", "-i + -p 0 -o eth+ -j DROP", "-o eth+ -j DROP", 'oifname "eth*" counter drop'),
)

PACKETS = ("! -i +", "-i +", "-i lo", "! -s 0/0", "-d any/0", "-i l+ ! -p tcp")
