"""The law under all others, counted by the kernel: a packet meets a rule on nft exactly when it does on iptables."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshfw.extensions.tcp import FLAGS
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import FAMILIES, render_rule
from meshfw.model import Family, Rule
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import PACKETS
from tests.extensions.headers import checksum, datagram, packet, segment, sender

TCP_FLAGS = (
    "ALL NONE",
    "ALL ALL",
    "ALL SYN,ACK",
    "ALL FIN,PSH,URG",
    "FIN,SYN,RST,ACK SYN",
    "FIN,SYN,RST,ACK NONE",
    "SYN,ACK SYN,ACK",
    "SYN,ACK SYN",
    "SYN SYN",
    "SYN NONE",
    "PSH,URG NONE",
)

NAT = "-p udp --dport 107 -j REDIRECT --to-ports 109"

# In the order of one chain: what changes a mark stands before what looks at it.
CHANGES = [
    "-p udp --dport 101 -j MARK --set-mark 0x12",
    "-p udp --dport 102 -j MARK --and-mark 0xf0",
    "-p udp --dport 103 -j MARK --or-mark 0x0f",
    "-p udp --dport 104 -j MARK --xor-mark 0xff",
    "-p udp --dport 105 -j MARK --set-xmark 0x105/0xf",
    "-p udp -m multiport --dports 101:105 -j CONNMARK --save-mark",
    "-p udp --dport 106 -j CONNMARK --set-xmark 0x3/0xff",
    "-p udp --dport 106 -j MARK --set-mark 0xffff0000",
    "-p udp --dport 106 -j CONNMARK --or-mark 0x30",
    "-p udp --dport 104 -j CONNMARK --xor-mark 0x11",
    "-p udp --dport 103 -j CONNMARK --and-mark 0x1c",
    "-p udp --sport 202 -j CONNMARK --restore-mark --ctmask 0xf0",
]

BOTH = [
    "-p tcp",
    "-p udp",
    "-p udp --dport 101:104",
    "-p udp ! --dport 101:104",
    "-p udp --sport 201 ! --dport 103",
    "-p tcp --dport 81 --sport 1:1000",
    "-p udp -m multiport --dports 101,103,105:106",
    "-p udp -m multiport ! --dports 101,103,105:106",
    "-p udp -m multiport --ports 201,103",
    "-p udp -m multiport ! --ports 201,103",
    "-p udp -m multiport --ports 100:103,202",
    "-p tcp -m multiport --sports 80,81,82",
    *(f"-p tcp {sign}--tcp-flags {flags}" for flags in TCP_FLAGS for sign in ("", "! ")),
    "-p tcp --tcp-option 2",
    "-p tcp ! --tcp-option 2",
    "-p tcp --dport 81:90 ! --tcp-option 2",
    "-p tcp --tcp-flags RST NONE ! --tcp-option 1",
    "-p tcp --tcp-option 1",
    "-m conntrack --ctstate NEW",
    "-m conntrack ! --ctstate NEW",
    "-m conntrack --ctstate ESTABLISHED,RELATED",
    "-m conntrack ! --ctstate ESTABLISHED,RELATED",
    "-m state --state INVALID",
    "-m state ! --state INVALID",
    "-m conntrack --ctstate NEW,INVALID",
    "-m conntrack ! --ctstate INVALID,UNTRACKED,RELATED",
    "-m conntrack --ctstate DNAT",
    "-m conntrack --ctstate SNAT,DNAT",
    "-m conntrack --ctproto udp",
    "-m conntrack ! --ctproto udp",
    "-m conntrack --ctproto 17 --ctorigsrcport 201 --ctorigdstport 101:107",
    "-m conntrack --ctproto 17 ! --ctreplsrcport 109",
    "-p udp -m conntrack --ctrepldstport 1:201 --ctdir ORIGINAL",
    "-p udp --dport 109 -m conntrack --ctorigdstport 107",
    "-m conntrack --ctdir ORIGINAL",
    "-m conntrack --ctdir REPLY",
    "-m conntrack --ctstatus SEEN_REPLY,EXPECTED",
    "-m conntrack ! --ctstatus SEEN_REPLY,EXPECTED",
    "-m conntrack --ctstatus CONFIRMED",
    "-m conntrack ! --ctstatus CONFIRMED,ASSURED",
    # Timeouts are 10, 30 or 120 s: no limit here is near one, so that a tick of the clock changes nothing.
    "-m conntrack --ctexpire 20:100",
    "-m conntrack ! --ctexpire 20:",
    "-m conntrack --ctexpire 0:60",
    "-m mark --mark 0x12",
    "-m mark ! --mark 0x12",
    "-m mark --mark 0x10/0xf0",
    "-m mark ! --mark 0x2/0xf",
    "-m mark --mark 0x0/0xfffffff0",
    "-m mark ! --mark 0xffff0000/0xffff0000",
    *(f"-m mark --mark {value:#x}" for value in (0x0, 0x2, 0x10, 0x1F, 0xED, 0x115, 0x30, 0x117)),
    *(f"-m connmark --mark {value:#x}" for value in (0x0, 0x2, 0x12, 0x33, 0x1C, 0xFC, 0x10)),
    "-m connmark --mark 0/0",
    "-m connmark ! --mark 0x10/0x10",
    "-m connmark --mark 0x30/0xf0",
    "-m connmark ! --mark 0x0/0xffffff00",
    "-m limit --limit 1/hour --limit-burst 3",
    "-p udp -m limit --limit 1/hour",
    "-m limit --limit 1/hour -m state --state NEW",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-m addrtype --src-type LOCAL --limit-iface-in",
    "-m addrtype ! --dst-type LOCAL --limit-iface-in",
    "-m mac --mac-source 00:00:00:00:00:00",  # loopback is no Ethernet: neither of the two is ever met
    "-m mac ! --mac-source aa:aa:aa:aa:aa:aa",
    "-j LOG --log-prefix x",
]
OWN = {
    Family.IPV4: [
        "-p icmp",
        "-p icmp --icmp-type any",
        "-p icmp ! --icmp-type any",
        "-p icmp --icmp-type 8",
        "-p icmp ! --icmp-type 8",
        "-p icmp --icmp-type 3/3",
        "-p icmp ! --icmp-type 3/3",
        "-p icmp --icmp-type 3",
        "-p icmp --icmp-type 8/1",
        "-p icmp -m state --state RELATED",
        "-m conntrack --ctproto 17 -m conntrack --ctstate RELATED",
        "-m addrtype --dst-type UNICAST,BROADCAST",
        "-m addrtype ! --dst-type BROADCAST",
        "-m addrtype --dst-type MULTICAST",
        "-m addrtype ! --src-type LOCAL --dst-type LOCAL",
        "-m iprange --src-range 127.0.0.2-127.0.0.9",
        "-m iprange ! --src-range 127.0.0.2-127.0.0.9",
        "-m iprange --src-range 127.0.0.9-127.0.0.2",
        "-m iprange ! --src-range 127.0.0.9-127.0.0.2",
        "-m iprange ! --src-range 0.0.0.0-255.255.255.255",
        "-m iprange --dst-range 127.0.0.0-127.0.0.255",
        "-m conntrack --ctorigsrc 127.0.0.2",
        "-m conntrack ! --ctorigsrc 127.0.0.2",
        "-m conntrack --ctreplsrc 127.0.0.0/24 ! --ctrepldst 127.0.0.2",
    ],
    Family.IPV6: [
        "-p icmpv6 --icmpv6-type 128",
        "-p icmpv6 ! --icmpv6-type 128",
        "-p icmpv6 --icmpv6-type 1/4",
        "-p icmpv6 ! --icmpv6-type 1/4",
        "-p icmpv6 --icmpv6-type 128/1",
        "-p icmpv6 -m state --state RELATED",
        "-m iprange --src-range ::2-::9",
        "-m iprange ! --src-range ::2-::9",
        "-m conntrack --ctorigsrc ::1",
        "-m conntrack ! --ctrepldst ::/64",
    ],
}


def rules(family: Family) -> list[Rule]:
    return [
        parse_rule(text, family=family, language=LANGUAGE) for text in (*CHANGES, *BOTH, *OWN[family], *PACKETS[family])
    ]


# --- packets -----------------------------------------------------------------------------------------------


def send_datagrams(address: str, kind: int) -> None:
    receivers = []
    for port in range(101, 110):
        receiver = socket.socket(kind, socket.SOCK_DGRAM)
        receiver.bind((address, port))
        receivers.append(receiver)
    for sport, mark in ((201, 0), (202, 0xED)):
        sender = socket.socket(kind, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sender.bind((address, sport))
        for port in range(101, 109):
            for _ in range(2):
                sender.sendto(b"x", (address, port))
        receivers[0].sendto(b"back", (address, sport))
        sender.sendto(b"again", (address, 101))
        sender.sendto(b"x", (address, 999))  # nobody there: an ICMP error comes back
        receivers.append(sender)
    for opened in receivers:
        opened.close()


def send_segments(address: str, kind: int) -> None:
    options = b"\x02\x04\x05\xb4"
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.bind((address, 0))
        for port, flags in enumerate((0, *FLAGS.values(), 0x12, 0x3F, 0x29, 0x14, 0x30), 80):
            raw.sendto(segment(address, port, 81, flags), (address, 0))
            raw.sendto(segment(address, 2000 + port, 90, flags, options), (address, 0))
            raw.sendto(segment(address, 3000 + port, 91, flags, b"\x01\x01\x08\x0a" + b"\0" * 8), (address, 0))
            raw.sendto(segment(address, 4000 + port, 92, flags, b"\xfd\x04\0\0"), (address, 0))


def send_chunks(address: str, kind: int) -> None:
    """SCTP packets of one and more chunks, without a checksum, which no rule looks at (RFC 9260, section 3)."""
    with socket.socket(kind, socket.SOCK_RAW, 132) as raw:
        raw.bind((address, 0))
        for sport, types in enumerate(((1,), (0,), (0, 3), (3,), (10, 0), (192, 7), (6,)), 70):
            chunks = b"".join(struct.pack("!BBHI", number, 0, 8, 0) for number in types)
            for dport in (9, 10):
                raw.sendto(struct.pack("!HHII", sport, dport, 1, 0) + chunks, (address, 0))


def send_icmp(address: str, kind: int) -> None:
    protocol = socket.IPPROTO_ICMPV6 if kind == socket.AF_INET6 else socket.IPPROTO_ICMP
    messages = [(128, 0), (128, 1), (1, 4)] if kind == socket.AF_INET6 else [(8, 0), (8, 1), (13, 0), (3, 3), (3, 4)]
    with socket.socket(kind, socket.SOCK_RAW, protocol) as raw:
        for number, code in messages:
            head = struct.pack("!BBHHH", number, code, 0, 7, 1) + b"payload!" * 5
            raw.sendto(head[:2] + struct.pack("!H", checksum(head)) + head[4:], (address, 0))


def send_headers(address: str, kind: int) -> None:
    """Classes of service, hops, lengths and IPsec's indexes at the limits that rules look at."""
    held = [
        packet(address, 17, datagram(address, 204, 101, b"x" * size), tos=tos, hops=hops)
        for size, (tos, hops) in enumerate(
            [(0, 4), (1, 5), (2, 6), (3, 255), (0x10, 254), (0x11, 64), (0x13, 64), (0xB8, 64), (0xBF, 64), (0xFF, 64)]
        )
    ]
    held += [packet(address, 17, datagram(address, 204, 101, b"x" * size)) for size in range(20, 80, 2)]
    for index in (0, 4, 5, 6, 9, 10, 0xFFFFFFFF):
        word = struct.pack("!I", index)
        # Of ESP as much as a look at it needs; an AH of 12 octets before nothing, and one of 16 (RFC 4302): what
        # follows it in IPv6 is the packet's protocol to ip6tables, but not to nft.
        held += [packet(address, 50, word + bytes(12)), packet(address, 108, b"\x3b\0" + word[2:] + bytes(8))]
        held.append(packet(address, 51, b"\x3b\x01\0\0" + word + bytes(4)))
    for reserved in (b"\0\0", b"\0\1"):
        held.append(packet(address, 51, b"\x3b\x02" + reserved + bytes(12)))
    for size in (0, 1459, 1460, 1461, 0xFFFF):
        held.append(packet(address, 6, segment(address, 4000, 92, 2, struct.pack("!BBH", 2, 4, size))))
    held += [packet(address, 6, segment(address, 4001, 92, flags)) for flags in (0x40, 0x80, 0xC0, 0xD0)]
    with sender(address) as raw:
        for octets in held:
            raw.sendto(octets, (address, 0))


