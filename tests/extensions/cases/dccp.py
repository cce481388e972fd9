"""Cases: rules of dccp."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.codecs import Ports
from meshfw.extensions.dccp import Dccp
from meshfw.model import Family, Not
from tests.extensions.case import Case

_TYPES = "REQUEST,RESPONSE,DATA,ACK,DATAACK,CLOSEREQ,CLOSE,RESET,SYNC,SYNCACK,INVALID"
CASES = (
    Case("46", "filter", "-p dccp --dport 80", "-p dccp -m dccp --dport 80", "dccp dport 80 counter"),
    Case("46", "filter", "-p dccp -m dccp", "", "meta l4proto 33 counter"),
    Case("46", "filter", "-p dccp --sport 4:3", "-p dccp -m dccp --sport 4:3", "dccp sport != 0-65535 counter"),
    Case(
        "46",
        "filter",
        "-p 33 --sport 1: ! --dport 9",
        "-p dccp -m dccp --sport 1:65535 ! --dport 9",
        "dccp sport 1-65535 dccp dport != 9 counter",
    ),
    Case(
        "46",
        "filter",
        "-p dccp --dccp-types Request",
        "-p dccp -m dccp --dccp-types REQUEST",
        "dccp type request counter",
    ),
    Case(
        "46",
        "filter",
        "-p dccp ! --dccp-types invalid,ack,response",
        "-p dccp -m dccp ! --dccp-types RESPONSE,ACK,INVALID",
        "dccp type != { response, ack, 10-15 } counter",
    ),
    Case(
        "46",
        "filter",
        "-p dccp --dccp-types INVALID",
        "-p dccp -m dccp --dccp-types INVALID",
        "dccp type 10-15 counter",
    ),
    Case("46", "filter", f"-p dccp -m dccp --dccp-types {_TYPES}", "", "meta l4proto 33 counter"),
    Case("46", "filter", f"-p dccp -m dccp ! --dccp-types {_TYPES}", "", "dccp type != 0-15 counter"),
    Case("46", "filter", "-p dccp --dccp-option 255", "-p dccp -m dccp --dccp-option 255", None),
    Case("46", "filter", "-p dccp ! --dccp-option 1 --sport 5", "-p dccp -m dccp --sport 5 ! --dccp-option 1", None),
)
REFUSED = (
    ("-m dccp --dport 80", "protocol"),
    ("-p dccp --dccp-types NEW", "NEW"),
    ("-p dccp --dccp-types ,", "at least one"),
    ("-p dccp --dccp-option 0", "1 and 255"),
    ("-p dccp --dccp-option 256", "1 and 255"),
)
EQUAL = (
    ("-p dccp --dport 80", "-p dccp -m multiport --dports 80"),
    ("-p dccp ! --dccp-types REQUEST", "-p dccp --dccp-types " + _TYPES.partition(",")[2]),
    (f"-p dccp --dccp-types {_TYPES}", "-p dccp"),
)
DIFFERENT = (
    ("-p dccp --dccp-types REQUEST", "-p dccp --dccp-types RESPONSE"),
    ("-p dccp --dccp-option 1", "-p dccp ! --dccp-option 1"),
    ("-p dccp --dport 80", "-p dccp --sport 80"),
)
UNSAYABLE = (("-p dccp --dccp-option 1", "--dccp-option: .* options"),)


def matches(family: Family, protocol: int | None) -> list[Any]:
    if protocol != 33:
        return []
    port = st.integers(0, 9) | st.integers(0, 0xFFFF)
    ports = st.tuples(port, port).map(sorted).map(lambda pair: Ports(*pair)).filter(lambda held: held.high < 0xFFFF)
    types = st.tuples(st.integers(0, 0x3FF), st.sampled_from((0, 0xFC00))).map(sum).filter(bool)

    def maybe(values: Any) -> Any:
        return st.none() | values | values.map(Not)

    return [st.builds(Dccp, maybe(ports), maybe(ports), maybe(types), st.none() | st.integers(1, 255))]
