"""Cases: rules of nfacct, whose objects are made over netlink (linux/netfilter/nfnetlink_acct.h)."""

from __future__ import annotations

import socket
import struct

from hypothesis import strategies as st

from meshfw.extensions.nfacct import NfAcct
from meshfw.model import Family, Match
from tests.extensions.case import Case

CASES = (
    Case(
        "46",
        "filter",
        "-m nfacct --nfacct-name test",
        "-m nfacct --nfacct-name  test",
        'counter name "nfacct-test" counter',
    ),
    Case(
        "46",
        "filter",
        '-m nfacct --nfacct-name "my traffic"',
        '-m nfacct --nfacct-name  "my traffic"',
        'counter name "nfacct-my/20traffic" counter',
    ),
)
REFUSED = (("-m nfacct", "--nfacct-name"), (f"-m nfacct --nfacct-name {'x' * 32}", "31"))
DIFFERENT = (
    ("-m nfacct --nfacct-name a", "-m nfacct --nfacct-name b"),
    ("-m nfacct --nfacct-name a", ""),
    ("-m nfacct --nfacct-name a -m mark --mark 1", "-m mark --mark 1 -m nfacct --nfacct-name a"),
)


def prepare() -> None:
    """Make the objects of the cases and of the strategy: NFNL_MSG_ACCT_NEW with NFACCT_NAME."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
        for name in (b"test\0", b"my traffic\0", b"a/b\0", "é\0".encode()):
            attribute = struct.pack("=HH", 4 + len(name), 1) + name + b"\0" * (-len(name) % 4)
            body = struct.pack("=BBH", 0, 0, 0) + attribute
            netlink.send(struct.pack("=IHHII", 16 + len(body), 7 << 8, 0x405, 1, 0) + body)  # REQUEST, ACK, CREATE
            (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
            assert error == 0, f"no object of nfacct: error {error}"


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Accounting objects."""
    return [st.sampled_from(("test", "my traffic", "a/b", "é")).map(NfAcct)]
