"""The law of test_packets for what its packets lack: IPv6 headers between IP and transport, and connections of TCP."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import FAMILIES, render_rule
from meshfw.model import Family, Rule
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE

HEADERS = (
    "",
    "-m rt",
    "-m rt --rt-type 0",
    "-m rt ! --rt-type 0",
    "-m rt --rt-segsleft 1",
    "-m rt --rt-segsleft 1:",
    "-m rt ! --rt-segsleft 0:1",
    "-m rt --rt-len 24",
    "-m rt ! --rt-len 24",
    "-m rt ! --rt-len 3",
    "-m rt --rt-len 3",
    "-m rt ! --rt-segsleft 4:3",
    "-m rt --rt-type 2 --rt-segsleft :1 ! --rt-len 40",
    "-m frag",
    "-m frag --fragid 7",
    "-m frag ! --fragid 8:99",
    "-m frag --fragid 100:",
    "-m frag --fragfirst",
    "-m frag --fragmore",
    "-m frag --fraglast",
    "-m frag --fragfirst --fragmore",
    "-m frag --fraglen 5",
    "-m hbh",
    "-m hbh --hbh-len 16",
    "-m hbh ! --hbh-len 16",
    "-m hbh ! --hbh-len 5",
    "-m dst",
    "-m dst --dst-len 8",
    "-m dst ! --dst-len 8",
    "-p mh",
    "-p mh --mh-type 5",
    "-p mh ! --mh-type 5",
    "-p mh --mh-type 2:9",
    "-p mh ! --mh-type 2:9",
    *(f"-m ipv6header {sign}--header {name} --soft" for name in ("hop", "route", "frag") for sign in ("", "! ")),
    "-m ipv6header --header hop,route --soft",
    "-m ipv6header --header hop",
    "-m ipv6header ! --header hop",
    "-m ipv6header ! --header hop,route --soft",
    *(f"-m ipv6header {sign}--header {name}" for name in ("prot", "esp", "none") for sign in ("", "! ")),
    '-m u32 --u32 "4&0xff00=0x2b00"',
    '-m u32 --u32 "40&0xff0000=0:0x20000"',
    '-m u32 --u32 "42>>24=0,2"',
    '-m u32 --u32 "100=0:0x7fffffff"',
)
SOCKETS = (
    "",
    "-m socket --nowildcard",
    "-p tcp -m socket --nowildcard",
    "-m socket --transparent --nowildcard",
    "-m cgroup --cgroup 0",
)
OWN_SOCKETS = (
    "",
    "-m cgroup --cgroup 0",
    "-p tcp --tcp-flags SYN,ACK SYN,ACK -m cgroup --cgroup 0",
    "-m cgroup ! --cgroup 0",
    "-m cgroup ! --cgroup 5",
)


# --- packets -----------------------------------------------------------------------------------------------

LOOPBACK = socket.inet_pton(socket.AF_INET6, "::1")
DATA = struct.pack("!HHHH", 201, 101, 8, 0)  # an UDP datagram of no bytes


def packet(*headers: tuple[int, bytes], end: int = 17, data: bytes = DATA) -> bytes:
    """An IPv6 packet with these extension headers, each its number and what stands behind the next one's number."""
    kinds = [kind for kind, _ in headers] + [end]
    body = b"".join(bytes([following]) + content for following, (_, content) in zip(kinds[1:], headers, strict=True))
    body += data
    return struct.pack("!IHBB", 6 << 28, len(body), kinds[0], 64) + LOOPBACK + LOOPBACK + body


def options(units: int) -> bytes:
    """An options header's length and padding (RFC 8200, section 4.2)."""
    size = 8 * units + 6
    return bytes([units, 1, size - 2]) + bytes(size - 2)


def routing(kind: int, left: int, units: int) -> bytes:
    return bytes([units, kind, left]) + bytes(8 * units + 4)


def fragment(offset: int, *, more: bool, name: int) -> bytes:
    return struct.pack("!BHI", 0, offset << 3 | more, name)


def mobility(kind: int) -> bytes:
    return bytes([59, 0, kind, 0]) + bytes(4)


def header_packets() -> list[bytes]:
    found = [
        packet(),
        packet(end=59, data=b""),
        packet(end=50, data=bytes(16)),
        packet((0, options(0))),
        packet((0, options(1)), (60, options(0))),
        packet((60, options(3))),
        packet((60, options(0)), end=59, data=b""),
        packet((51, bytes([4]) + bytes(22))),
        packet((0, options(1)), (43, routing(2, 1, 2))),
        packet((0, options(0)), (44, fragment(0, more=False, name=5))),
    ]
    found += [packet((43, routing(kind, left, units))) for kind in (0, 2, 4) for left in (0, 1, 2) for units in (2, 4)]
    found += [packet(end=135, data=mobility(kind)) for kind in (0, 2, 5, 9, 13)]
    for name in (7, 8, 0xFFFFFFFF):
        found += [packet((44, fragment(0, more=True, name=name))), packet((44, fragment(1, more=False, name=name)))]
        found += [packet((44, fragment(1, more=True, name=name)), data=bytes(64))]
    return found


