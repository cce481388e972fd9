"""Cases: rules of ecn and ECN."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.ecn import Ecn, SetEcn
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("4", "filter", "-m ecn --ecn-ip-ect 0", "", "ip ecn not-ect counter"),
    Case("6", "filter", "-m ecn ! --ecn-ip-ect 3", "", "ip6 ecn != ce counter"),
    Case(
        "4",
        "filter",
        "-p tcp -m ecn --ecn-ip-ect 2 ! --ecn-tcp-ece --ecn-tcp-cwr",
        "-p tcp -m ecn ! --ecn-tcp-ece --ecn-tcp-cwr --ecn-ip-ect 2",
        "tcp flags & ecn != ecn tcp flags & cwr == cwr ip ecn ect0 counter",
    ),
    Case("46", "filter", "-p tcp -m ecn --ecn-tcp-ece", "", "tcp flags & ecn == ecn counter"),
    Case("46", "filter", "-p tcp -m ecn ! --ecn-tcp-cwr", "", "tcp flags & cwr != cwr counter"),
    Case("4", "mangle", "-j ECN --ecn-ip-ect 2", "", "counter ip ecn set ect0"),
    Case("4", "mangle", "-p tcp -j ECN --ecn-tcp-remove", "", None),
    Case("4", "mangle", "-p tcp -j ECN --ecn-tcp-cwr 0 --ecn-tcp-ece 0", "-p tcp -j ECN --ecn-tcp-remove", None),
    Case("4", "mangle", "-p tcp -j ECN --ecn-tcp-ece 1 --ecn-tcp-cwr 0", "", None),
    Case(
        "4",
        "mangle",
        "-p tcp -j ECN --ecn-tcp-remove --ecn-ip-ect 1",
        "-p tcp -j ECN --ecn-tcp-ece 0 --ecn-tcp-cwr 0 --ecn-ip-ect 1",
        None,
    ),
)
REFUSED = (
    ("-m ecn", "--ecn-ip-ect"),
    ("-m ecn --ecn-tcp-cwr", "protocol"),
    ("! -p tcp -m ecn --ecn-tcp-cwr", "protocol"),
    ("-m ecn --ecn-ip-ect 4", "between 0 and 3"),
    ("-j ECN", "--ecn-tcp-remove"),
    ("-j ECN --ecn-tcp-remove", "protocol"),
    ("-p tcp -j ECN --ecn-tcp-remove --ecn-tcp-ece 1", "beside"),
)
EQUAL = (
    ("-m ecn --ecn-ip-ect 2", "-m tos --tos 2/3"),
    ("-p tcp -m ecn --ecn-tcp-ece -m ecn --ecn-tcp-cwr", "-p tcp -m ecn --ecn-tcp-cwr --ecn-tcp-ece"),
    ("-j ECN --ecn-ip-ect 1", "-j TOS --set-tos 1/3"),
)
DIFFERENT = (
    ("-p tcp -m ecn --ecn-tcp-ece", "-p tcp -m ecn ! --ecn-tcp-ece"),
    ("-p tcp -m ecn --ecn-tcp-ece", "-p tcp -m ecn --ecn-tcp-cwr"),
    ("-p tcp -j ECN --ecn-tcp-ece 0", "-p tcp -j ECN --ecn-tcp-remove"),
)
UNSAYABLE = (("-p tcp -j ECN --ecn-tcp-remove", "all flags of TCP at once"),)
PACKETS = (
    *(f"-m ecn {sign}--ecn-ip-ect {code}" for code in range(4) for sign in ("", "! ")),
    *(f"-p tcp -m ecn {sign}--ecn-tcp-{flag}" for flag in ("ece", "cwr") for sign in ("", "! ")),
    "-p tcp -m ecn --ecn-tcp-ece --ecn-tcp-cwr",
    "-p tcp -m ecn ! --ecn-tcp-ece ! --ecn-tcp-cwr",
    "-p tcp -m ecn ! --ecn-tcp-ece --ecn-tcp-cwr",
)
CHANGES_IPV4 = tuple(f"-j ECN --ecn-ip-ect {code}" for code in range(4))

_FLAG = st.sampled_from((None, True, Not(True)))
_ECT = st.integers(0, 3)
_BIT = st.none() | st.integers(0, 1)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    held: list[st.SearchStrategy[Any]] = [st.builds(Ecn, ect=_ECT | _ECT.map(Not))]
    if protocol == 6:
        held.append(st.builds(Ecn, ece=_FLAG, cwr=st.sampled_from((True, Not(True))), ect=st.none() | _ECT))
    return held


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    if family is Family.IPV6:
        return []
    held: list[st.SearchStrategy[Any]] = [st.builds(SetEcn, ect=_ECT)]
    if protocol == 6:
        held.append(st.builds(SetEcn, ece=st.integers(0, 1), cwr=_BIT, ect=st.none() | _ECT))
    return held
