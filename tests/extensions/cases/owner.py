"""Cases: rules of owner."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.owner import ID_MAX, Ids, Owner
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter/OUTPUT", "-m owner --uid-owner 0", "", "meta skuid 0 counter"),
    Case("46", "filter/OUTPUT", "-m owner --uid-owner alice", "-m owner --uid-owner 1000", "meta skuid 1000 counter"),
    Case("46", "filter/OUTPUT", "-m owner --gid-owner adm-in", "-m owner --gid-owner 4", "meta skgid 4 counter"),
    Case("46", "mangle/POSTROUTING", "-m owner --uid-owner 5:7", "-m owner --uid-owner 5-7", "meta skuid 5-7 counter"),
    Case(
        "46",
        "filter/OUTPUT",
        "-m owner --gid-owner 0-4294967294 --uid-owner 0x10",
        "-m owner --uid-owner 16 --gid-owner 0-4294967294",
        "meta skuid 16 meta skgid 0-4294967294 counter",
    ),
    Case("46", "filter/OUTPUT", "-m owner --socket-exists --uid-owner 0", "", "meta skuid 0 counter"),
    Case("46", "filter/OUTPUT", "-m owner --socket-exists", "", None),
    Case("46", "filter/OUTPUT", "-m owner ! --socket-exists", "", None),
    Case("46", "filter/OUTPUT", "-m owner ! --uid-owner 1337", "", None),
    Case("46", "filter/OUTPUT", "-m owner --uid-owner 5 ! --gid-owner 5", "", None),
    Case("46", "filter/OUTPUT", "-m owner ! --gid-owner 0-5 --suppl-groups", "", None),
    Case("46", "filter/OUTPUT", "-m owner --gid-owner 5 --suppl-groups", "", None),
)

REFUSED = (
    ("-m owner", "--uid-owner, --gid-owner or --socket-exists"),
    ("-m owner --uid-owner nobody-here", "neither a user of this host"),
    ("-m owner --gid-owner alice", "neither a group of this host"),
    ("-m owner --uid-owner 5-3", "ascending"),
    ("-m owner --uid-owner 5-", "not a number"),
    ("-m owner --uid-owner 4294967295", "between 0 and 4294967294"),
    ("-m owner --suppl-groups", "--gid-owner"),
    ("-m owner --gid-owner 5 ! --suppl-groups", "can't be negated"),
)

EQUAL = (
    ("-m owner --uid-owner alice", "-m owner --uid-owner 1000"),
    ("-m owner --uid-owner 1000:1000", "-m owner --uid-owner 1000-1000"),
    ("-m owner --uid-owner 5 --gid-owner 6", "-m owner --gid-owner 6 -m owner --uid-owner 5"),
    ("-m owner --uid-owner 5 ! --gid-owner 6", "-m owner ! --gid-owner 6 -m owner --uid-owner 5"),
    ("-m owner --socket-exists --uid-owner 5", "-m owner --uid-owner 5"),
    ("-m owner ! --socket-exists ! --uid-owner 5", "-m owner ! --socket-exists"),
    ("-m owner ! --socket-exists --uid-owner 5", "-m owner ! --socket-exists --gid-owner 7"),
)

DIFFERENT = (
    ("-m owner --uid-owner 5", "-m owner --gid-owner 5"),
    ("-m owner --uid-owner 5", "-m owner ! --uid-owner 5"),
    ("-m owner --gid-owner 5", "-m owner --gid-owner 5 --suppl-groups"),
    ("-m owner --socket-exists", ""),
    ("-m owner --socket-exists", "-m owner --uid-owner 0-4294967294"),  # a socket of the kernel has no owner
    ("-m owner --socket-exists", "-m owner ! --socket-exists"),
    ("-m owner --socket-exists ! --uid-owner 5", "-m owner ! --uid-owner 5"),
    ("-m owner ! --socket-exists --uid-owner 5", "-m owner ! --socket-exists"),
    # Without a socket the first is met and the second is not (xt_owner.c).
    ("-m owner ! --gid-owner 5", "-m owner ! --gid-owner 5 --suppl-groups"),
)

UNSAYABLE = (
    ("-m owner ! --uid-owner 1337", "without an owner"),
    ("-m owner --socket-exists", "sockets of the kernel"),
    ("-m owner ! --socket-exists", "without a socket"),
    ("-m owner --gid-owner 5 --suppl-groups", "--suppl-groups"),
)

PACKETS_AT = {
    "filter/OUTPUT": (
        "-m owner --uid-owner 0",
        "-m owner --uid-owner 1000-1002",
        "-m owner --uid-owner 1001",
        "-m owner --gid-owner 0",
        "-m owner --gid-owner 1002-4294967294",
        "-m owner --uid-owner 0-4294967294",
        "-m owner --uid-owner 0 --gid-owner 0-5 --socket-exists",
        "-p udp -m owner --uid-owner 1000:4294967294",
    ),
}


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    number = st.integers(0, 9) | st.integers(0, ID_MAX) | st.just(ID_MAX)
    ids = st.tuples(number, number).map(lambda pair: Ids(*sorted(pair))) | number.map(lambda one: Ids(one, one))
    signed = ids | ids.map(Not)
    socket = st.sampled_from((None, True, Not(True)))
    return [
        st.builds(Owner, socket=socket, uid=signed, gid=st.none() | signed),
        st.builds(Owner, socket=socket, gid=signed, supplementary=st.booleans()),
        st.builds(Owner, socket=st.sampled_from((True, Not(True)))),
    ]
