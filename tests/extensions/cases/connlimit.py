"""Cases: rules of connlimit."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.connlimit import ConnLimit
from meshfw.model import Family, Match
from tests.extensions.case import Case

M = "-m connlimit"
CASES = (
    Case(
        "4",
        "filter",
        f"{M} --connlimit-above 10 --connlimit-mask 0",
        f"{M} --connlimit-above 10 --connlimit-mask 0 --connlimit-saddr",
        "ct count over 10 counter",
    ),
    Case(
        "6",
        "filter",
        f"{M} ! --connlimit-above 4294967295 --connlimit-mask 0",
        f"{M} --connlimit-upto 4294967295 --connlimit-mask 0 --connlimit-saddr",
        "ct count 4294967295 counter",
    ),
    Case(
        "4",
        "filter",
        f"{M} --connlimit-above 2",
        f"{M} --connlimit-above 2 --connlimit-mask 32 --connlimit-saddr",
        "meter connlimit-0663947e3698 size 65535 { ip saddr ct count over 2 } counter",
    ),
    Case(
        "4",
        "filter",
        f"{M} --connlimit-upto 2 --connlimit-mask 255.255.255.0 --connlimit-daddr",
        f"{M} --connlimit-upto 2 --connlimit-mask 24 --connlimit-daddr",
        "meter connlimit-03f0857eea86 size 65535 { ip daddr & 255.255.255.0 ct count 2 } counter",
    ),
    Case(
        "6",
        "filter",
        f"-p tcp -m tcp --syn {M} ! --connlimit-upto 0 --connlimit-saddr --connlimit-mask 64 "
        "-j REJECT --reject-with tcp-reset",
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 0 --connlimit-mask 64 "
        "--connlimit-saddr -j REJECT --reject-with tcp-reset",
        "tcp flags syn / fin,syn,rst,ack meter connlimit-3ddc06ad859b size 65535 "
        "{ ip6 saddr & ffff:ffff:ffff:ffff:: ct count over 0 } counter reject with tcp reset",
    ),
)
REFUSED = (
    (M, "one of"),
    (f"{M} --connlimit-upto 1 --connlimit-above 1", "one of"),
    (f"{M} --connlimit-upto 4294967296", "4294967296"),
    (f"{M} --connlimit-above -1", "-1"),
    (f"{M} --connlimit-above 1 --connlimit-mask 33", "33"),
    (f"{M} --connlimit-above 1 --connlimit-saddr --connlimit-daddr", "beside"),
)
EQUAL = (
    (f"{M} --connlimit-above 1", f"{M} ! --connlimit-upto 1 --connlimit-saddr --connlimit-mask 32"),
    (f"{M} --connlimit-above 1 --connlimit-mask 0", f"{M} --connlimit-above 1 --connlimit-mask 0 --connlimit-daddr"),
)
DIFFERENT = (
    (f"{M} --connlimit-above 1", f"{M} --connlimit-upto 1"),
    (f"{M} --connlimit-above 1", f"{M} --connlimit-above 1 --connlimit-daddr"),
    (f"{M} --connlimit-above 1", f"{M} --connlimit-above 1 --connlimit-mask 31"),
    (f"{M} --connlimit-above 1 -m mark --mark 1", f"-m mark --mark 1 {M} --connlimit-above 1"),
)
PACKETS = (
    f"-p udp {M} --connlimit-above 3",
    f"-p udp {M} --connlimit-upto 3 --connlimit-daddr",
    f"{M} --connlimit-upto 5 --connlimit-mask 0",
    # No TCP here: when a closed connection stops to count depends on the kernel's clock.
    f"-p udp {M} --connlimit-above 2 --connlimit-mask 8",
    f"{M} --connlimit-above 0",
)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Limits of connections."""
    mask = st.none() | st.integers(0, family.bits - 1)
    limit = st.integers(0, 9) | st.integers(0, 0xFFFFFFFF)
    return [st.builds(ConnLimit, limit=limit, upto=st.booleans(), mask=mask, destination=st.booleans())]
