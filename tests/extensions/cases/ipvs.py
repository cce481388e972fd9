"""Cases: rules of ipvs, a module that many kernels lack."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.ipvs import DIRECTIONS, METHODS, Ipvs
from meshfw.model import Family, Network, Not
from tests.extensions.case import Case

UNHELD = (
    Case("46", "filter", "-m ipvs --ipvs", "", None),
    Case("46", "filter", "-m ipvs ! --ipvs", "", None),
    Case("46", "filter", "-m ipvs --vproto tcp --ipvs", "-m ipvs --vproto 6", None),
    Case(
        "4",
        "filter",
        "-m ipvs --vmethod gate --vdir original ! --vport ssh --vaddr 1.2.3.4/16 --vproto 6",
        "-m ipvs --vproto 6 --vaddr 1.2.0.0/16 ! --vport 22 --vdir ORIGINAL --vmethod GATE",
        None,
    ),
    Case("4", "filter", "-m ipvs ! --vaddr 1.2.3.4/32", "-m ipvs ! --vaddr 1.2.3.4", None),
    Case("6", "filter", "-m ipvs --vaddr 2001:db8::1 ! --vportctl 21", "", None),
)
REFUSED = (
    ("-m ipvs", "at least one"),
    ("-m ipvs ! --ipvs --vport 80", "stands for itself"),
    ("-m ipvs --vdir BACK", "BACK"),
    ("-m ipvs --vmethod NAT", "NAT"),
    ("-m ipvs --vport 65536", "65536"),
    ("-m ipvs --vproto nosuch", "nosuch"),
)
EQUAL = (("-m ipvs --ipvs --vport 80", "-m ipvs --vport 80"),)
DIFFERENT = (
    ("-m ipvs --ipvs", "-m ipvs ! --ipvs"),
    ("-m ipvs --vport 80", "-m ipvs ! --vport 80"),
    ("-m ipvs --vdir ORIGINAL", "-m ipvs --vdir REPLY"),
)
UNSAYABLE = (("-m ipvs --vport 80", "virtual server"),)


def matches(family: Family, protocol: int | None) -> list[Any]:
    address = Network.parse("10.0.0.0/8" if family is Family.IPV4 else "fd00::/8")

    def maybe(values: Any) -> Any:
        return st.none() | values | values.map(Not)

    return [
        st.builds(
            Ipvs,
            st.none(),
            st.integers(0, 255),
            maybe(st.just(address)),
            maybe(st.integers(0, 0xFFFF)),
            st.sampled_from((None, *DIRECTIONS)),
            maybe(st.sampled_from(METHODS)),
        ),
        st.builds(Ipvs, st.sampled_from((True, Not(True)))),
    ]