def send_headers(family: Family) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for held in header_packets():
            raw.sendto(held, ("::1", 0))


def talk(family: Family) -> None:
    """Connections to sockets that listen on one address and on all, and datagrams to one that is open and to none."""
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    one, every = ("127.0.0.1", "0.0.0.0") if family is Family.IPV4 else ("::1", "::")
    for port, address in ((80, one), (81, every)):
        with socket.create_server((address, port), family=kind) as server, socket.socket(kind) as client:
            client.connect((one, port))
            with server.accept()[0] as accepted:
                client.sendall(b"x")
                accepted.recv(9)
                client.shutdown(socket.SHUT_WR)
                accepted.recv(9)
            client.recv(9)
    with socket.socket(kind, socket.SOCK_DGRAM) as receiver, socket.socket(kind, socket.SOCK_DGRAM) as sender:
        receiver.bind((every, 101))
        sender.sendto(b"x", (one, 101))
        sender.sendto(b"x", (one, 102))


# --- counters ----------------------------------------------------------------------------------------------


def parsed(texts: tuple[str, ...], family: Family) -> list[Rule]:
    return [parse_rule(text, family=family, language=LANGUAGE) for text in texts]


class Trial(NamedTuple):
    """Rules of one hook, and what is sent to meet them."""

    family: Family
    hook: str
    texts: tuple[str, ...]
    send: Callable[[Family], None]


TRIALS = (
    Trial(Family.IPV6, "prerouting", HEADERS, send_headers),
    *(Trial(family, "input", SOCKETS, talk) for family in Family),
    *(Trial(family, "output", OWN_SOCKETS, talk) for family in Family),
)


def counted(trial: Trial, environment: dict[str, str]) -> tuple[list[int], list[int]]:
    """How many packets met each rule on iptables, and on nft."""
    family, hook, texts, send = trial
    held = parsed(texts, family)
    tool = "iptables-legacy" if family is Family.IPV4 else "ip6tables-legacy"
    saved = [f"-A {hook.upper()} {format_rule(rule, family=family, language=LANGUAGE)}" for rule in held]
    with Netns() as room, room.entered():
        script = "\n".join(["*mangle", *saved, "COMMIT", ""])
        subprocess.run([f"{tool}-restore"], input=script, text=True, env=environment, check=True)
        send(family)
        listed = subprocess.run(
            [f"{tool}-save", "-c", "-t", "mangle"], capture_output=True, text=True, env=environment, check=True
        ).stdout
    on_iptables = [int(count) for count in re.findall(r"^\[(\d+):\d+\] -A", listed, re.MULTILINE)]
    network = FAMILIES[family]
    lines = [f"add table {network} t", f"add chain {network} t c {{ type filter hook {hook} priority -150; }}"]
    lines += [f"add rule {network} t c {render_rule(rule, family=family, language=LANGUAGE)}" for rule in held]
    with Netns() as room, room.entered():
        subprocess.run(["nft", "-f", "-"], input="\n".join([*lines, ""]), text=True, check=True)
        send(family)
        listed = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    rules = [item["rule"]["expr"] for item in json.loads(listed)["nftables"] if "rule" in item]
    return on_iptables, [part["counter"]["packets"] for rule in rules for part in rule if "counter" in part]


@pytest.mark.kernel
@pytest.mark.parametrize("trial", TRIALS, ids=[f"{trial.hook}-{trial.family}" for trial in TRIALS])
def test_a_packet_meets_a_rule_on_nft_as_on_iptables(
    requires: Callable[..., None], tmp_path: Path, trial: Trial
) -> None:
    requires("nft", "iptables-legacy-restore", "ip6tables-legacy-restore")
    environment = {**os.environ, "XTABLES_LOCKFILE": str(tmp_path / "lock")}
    on_iptables, on_nft = counted(trial, environment)
    assert len(on_iptables) == len(on_nft) == len(trial.texts)
    pairs = zip(trial.texts, on_iptables, on_nft, strict=True)
    assert {text: (one, other) for text, one, other in pairs if one != other} == {}
    assert on_nft[0], "no packet came"
    assert sum(1 for count in on_nft if count) > len(trial.texts) // 2, "packets that meet nothing prove nothing"
