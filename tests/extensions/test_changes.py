"""The law of targets that change packets: the same octets leave the host on nft as on iptables."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import FAMILIES, render_rule
from meshfw.model import Family, Packet
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import CHANGES
from tests.extensions.headers import datagram, packet, segment, sender

ADDRESSES = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
ETHERTYPES = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
MTU = 1400
"""Of loopback here, so that there is something to clamp a segment's size to."""
SYN, ACK, ECE, CWR = 0x02, 0x10, 0x40, 0x80
# Options of TCP by kind: size, window scale, selective acknowledgement, timestamps, and one that nobody knows.
SIZE = b"\x02\x04"
OPTIONS = tuple(
    held + b"\x01" * (-len(held) % 4)
    for held in (
        SIZE + struct.pack("!H", 1460),
        SIZE + struct.pack("!H", 1240),
        SIZE + struct.pack("!H", 9000) + b"\x01\x03\x03\x07",
        b"\x04\x02\x01\x08\x0a" + struct.pack("!II", 7, 9) + SIZE + struct.pack("!H", 1460),
        b"\x01\x05\x0a" + struct.pack("!II", 1, 2) + b"\xfd\x04\x12\x34",
    )
)


def packets(address: str) -> list[bytes]:
    """What is sent: a class of service, hops and options for each change to show itself on."""
    held = [
        packet(address, 17, datagram(address, 5000, 5001, b"payload"), tos=tos, hops=hops)
        for tos, hops in ((0, 1), (0x01, 2), (0x10, 3), (0x12, 63), (0x5B, 64), (0xB8, 65), (0xFE, 191), (0xFF, 254))
    ]
    held.append(packet(address, 17, datagram(address, 5000, 5001), hops=255))
    for flags in (SYN, SYN | ACK, SYN | ECE | CWR, ACK):
        held += [packet(address, 6, segment(address, 5000, 5001, flags, options), hops=64) for options in OPTIONS]
    return held


def seen(family: Family, octets: bytes) -> Packet:
    """What the model knows of such a packet."""
    if family is Family.IPV4:
        return Packet(family=family, protocol=octets[9], tos=octets[1], ttl=octets[8])
    (word,) = struct.unpack("!H", octets[:2])
    return Packet(family=family, protocol=octets[6], tos=word >> 4 & 0xFF, ttl=octets[7])


@contextmanager
def captured(family: Family) -> Iterator[list[bytes]]:
    """What passes loopback of the packets to port 5001, in order; filled when the block ends."""
    held: list[bytes] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPES[family])) as tap:
        tap.bind(("lo", ETHERTYPES[family]))
        tap.setblocking(False)
        yield held
        while True:
            try:
                octets, (_, _, kind, *_) = tap.recvfrom(4096)
            except BlockingIOError:
                return
            start = 20 if family is Family.IPV4 else 40
            if kind != socket.PACKET_OUTGOING and octets[start : start + 4] == struct.pack("!HH", 5000, 5001):
                held.append(octets)


def changed(room: Netns, family: Family, *, load: tuple[list[str], str], clear: tuple[list[str], str]) -> list[bytes]:
    """The packets as they are with a rule loaded."""
    environment = {**os.environ, "XTABLES_LOCKFILE": os.environ.get("XTABLES_LOCKFILE", "/dev/null")}
    with room.entered():
        subprocess.run(load[0], input=load[1], text=True, env=environment, check=True)
        with captured(family) as held, sender(ADDRESSES[family]) as raw:
            for octets in packets(ADDRESSES[family]):
                raw.sendto(octets, (ADDRESSES[family], 0))
        subprocess.run(clear[0], input=clear[1], text=True, env=environment, check=True)
    return held


@pytest.fixture(scope="module")
def room() -> Iterator[Netns]:
    with Netns() as made:
        with made.entered():
            subprocess.run(["ip", "link", "set", "lo", "mtu", str(MTU)], check=True)
        yield made


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
def test_a_packet_is_changed_on_nft_as_on_iptables(
    requires: Callable[..., None], room: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    tool = "iptables-legacy-restore" if family is Family.IPV4 else "ip6tables-legacy-restore"
    requires("nft", tool)
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    network = FAMILIES[family]
    idle = []
    for text in CHANGES[family]:
        rule = parse_rule(text, family=family, language=LANGUAGE)
        saved = format_rule(rule, family=family, language=LANGUAGE)
        on_iptables = changed(
            room,
            family,
            load=([tool], f"*mangle\n-A OUTPUT {saved}\nCOMMIT\n"),
            clear=([tool], "*mangle\nCOMMIT\n"),
        )
        rendered = render_rule(rule, family=family, language=LANGUAGE)
        chain = f"add chain {network} t c {{ type route hook output priority -150; }}"
        on_nft = changed(
            room,
            family,
            load=(["nft", "-f", "-"], f"add table {network} t\n{chain}\nadd rule {network} t c {rendered}\n"),
            clear=(["nft", "-f", "-"], f"delete table {network} t\n"),
        )
        assert len(on_iptables) == len(packets(ADDRESSES[family])), text
        for sent, one, other in zip(packets(ADDRESSES[family]), on_iptables, on_nft, strict=True):
            # Where it is missing, iptables adds the size that its absence means: then they differ by words alone.
            if "TCPMSS" not in text or SIZE in sent:
                assert one.hex() == other.hex(), text
            if rule.meets(seen(family, sent), {}) and rule.target is not None:
                known, found = rule.target.applied(seen(family, sent)), seen(family, one)
                assert (known.tos, known.ttl) == (found.tos, found.ttl), text
        if on_iptables == packets(ADDRESSES[family]):
            idle.append(text)
    assert set(idle) <= {"-j TOS --set-tos 0/0", "-p tcp --syn -j TCPMSS --set-mss 9000"}, "a change that changes none"
