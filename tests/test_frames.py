"""Laws of numbered packets: what was built is read back, also out of an ICMP error that quotes it."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from meshfw.extensions.tcp import FLAGS
from meshfw.model import Family
from meshfw.testing.frames import NUMBERS, Packet, build, parse, parse_payload

V4, V6 = Family.IPV4, Family.IPV6


def addresses(family: Family) -> st.SearchStrategy[str]:
    return st.ip_addresses(v=4 if family is V4 else 6).map(str)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    family = draw(st.sampled_from(list(Family)))
    protocol = draw(st.sampled_from(["udp", "tcp", "icmp", "sctp"]))
    ports = st.integers(0, 0xFFFF) if protocol != "icmp" else st.just(0)
    return Packet(
        family=family,
        protocol=protocol,
        source=draw(addresses(family)),
        destination=draw(addresses(family)),
        sport=draw(ports),
        dport=draw(ports),
        flags=draw(st.sampled_from([FLAGS["SYN"], FLAGS["ACK"], FLAGS["SYN"] | FLAGS["ACK"], 0])),
        number=draw(st.integers(0, NUMBERS - 1)),
    )


@given(packets())
def test_what_was_built_is_read_back(packet: Packet) -> None:
    seen = parse(build(packet))
    assert seen is not None
    assert (seen.number, seen.sport, seen.dport) == (packet.number, packet.sport, packet.dport)
    assert ipaddress.ip_address(seen.source) == ipaddress.ip_address(packet.source)
    assert ipaddress.ip_address(seen.destination) == ipaddress.ip_address(packet.destination)


@given(packets(), st.sampled_from([8, 64]))
def test_a_packet_is_known_in_the_error_that_quotes_it(packet: Packet, quoted: int) -> None:
    if packet.protocol != "tcp":
        quoted = 64  # the number is in the payload, of which Linux quotes as much as fits
    head = 20 if packet.family is V4 else 40
    kind, protocol = ((3, 3), 1) if packet.family is V4 else ((1, 4), 58)
    error = struct.pack("!BBHI", *kind, 0, 0) + build(packet)[: head + quoted]
    seen = parse_payload(packet.family, protocol, error, source="192.0.2.1", destination="10.4.0.9")
    assert seen is not None
    assert (seen.kind, seen.number, seen.source) == ("port-unreachable", packet.number, "192.0.2.1")
    assert (seen.sport, seen.dport) == (packet.sport, packet.dport)


def test_a_reset_is_known_by_the_number_it_acknowledges() -> None:
    sent = Packet(family=V4, protocol="tcp", source="10.4.0.9", destination="192.0.2.5", sport=1, dport=2, number=77)
    (sequence,) = struct.unpack_from("!I", build(sent), 24)
    for answer in (
        struct.pack("!HHIIBBHHH", 2, 1, 0, sequence + 1, 5 << 4, FLAGS["RST"] | FLAGS["ACK"], 0, 0, 0),
        struct.pack("!HHIIBBHHH", 2, 1, sequence, 0, 5 << 4, FLAGS["RST"], 0, 0, 0),
    ):
        seen = parse_payload(V4, 6, answer, source="192.0.2.5", destination="10.4.0.9")
        assert seen is not None
        assert (seen.number, seen.kind) == (77, "reset")


@given(st.binary(max_size=128))
def test_other_packets_are_none_of_ours(data: bytes) -> None:
    for version in (0x45, 0x60):
        seen = parse(bytes([version]) + data)
        assert seen is None or b"\x5a" in data  # a TCP sequence number may look like ours by chance
