"""Cases: rules of realm and devgroup."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.codecs import MarkValue
from meshfw.extensions.groups import DevGroup, Realm
from meshfw.model import Family, Not
from tests.extensions.case import Case

# Realm 0 and group 0 alone are named in iproute2's files: where these are, iptables-save prints the names.
CASES = (
    Case("4", "filter", "-m realm ! --realm 10", "-m realm ! --realm 0xa", "meta rtclassid != 10 counter"),
    Case("4", "filter", "-m realm --realm 5/0xf", "-m realm --realm 0x5/0xf", "meta rtclassid & 15 == 5 counter"),
    Case("4", "filter", "-m realm --realm 0x50000/0xffff0000", "", "meta rtclassid 327680/16 counter"),
    Case("4", "filter", "-m realm ! --realm 0x0/0x5", "", "meta rtclassid & 5 != 0-0 counter"),
    Case("4", "filter", "-m realm --realm 0x0/0xffff0000", "", "meta rtclassid 0-65535 counter"),
    Case("4", "filter", "-m realm --realm 0x6/0x5", "", "meta rtclassid != 0-4294967295 counter"),
    Case("4", "filter", "-m realm ! --realm 0x5/0x0", "", "counter"),
    Case("46", "filter/INPUT", "-m devgroup --src-group 23", "-m devgroup --src-group 0x17", "iifgroup 23 counter"),
    Case(
        "46",
        "filter",
        "-m devgroup --dst-group 6/0xfe ! --src-group 5",
        "-m devgroup ! --src-group 0x5 --dst-group 0x6/0xfe",
        "iifgroup != 5 oifgroup & 254 == 6 counter",
    ),
    Case("46", "filter/OUTPUT", "-m devgroup ! --dst-group 0x11/0x1", "", "oifgroup & 1 != 1 counter"),
    Case("46", "filter", "-m devgroup --src-group 0x0/0xc", "", "iifgroup & 12 0-0 counter"),
    Case("46", "filter", "-m devgroup ! --dst-group 0x5/0x0", "", "oifgroup != 0-4294967295 counter"),
)
REFUSED = (
    ("-m realm", "--realm"),
    ("-m realm --realm office", "a host's own"),
    ("-m realm --realm 4294967296", "between 0 and 4294967295"),
    ("-m devgroup", "--src-group"),
)
EQUAL = (
    ("-m realm --realm 0", "-m realm --realm cosmos"),
    ("-m devgroup --src-group 0", "-m devgroup --src-group default"),
    ("-m devgroup --src-group 0x11/1", "-m devgroup --src-group 1/1"),
    ("-m devgroup --src-group 5/0", ""),
    ("-m realm ! --realm 6/5", ""),
    ("-m realm --realm 6/5", "-m realm ! --realm 0/0"),
)
DIFFERENT = (
    ("-m realm --realm 0x11/1", "-m realm --realm 1/1"),
    ("-m devgroup --src-group 1", "-m devgroup --dst-group 1"),
)
# Loopback is in group 17 there, and the route to one address in realm 5.
PACKETS = tuple(
    f"-m devgroup {sign}--src-group {group}"
    for group in ("17", "0", "0/0xc", "0/0x10", "1/0xf", "0/0xff000000", "16/0xfffffff0", "0x13/0x11", "5/0")
    for sign in ("", "! ")
)
PACKETS_IPV4 = tuple(
    f"-m realm {sign}--realm {realm}"
    for realm in ("5", "0", "0/0xffff0000", "0/2", "1/3", "0x15/7", "0/0xffffff00", "4/0xfffffffc")
    for sign in ("", "! ")
)

_BITS = st.integers(0, 0xFF) | st.integers(0, 0xFFFFFFFF) | st.sampled_from((0xFF000000, 0xFFFFFFFF))
_NUMBER = st.builds(MarkValue, _BITS, _BITS) | st.tuples(_BITS, _BITS).map(
    lambda pair: MarkValue(pair[0] & pair[1], pair[1])
)
_SIGNED = _NUMBER.filter(lambda held: held != MarkValue(0)).flatmap(lambda held: st.sampled_from((held, Not(held))))


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    held: list[st.SearchStrategy[Any]] = [st.builds(DevGroup, _SIGNED, st.none() | _SIGNED)]
    return [*held, st.builds(Realm, _SIGNED)] if family is Family.IPV4 else held
