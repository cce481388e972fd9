"""Cases: rules of SYNPROXY."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshfw.extensions.synproxy import SynProxy
from meshfw.model import Family
from tests.extensions.case import Case

_ANSWERED = "tcp flags & (fin | syn | rst | ack) == { syn, ack } synproxy"

CASES = (
    Case("4", "filter/INPUT", "-p tcp -j SYNPROXY", "", f"meta l4proto 6 counter {_ANSWERED}"),
    Case(
        "4",
        "filter/FORWARD",
        "-p tcp --dport 42 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --mss 1460 --wscale 9 --timestamp "
        "--sack-perm",
        "-p tcp -m tcp --dport 42 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp "
        "--wscale 9 --mss 1460",
        f"tcp dport 42 ct state invalid,untracked counter {_ANSWERED} mss 1460 wscale 9 timestamp sack-perm",
    ),
    Case(
        "4",
        "filter/FORWARD",
        "-p tcp -j SYNPROXY --mss 0 --wscale 0",
        "-p tcp -j SYNPROXY --wscale 0 --mss 0",
        f"meta l4proto 6 counter {_ANSWERED} mss 0 wscale 0",
    ),
    Case("4", "filter/INPUT", "-p tcp -j SYNPROXY --ecn", "", None),
    Case("6", "filter/INPUT", "-p tcp -j SYNPROXY --timestamp", "", None),
)
REFUSED = (
    ("-j SYNPROXY", "state tcp"),
    ("-p udp -j SYNPROXY", "state tcp"),
    ("-p tcp -j SYNPROXY --mss 65536", "between 0 and 65535"),
    ("-p tcp -j SYNPROXY --wscale 256", "between 0 and 255"),
)
DIFFERENT = (
    ("-p tcp -j SYNPROXY", "-p tcp -j SYNPROXY --ecn"),
    ("-p tcp -j SYNPROXY", "-p tcp -j SYNPROXY --mss 0"),
    ("-p tcp -j SYNPROXY --timestamp", "-p tcp -j SYNPROXY --sack-perm"),
)
UNSAYABLE = (("-p tcp -j SYNPROXY --ecn", "--ecn"),)
PACKETS_AT_IPV4 = {
    "filter/INPUT": (
        "-p tcp --dport 81 -j SYNPROXY --mss 1460 --timestamp",
        "-p tcp --dport 90:91 -j SYNPROXY",
        "-p tcp --dport 81:91",
    )
}


def targets(family: Family, protocol: int | None) -> list[st.SearchStrategy[Any]]:
    if protocol != 6:
        return []
    flag = st.booleans()
    return [
        st.builds(
            SynProxy,
            sack_perm=flag,
            timestamp=flag,
            wscale=st.none() | st.integers(0, 255),
            mss=st.none() | st.integers(0, 65535),
            ecn=flag,
        )
    ]
