"""Cases: rules of TPROXY."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.codecs import MarkValue
from meshfw.extensions.tproxy import NO_MARK, TProxy
from meshfw.model import Family, Network
from tests.extensions.case import Case

_AT = "mangle/PREROUTING"
_NO_MARK = "--tproxy-mark 0x0/0x0"

CASES = (
    Case(
        "4",
        _AT,
        "-p tcp -j TPROXY --on-port 8080",
        "-p tcp -j TPROXY --on-port 8080 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0",
        None,
    ),
    Case(
        "6", _AT, "-p udp -j TPROXY --on-port 0", "-p udp -j TPROXY --on-port 0 --on-ip :: --tproxy-mark 0x0/0x0", None
    ),
    Case(
        "4",
        _AT,
        "-p udp -j TPROXY --tproxy-mark 0x25/0x5 --on-ip 10.0.0.1 --on-port domain",
        "-p udp -j TPROXY --on-port 53 --on-ip 10.0.0.1 --tproxy-mark 0x25/0x5",
        None,
    ),
    Case(
        "6",
        _AT,
        "-p tcp -j TPROXY --on-port 80 --on-ip fd00::1 --tproxy-mark 0",
        "-p tcp -j TPROXY --on-port 80 --on-ip fd00::1 --tproxy-mark 0x0/0xffffffff",
        None,
    ),
)
REFUSED = (
    ("-p tcp -j TPROXY", "--on-port"),
    ("-j TPROXY --on-port 80", "tcp or udp"),
    ("-p sctp -j TPROXY --on-port 80", "tcp or udp"),
    ("! -p tcp -j TPROXY --on-port 80", "tcp or udp"),
    ("-p tcp -j TPROXY --on-port 80:90", "80:90"),
    ("-p tcp -j TPROXY --on-port 80 --on-ip 10.0.0.1/24", "10.0.0.1/24"),
)
EQUAL = (("-p tcp -j TPROXY --on-port 80 --on-ip 0.0.0.0 --tproxy-mark 0/0", "-p tcp -j TPROXY --on-port 80"),)
DIFFERENT = (
    ("-p tcp -j TPROXY --on-port 80", "-p tcp -j TPROXY --on-port 81"),
    ("-p tcp -j TPROXY --on-port 80", "-p tcp -j TPROXY --on-port 80 --on-ip 10.0.0.1"),
    ("-p tcp -j TPROXY --on-port 80", "-p tcp -j TPROXY --on-port 80 --tproxy-mark 1"),
)
UNSAYABLE = (
    ("-p tcp -j TPROXY --on-port 80", "no socket listens"),
    ("-p tcp -j TPROXY --on-port 0 --on-ip 10.0.0.1", "no socket listens"),
    ("-p tcp -j TPROXY --on-port 80 --tproxy-mark 1/3", "goes on to the next rule"),
)


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    if protocol not in (6, 17):
        return []
    full = (1 << family.bits) - 1
    number = st.integers(0, 0xFF) | st.integers(0, 0xFFFFFFFF)
    return [
        st.builds(
            TProxy,
            port=st.integers(0, 0xFFFF),
            address=st.none() | st.integers(1, full).map(lambda address: Network(family, address, full)),
            mark=st.just(NO_MARK) | st.builds(MarkValue, number, number),
        )
    ]
