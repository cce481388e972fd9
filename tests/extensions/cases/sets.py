"""Cases: rules of set and SET."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.sets import COUNTER_MAX, DIMENSIONS, TIMEOUT_MAX, Count, Element, InSet, SetElement
from meshfw.model import Family, Not
from tests.extensions.case import Case

IPSETS = (
    "create nets4 hash:net",
    "create nets6 hash:net family inet6",
    "create counted4 hash:ip,port counters timeout 60 skbinfo",
    "create ports bitmap:port range 0-1000 counters skbinfo",
)

CASES = (
    Case("4", "filter/INPUT", "-m set --match-set nets4 src", "", None),
    Case("6", "filter/INPUT", "-m set --match-set nets6 src,dst", "", None),
    Case("46", "filter/INPUT", "-p tcp -m set ! --match-set ports dst,src,dst,src,dst,src", "", None),
    Case("4", "filter/FORWARD", "-m set --set nets4 dst", "-m set --match-set nets4 dst", None),
    Case(
        "46",
        "filter/INPUT",
        "-m set --bytes-gt 0x10 --packets-eq 5 ! --update-subcounters ! --update-counters --return-nomatch "
        "! --match-set ports dst",
        "-m set ! --match-set ports dst --return-nomatch ! --update-counters ! --update-subcounters "
        "--packets-eq 5 --bytes-gt 16",
        None,
    ),
    Case(
        "4",
        "filter/INPUT",
        "-m set --match-set counted4 src,dst ! --packets-eq 5 ! --bytes-eq 18446744073709551615 --update-counters",
        "-m set --match-set counted4 src,dst ! --packets-eq 5 ! --bytes-eq 18446744073709551615",
        None,
    ),
    Case("46", "filter/INPUT", "-m set --match-set ports src --packets-lt 5 --bytes-lt 7 -j DROP", "", None),
    Case("46", "filter/INPUT", "-m set --match-set ports src --packets-gt 0 -j DROP", "", None),
    Case("4", "filter/INPUT", "-j SET --add-set nets4 src", "", None),
    Case(
        "4",
        "filter/INPUT",
        "-j SET --del-set nets4 dst --timeout 0 --exist --add-set counted4 src,dst",
        "-j SET --add-set counted4 src,dst --exist --timeout 0 --del-set nets4 dst",
        None,
    ),
    Case("6", "filter/OUTPUT", "-j SET --del-set nets6 src", "", None),
    Case("4", "mangle/PREROUTING", "-j SET --map-set counted4 src,dst --map-mark", "", None),
    Case(
        "4",
        "mangle/POSTROUTING",
        "-j SET --map-set counted4 src,dst --map-queue --map-prio --map-mark",
        "-j SET --map-set counted4 src,dst --map-mark --map-prio --map-queue",
        None,
    ),
)

REFUSED = (
    ("-m set", "--match-set"),
    ("-m set --match-set nets4", "no value"),
    ("-m set --match-set nets4 source", "src and dst"),
    ("-m set --match-set nets4 src,dst,src,dst,src,dst,src", "one to 6"),
    ("-m set --match-set a-name-of-more-than-thirty-one-bytes src", "31 bytes"),
    ("-m set --match-set nets4 src --match-set nets4 dst", "twice"),
    ("-m set --match-set nets4 src --packets-eq 1 --packets-lt 2", "twice"),
    ("-m set --match-set nets4 src ! --packets-lt 2", "can't be negated"),
    ("-m set --match-set nets4 src --packets-eq 18446744073709551616", "between 0 and"),
    ("-m set --match-set nets4 src ! --return-nomatch", "can't be negated"),
    ("-j SET", "--add-set, --del-set or --map-set"),
    ("-j SET --del-set nets4 src --exist", "--add-set"),
    ("-j SET --map-set nets4 src", "--map-mark"),
    ("-j SET --add-set nets4 src --map-mark", "--map-set"),
    ("-j SET --add-set nets4 src --timeout 4294967295", "between 0 and 4294967294"),
)

EQUAL = (
    ("-m set --match-set nets4 src --update-counters", "-m set --set nets4 src"),
    (
        "-j SET --add-set nets4 src --exist --del-set nets4 dst",
        "-j SET --del-set nets4 dst --exist --add-set nets4 src",
    ),
)

DIFFERENT = (
    ("-m set --match-set nets4 src", "-m set --match-set nets4 dst"),
    ("-m set --match-set nets4 src", "-m set ! --match-set nets4 src"),
    ("-m set --match-set nets4 src", "-m set --match-set nets4 src,src"),
    ("-m set --match-set nets4 src", "-m set --match-set nets4 src ! --update-counters"),
    ("-m set --match-set nets4 src", "-m set --match-set nets4 src --return-nomatch"),
    ("-m set --match-set nets4 src --packets-eq 5", "-m set --match-set nets4 src --bytes-eq 5"),
    # Only what the first lets pass is counted by the second.
    ("-m set --match-set a src -m set --match-set b src", "-m set --match-set b src -m set --match-set a src"),
    ("-j SET --add-set nets4 src", "-j SET --add-set nets4 src --exist"),
    ("-j SET --add-set nets4 src", "-j SET --del-set nets4 src"),
)

UNSAYABLE = (
    ("-m set --match-set nets4 src", "nets4 is one of ipset"),
    ("-j SET --del-set nets4 src", "nets4 is one of ipset"),
)

_ELEMENT = st.builds(
    Element,
    st.just("ports"),  # the one that both families take
    st.lists(st.sampled_from(("src", "dst")), min_size=1, max_size=DIMENSIONS).map(tuple),
)
_NUMBER = st.integers(0, 9) | st.integers(0, COUNTER_MAX)
_COUNT = st.builds(Count, st.sampled_from(("eq", "lt", "gt")), _NUMBER) | _NUMBER.map(
    lambda held: Not(Count("eq", held))
)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    flag = st.booleans()
    return [
        st.builds(
            InSet,
            element=_ELEMENT | _ELEMENT.map(Not),
            nomatch=flag,
            uncounted=flag,
            uncounted_members=flag,
            packets=st.none() | _COUNT,
            octets=st.none() | _COUNT,
        )
    ]


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    flag = st.booleans()
    return [
        st.builds(SetElement, delete=_ELEMENT),
        st.builds(SetElement, map=_ELEMENT, map_mark=st.just(True), map_prio=flag, map_queue=flag),
        st.builds(
            SetElement,
            add=_ELEMENT,
            exist=flag,
            timeout=st.none() | st.integers(0, TIMEOUT_MAX),
            delete=st.none() | _ELEMENT,
        ),
    ]
