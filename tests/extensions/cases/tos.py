"""Cases: rules of dscp, tos, DSCP and TOS."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.tos import Dscp, Masked, SetDscp, SetTos, Tos
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("4", "filter", "-m dscp --dscp 2", "-m dscp --dscp 0x02", "ip dscp 0x02 counter"),
    Case("6", "filter", "-m dscp ! --dscp 010", "-m dscp ! --dscp 0x08", "ip6 dscp != cs1 counter"),
    Case("4", "filter", "-m dscp --dscp-class AF41", "-m dscp --dscp 0x22", "ip dscp af41 counter"),
    Case("6", "filter", "-m dscp --dscp-class be", "-m dscp --dscp 0x00", "ip6 dscp cs0 counter"),
    Case("4", "filter", "-m dscp --dscp 0x2c -m dscp ! --dscp 0x01", "", "ip dscp va ip dscp != lephb counter"),
    Case("4", "filter", "-m tos --tos 0x11", "-m tos --tos 0x11/0xff", "ip dscp 0x04 ip ecn ect1 counter"),
    Case("6", "filter", "-m tos --tos 0x88", "-m tos --tos 0x88/0xff", "ip6 dscp af41 ip6 ecn not-ect counter"),
    Case("4", "filter", "-m tos ! --tos 0x11", "-m tos ! --tos 0x11/0xff", "@nh,8,8 != 0x11-0x11 counter"),
    Case("6", "filter", "-m tos ! --tos 0x11", "-m tos ! --tos 0x11/0xff", "@nh,4,8 != 0x11-0x11 counter"),
    Case(
        "4",
        "filter",
        "-m tos --tos Minimize-Delay",
        "-m tos --tos 0x10/0x3f",
        "@nh,8,8 & 0x3c == 0x10 ip ecn not-ect counter",
    ),
    Case("4", "filter", "-m tos ! --tos 0x08/0x1c", "", "@nh,8,8 & 0x1c != 0x8 counter"),
    Case("6", "filter", "-m tos ! --tos 0x08/0x1c", "", "@nh,0,16 & 0x1c0 != 0x80 counter"),
    Case("4", "filter", "-m tos --tos 0x00/0x0b", "", "@nh,8,8 & 0x8 == 0x0 ip ecn not-ect counter"),
    Case("46", "filter", "-m tos ! --tos 0x00/0x0b", "", None),
    Case("4", "filter", "-m tos ! --tos 0x02/0x03", "", "ip ecn != ect0 counter"),
    Case("46", "filter", "-m tos --tos 0/0", "-m tos --tos 0x00/0x00", "counter"),
    Case("4", "filter", "-m tos --tos 0x11/0x10", "", "@nh,8,8 != 0x0-0xff counter"),
    Case("6", "filter", "-m tos ! --tos 0x00/0x00", "", "@nh,4,8 != 0x0-0xff counter"),
    Case("46", "filter", "-m tos ! --tos 0x11/0x10", "", "counter"),
    Case("4", "mangle", "-j DSCP --set-dscp 0", "-j DSCP --set-dscp 0x00", "counter ip dscp set cs0"),
    Case("6", "mangle", "-j DSCP --set-dscp-class EF", "-j DSCP --set-dscp 0x2e", "counter ip6 dscp set ef"),
    Case(
        "4", "mangle", "-j TOS --set-tos 0x12", "-j TOS --set-tos 0x12/0xff", "counter ip dscp set 0x04 ip ecn set ect0"
    ),
    Case("6", "mangle", "-j TOS --set-tos 0x12/0xff", "", "counter ip6 dscp set 0x04 ip6 ecn set ect0"),
    Case("4", "mangle", "-j TOS --set-tos 0x10/0xfc", "", "counter ip dscp set 0x04"),
    Case("6", "mangle", "-j TOS --and-tos 0xfc", "-j TOS --set-tos 0x00/0x03", "counter ip6 ecn set not-ect"),
    Case("46", "mangle", "-j TOS --or-tos 0", "-j TOS --set-tos 0x00/0x00", "counter"),
    Case("4", "mangle", "-j TOS --or-tos 3", "-j TOS --set-tos 0x03/0x03", "counter ip ecn set ce"),
    Case("46", "mangle", "-j TOS --xor-tos 0x12", "-j TOS --set-tos 0x12/0x00", None),
    Case("46", "mangle", "-j TOS --set-tos maximize-throughput", "-j TOS --set-tos 0x08/0x3f", None),
)
REFUSED = (
    ("-m dscp", "--dscp"),
    ("-m dscp --dscp 64", "between 0 and 63"),
    ("-m dscp --dscp 0x3f --dscp-class CS0", "twice"),
    ("-m dscp --dscp-class AF4", "no class"),
    ("-m tos", "--tos"),
    ("-m tos --tos wrong", "minimize-delay"),
    ("-m tos --tos 0x10/0x100", "between 0 and 255"),
    ("-j DSCP", "--set-dscp"),
    ("-j TOS", "--set-tos"),
    ("-j TOS --and-tos 256", "between 0 and 255"),
)
EQUAL = (
    ("-m dscp --dscp 4", "-m tos --tos 0x10/0xfc"),
    ("-m dscp ! --dscp 4", "-m tos ! --tos 0x10/0xfc"),
    ("-m dscp --dscp 4 -m ecn --ecn-ip-ect 1", "-m tos --tos 0x11"),
    ("-m tos --tos 0x10/0x10 -m tos --tos 0/0x03", "-m tos --tos 0x10/0x13"),
    ("-m tos --tos 0/0", ""),
    ("-m tos ! --tos 0x11/0x10", ""),
    ("-m tos --tos 0x11/0x10", "-m tos ! --tos 0/0"),
    ("-m tos --tos Minimize-Delay", "-m tos --tos 16/63"),
    ("-j TOS --set-tos 0xb8/0xfc", "-j DSCP --set-dscp-class ef"),
    ("-j TOS --and-tos 0xff", ""),
)
DIFFERENT = (
    ("-m tos ! --tos 0x11", "-m tos ! --tos 0x10/0xfc -m tos ! --tos 1/3"),
    ("-m tos --tos 0x10", "-m tos --tos 0x10/0xfc"),
    ("-m dscp --dscp 4", "-m dscp ! --dscp 4"),
    ("-j TOS --set-tos 0x10/0xfc", "-j TOS --set-tos 0x10"),
    ("-j TOS --or-tos 0x10", "-j TOS --xor-tos 0x10"),
)
UNSAYABLE = (
    ("-m tos ! --tos 0x08/0x0b", "ecn alone"),
    ("-j TOS --set-tos 0x10/0x3f", "not single bits"),
    ("-j TOS --xor-tos 4", "not single bits"),
)
PACKETS = (
    *(f"-m dscp {sign}--dscp {code}" for code in (0, 4, 0x2E) for sign in ("", "! ")),
    *(
        f"-m tos {sign}--tos {held}"
        for held in ("0x10", "0x11", "0x10/0x1c", "0x3f/0x3f", "0/0x03", "0x03/0x03", "0x10/0xf0", "0/0x80", "0/0")
        for sign in ("", "! ")
    ),
    "-m tos --tos 0x01/0x0b",
    "-m tos --tos 0x11/0x13",
    "-m tos --tos 0x11/0x10",
    "-m tos ! --tos 0x11/0x10",
    "-m dscp ! --dscp 4 -m ecn ! --ecn-ip-ect 1",
)
CHANGES = (
    *(f"-j DSCP --set-dscp {code}" for code in (0, 1, 0x2E, 0x3F)),
    *(f"-j TOS --set-tos {held}" for held in ("0", "0x55", "0xaa", "0xff", "0x54/0xfc", "0x01/0x03", "0/0")),
)

_OCTET = st.integers(0, 255) | st.sampled_from((0xFC, 0x03, 0xFF))
_MASKED = st.builds(Masked, _OCTET, _OCTET) | st.tuples(_OCTET, _OCTET).map(
    lambda pair: Masked(pair[0] & pair[1], pair[1])
)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    return [
        st.builds(Dscp, st.integers(0, 63) | st.integers(0, 63).map(Not)),
        st.builds(Tos, _MASKED | _MASKED.map(Not)),
    ]


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    return [st.builds(SetDscp, st.integers(0, 63)), st.builds(SetTos, _MASKED)]
