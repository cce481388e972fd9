"""Cases: rules of tcpmss, TCPMSS and TCPOPTSTRIP."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.spans import Span
from meshfw.extensions.tcpmss import TcpMss
from meshfw.extensions.tcpoptstrip import TcpOptStrip
from meshfw.model import Family, Not
from tests.extensions.case import Case

_SYN = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"
_NFT_SYN = "tcp flags syn / fin,syn,rst,ack counter"

CASES = (
    Case(
        "46",
        "filter",
        "-p tcp -m tcpmss --mss :42",
        "-p tcp -m tcpmss --mss 0:42",
        "tcp option maxseg size 0-42 counter",
    ),
    Case(
        "46",
        "filter",
        "-p tcp --syn -m tcpmss --mss 42",
        f"{_SYN} -m tcpmss --mss 42",
        "tcp flags syn / fin,syn,rst,ack tcp option maxseg size 42 counter",
    ),
    Case(
        "4",
        "nat/PREROUTING",
        "-p tcp -m tcpmss --mss 0:42 -j DNAT --to-destination 10.8.0.25:8080",
        "",
        "tcp option maxseg size 0-42 meta l4proto 6 counter dnat to 10.8.0.25:8080",
    ),
    Case("46", "filter", "-p tcp -m tcpmss ! --mss 42:12345", "", None),
    Case(
        "46",
        "mangle",
        "-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu",
        f"{_SYN} -j TCPMSS --clamp-mss-to-pmtu",
        f"{_NFT_SYN} tcp option maxseg size set rt mtu",
    ),
    Case(
        "46",
        "raw/PREROUTING",
        f"{_SYN} -j TCPMSS --set-mss 1300",
        "",
        f"{_NFT_SYN} tcp option maxseg size set 1300",
    ),
    Case("46", "mangle", f"{_SYN} -j TCPMSS --set-mss 90", "", None),
    Case(
        "46",
        "mangle",
        "-p tcp -j TCPOPTSTRIP --strip-options wscale,mss,19,253",
        "-p tcp -j TCPOPTSTRIP --strip-options 2,3,19,253",
        "meta l4proto 6 counter reset tcp option maxseg reset tcp option window reset tcp option md5sig "
        "reset tcp option 253",
    ),
    Case("46", "mangle", "-p tcp -j TCPOPTSTRIP", "", "meta l4proto 6 counter"),
)
REFUSED = (
    ("-m tcpmss --mss 42", "protocol"),
    ("-p tcp -m tcpmss", "--mss"),
    ("-p tcp -m tcpmss --mss 65535:1000", "ends below"),
    ("-j TCPMSS --set-mss 1000", "protocol"),
    ("-p tcp --syn -j TCPMSS", "--clamp-mss-to-pmtu"),
    ("-p tcp -j TCPMSS --set-mss 1000", "opening segments"),
    ("-p tcp ! --syn -j TCPMSS --set-mss 1000", "opening segments"),
    ("-p tcp --tcp-flags SYN,RST NONE -j TCPMSS --clamp-mss-to-pmtu", "opening segments"),
    ("-p tcp --syn -j TCPMSS --set-mss 65516", "65515"),
    ("-p tcp --syn -j TCPMSS --set-mss 5 --clamp-mss-to-pmtu", "beside"),
    ("-j TCPOPTSTRIP --strip-options 3", "protocol"),
    ("-p tcp -j TCPOPTSTRIP --strip-options 1", "can't be stripped"),
    ("-p tcp -j TCPOPTSTRIP --strip-options wscale,3", "twice"),
    ("-p tcp -j TCPOPTSTRIP --strip-options WSCALE", "sack-permitted"),
)
EQUAL = (
    ("-p tcp -j TCPOPTSTRIP", "-p tcp"),
    ("-p tcp -j TCPOPTSTRIP --strip-options mss,5", "-p tcp -j TCPOPTSTRIP --strip-options sack,2"),
)
DIFFERENT = (
    ("-p tcp -m tcpmss --mss 0:65535", "-p tcp"),
    ("-p tcp -m tcpmss --mss 5", "-p tcp -m tcpmss ! --mss 5"),
    ("-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu", "-p tcp --syn -j TCPMSS --set-mss 1400"),
)
UNSAYABLE = (
    ("-p tcp -m tcpmss ! --mss 5", "without the option"),
    ("-p tcp --syn -j TCPMSS --set-mss 500", "536"),
)
PACKETS = tuple(f"-p tcp -m tcpmss --mss {span}" for span in ("1460", "1461:", ":1460", "0:65535"))
CHANGES = (
    *(f"-p tcp --syn -j TCPMSS --set-mss {size}" for size in (1220, 1300, 1460, 9000)),
    "-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu",
    *(f"-p tcp -j TCPOPTSTRIP --strip-options {names}" for names in ("mss", "timestamp", "2,3,4,8", "sack,253")),
)

_SIZE = st.integers(0, 9) | st.integers(0, 0xFFFF) | st.just(0xFFFF)
_SPAN = st.tuples(_SIZE, _SIZE).map(lambda pair: Span(*sorted(pair)))


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    return [st.builds(TcpMss, _SPAN | _SPAN.map(Not))] if protocol == 6 else []


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    if protocol != 6:
        return []
    return [st.builds(TcpOptStrip, st.sets(st.integers(2, 255), max_size=5).map(lambda held: tuple(sorted(held))))]
