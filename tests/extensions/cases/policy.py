"""Cases: rules of policy."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.hostmask import HostMask
from meshfw.extensions.policy import MODES, PROTOCOLS, Policy, Transformation
from meshfw.model import Family, Not
from tests.extensions.case import Case

CASES = (
    Case("46", "filter/INPUT", "-m policy --dir in --pol ipsec", "", "meta ipsec exists counter"),
    Case("46", "filter/FORWARD", "-m policy --dir in", "-m policy --dir in --pol ipsec", "meta ipsec exists counter"),
    Case(
        "46",
        "filter/INPUT",
        "-m policy --pol none --dir in",
        "-m policy --dir in --pol none",
        "meta ipsec missing counter",
    ),
    Case(
        "46",
        "filter/INPUT",
        "-m policy --dir in --pol none --reqid 1",
        "-m policy --dir in --pol none",
        "meta ipsec missing counter",
    ),
    Case("46", "filter/OUTPUT", "-m policy --dir out --pol none", "", "rt ipsec missing counter"),
    Case("46", "mangle/POSTROUTING", "-m policy --dir out --pol ipsec", "", "rt ipsec exists counter"),
    Case(
        "46",
        "filter/INPUT",
        "-m policy --dir in --pol ipsec --spi 0x100 --reqid 0x10",
        "-m policy --dir in --pol ipsec --reqid 16 --spi 0x100",
        None,
    ),
    Case(
        "4",
        "filter/INPUT",
        "-m policy --dir in --strict ! --reqid 1 --spi 5 --next ! --mode transport --proto 50 "
        "--next ! --proto ah --tunnel-src 10.1.2.3/24 --mode tunnel ! --tunnel-dst 192.0.2.1",
        "-m policy --dir in --pol ipsec --strict ! --reqid 1 --spi 0x5 --next --proto esp ! --mode transport "
        "--next ! --proto ah --mode tunnel ! --tunnel-dst 192.0.2.1 --tunnel-src 10.1.2.3/24",
        None,
    ),
    Case(
        "6",
        "filter/FORWARD",
        "-m policy --dir out --pol ipsec --proto ipcomp --mode tunnel --tunnel-dst fd00::1/32 --tunnel-src ::/0",
        "",
        None,
    ),
)
REFUSED = (
    ("-m policy --pol ipsec", "--dir in or --dir out"),
    ("-m policy --dir up", "neither in nor out"),
    ("-m policy --dir in --pol maybe", "neither none nor ipsec"),
    ("-m policy --dir in --strict", "something of every element"),
    ("-m policy --dir in --strict --reqid 1 --next", "something of every element"),
    ("-m policy --dir in --pol none --strict --reqid 1", "nothing more"),
    ("-m policy --dir in --reqid 1 --next --reqid 2", "--next needs --strict"),
    ("-m policy --dir in --reqid 1 --reqid 2", "twice in one element"),
    ("-m policy --dir in --proto tcp", "esp, ah and ipcomp"),
    ("-m policy --dir in --mode trans", "neither transport nor tunnel"),
    ("-m policy --dir in --tunnel-src 10.0.0.0/8", "--mode tunnel"),
    ("-m policy --dir in --mode tunnel --tunnel-src 10.0.0.0/255.0.255.0", "gaps"),
    ("-m policy --dir in --strict" + " --next".join([" --reqid 1"] * 5), "at most 4"),
)
EQUAL = (
    ("-m policy --dir in --pol none --reqid 7", "-m policy --dir in --pol none"),
    (
        "-m policy --dir in --mode tunnel --tunnel-src 10.1.2.3/8",
        "-m policy --dir in --mode tunnel --tunnel-src 10.0.0.0/8",
    ),
)
DIFFERENT = (
    ("-m policy --dir in", "-m policy --dir out"),
    ("-m policy --dir in", "-m policy --dir in --pol none"),
    ("-m policy --dir in --reqid 1", "-m policy --dir in --strict --reqid 1"),
    ("-m policy --dir in --reqid 1", "-m policy --dir in --spi 1"),
    (
        "-m policy --dir in --strict --reqid 1 --next --reqid 2",
        "-m policy --dir in --strict --reqid 2 --next --reqid 1",
    ),
)
UNSAYABLE = (
    ("-m policy --dir in --strict --reqid 1", "how many"),
    ("-m policy --dir in --reqid 1", "not at any"),
)
PACKETS = ("-m policy --dir in --pol none", "-m policy --dir in --pol ipsec")
PACKETS_AT = {"filter/OUTPUT": ("-m policy --dir out --pol none", "-m policy --dir out --pol ipsec")}


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    def signed(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.none() | values | values.map(Not)

    number = st.integers(0, 9) | st.integers(0, 0xFFFFFFFF)
    end = st.builds(HostMask, st.just(family), st.integers(0, (1 << family.bits) - 1), st.integers(0, family.bits))
    said: dict[str, Any] = {
        "reqid": signed(number),
        "spi": signed(number),
        "protocol": signed(st.sampled_from(tuple(PROTOCOLS))),
    }
    plain = st.builds(Transformation, mode=signed(st.sampled_from(MODES)), **said)
    tunnel = st.builds(
        Transformation,
        mode=st.sampled_from(("tunnel", Not("transport"))),
        source=signed(end),
        destination=signed(end),
        **said,
    )
    element = (plain | tunnel).filter(lambda held: held != Transformation())
    direction = st.sampled_from(("in", "out"))
    return [
        st.builds(Policy, direction=direction, ipsec=st.booleans()),
        st.builds(Policy, direction=direction, elements=st.tuples(element)),
        st.builds(
            Policy,
            direction=direction,
            strict=st.just(True),
            elements=st.lists(element, min_size=1, max_size=4).map(tuple),
        ),
    ]