def send_to_groups() -> None:
    """Broadcast and multicast over loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sender.bind(("127.0.0.1", 203))
        sender.sendto(b"x", ("127.255.255.255", 101))
        sender.sendto(b"x", ("224.0.0.1", 101))


def send(family: Family) -> None:
    """The same packets every time; everything is delivered before the call that sends it returns."""
    if family is Family.IPV6:
        for step in (send_datagrams, send_segments, send_chunks, send_icmp, send_headers):
            step("::1", socket.AF_INET6)
        return
    for address in ("127.0.0.1", "127.0.0.2"):
        for step in (send_datagrams, send_segments, send_chunks, send_icmp, send_headers):
            step(address, socket.AF_INET)
    send_to_groups()


@contextmanager
def place(family: Family) -> Iterator[None]:
    """A namespace whose loopback is in a group, and the route to one of its addresses in a realm."""
    with Netns() as room, room.entered():
        subprocess.run(["ip", "link", "set", "lo", "group", "17"], check=True)
        if family is Family.IPV4:
            route = "ip route replace local 127.0.0.2 dev lo table local proto kernel scope host src 127.0.0.2 realm 5"
            subprocess.run(route.split(), check=True)
        yield


# --- counters ----------------------------------------------------------------------------------------------


def counted_by_iptables(family: Family, environment: dict[str, str]) -> list[int]:
    tool = "iptables-legacy" if family is Family.IPV4 else "ip6tables-legacy"
    nat = parse_rule(NAT, family=family, language=LANGUAGE)
    lines = ["*nat", f"-A OUTPUT {format_rule(nat, family=family, language=LANGUAGE)}", "COMMIT", "*filter"]
    lines += [f"-A INPUT {format_rule(rule, family=family, language=LANGUAGE)}" for rule in rules(family)]
    with place(family):
        script = "\n".join([*lines, "COMMIT", ""])
        subprocess.run([f"{tool}-restore"], input=script, text=True, env=environment, check=True)
        send(family)
        saved = subprocess.run(
            [f"{tool}-save", "-c", "-t", "filter"], capture_output=True, text=True, env=environment, check=True
        ).stdout
    return [int(packets) for packets in re.findall(r"^\[(\d+):\d+\] -A INPUT", saved, re.MULTILINE)]


def counted_by_nft(family: Family) -> list[int]:
    network = FAMILIES[family]
    nat = render_rule(parse_rule(NAT, family=family, language=LANGUAGE), family=family, language=LANGUAGE)
    lines = [
        f"add table {network} t",
        f"add chain {network} t nat {{ type nat hook output priority -100; }}",
        f"add rule {network} t nat {nat}",
        f"add chain {network} t input {{ type filter hook input priority 0; }}",
    ]
    lines += [
        f"add rule {network} t input {render_rule(rule, family=family, language=LANGUAGE)}" for rule in rules(family)
    ]
    with place(family):
        subprocess.run(["nft", "-f", "-"], input="\n".join([*lines, ""]), text=True, check=True)
        send(family)
        listed = subprocess.run(
            ["nft", "-j", "list", "chain", network, "t", "input"], capture_output=True, text=True, check=True
        ).stdout
    found = [item["rule"]["expr"] for item in json.loads(listed)["nftables"] if "rule" in item]
    return [statement["counter"]["packets"] for held in found for statement in held if "counter" in statement]


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
def test_a_packet_meets_a_rule_on_nft_as_on_iptables(
    requires: Callable[..., None], tmp_path: Path, family: Family
) -> None:
    requires("nft", "iptables-legacy-restore", "ip6tables-legacy-restore")
    environment = {**os.environ, "XTABLES_LOCKFILE": str(tmp_path / "lock")}
    texts = [format_rule(rule, family=family, language=LANGUAGE) for rule in rules(family)]
    on_iptables = counted_by_iptables(family, environment)
    on_nft = counted_by_nft(family)
    assert len(on_iptables) == len(on_nft) == len(texts)
    pairs = zip(texts, on_iptables, on_nft, strict=True)
    assert {text: (one, other) for text, one, other in pairs if one != other} == {}
    met = sum(1 for count in on_nft if count)
    assert met > len(texts) * 2 // 3, "packets that meet nothing prove nothing"
