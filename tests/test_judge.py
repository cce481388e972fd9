"""Laws of the judge's pure parts: probes as bytes and back, the edges of rules, and the shrinking of rulesets."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.languages.iptables import parse_rule
from meshfw.model import Drop, Family, Hook, Packet, Rule, Ruleset, parse_address
from meshfw.testing.judge.connecting import ACK, FIN, RST, SYN, first_state
from meshfw.testing.judge.edges import edges
from meshfw.testing.judge.frames import DCCP, ESP, HEADERS, NUMBERS, Probe, build, checksum, number_of, read
from meshfw.testing.judge.making import MATCHES_LEFT_OUT, TARGETS_LEFT_OUT, Pool
from meshfw.testing.judge.probing import Aim, ProbeMaker
from meshfw.testing.judge.shrinking import shrunk
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import CASES

ENDS = {Family.IPV4: ("10.4.0.9", "192.0.2.5"), Family.IPV6: ("fd00:4::9", "2001:db8:2::5")}
NUMBER = 77_777


def packet(family: Family, protocol: int, **fields: Any) -> Packet:
    source, destination = (parse_address(text)[1] for text in ENDS[family])
    usual: dict[str, Any] = {"source": source, "destination": destination, "protocol": protocol, "tos": 0x48, "ttl": 9}
    return Packet(family=family, **{**usual, **fields})


def every_kind() -> Iterator[Probe]:
    for family in Family:
        icmp = 1 if family is Family.IPV4 else 58
        for protocol in (6, 17, 132, 136, DCCP, ESP, 47, 89):
            ports = {"sport": 1023, "dport": 8080} if protocol in (6, 17, 132, 136, DCCP) else {}
            yield Probe(packet=packet(family, protocol, **ports, tcp_flags=SYN | ACK if protocol == 6 else None))
        yield Probe(packet=packet(family, icmp, icmp=(8, 0) if family is Family.IPV4 else (128, 0)))
        about = packet(family, 17, sport=1, dport=2)
        yield Probe(packet=packet(family, icmp, icmp=(3, 3) if family is Family.IPV4 else (1, 4)), about=about)


@pytest.mark.parametrize(
    "probe", list(every_kind()), ids=lambda probe: f"{probe.packet.family}-{probe.packet.protocol}"
)
def test_what_is_built_is_read_and_known_again(probe: Probe) -> None:
    data = build(probe, NUMBER, label=3)
    seen, sent = read(data), probe.packet
    assert number_of(data) == NUMBER
    assert (seen.protocol, seen.source, seen.destination) == (sent.protocol, sent.source, sent.destination)
    assert (seen.sport, seen.dport, seen.icmp) == (sent.sport or 0, sent.dport or 0, sent.icmp)
    assert (seen.flags, seen.tos, seen.ttl) == (sent.tcp_flags or 0, sent.tos, sent.ttl)


@pytest.mark.parametrize("length", [60, 61, 1400])
@pytest.mark.parametrize("family", Family)
def test_a_length_is_the_whole_packets(family: Family, length: int) -> None:
    data = build(Probe(packet=packet(family, 17, sport=1, dport=2, length=length)), 1)
    assert len(data) == length
    told = struct.unpack_from("!H", data, 2 if family is Family.IPV4 else 4)[0]
    assert told == (length if family is Family.IPV4 else length - HEADERS[family])


def test_a_reset_is_known_by_what_it_acknowledges() -> None:
    sent = build(Probe(packet=packet(Family.IPV4, 6, sport=7, dport=8)), NUMBERS - 1)
    sequence = struct.unpack_from("!I", sent, 24)[0]
    reset = bytearray(sent[:40])
    struct.pack_into("!IIBB", reset, 24, 0, sequence + 13, 0x50, RST | ACK)
    assert number_of(bytes(reset)) == NUMBERS - 1


def test_checksums_are_the_internets() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2  # the example of RFC 1071, section 3
    assert checksum(b"\x01") == checksum(b"\x01\x00")


EDGES = [
    ("-p udp --dport 100:200", "dport", [99, 100, 200, 201]),
    ("-p tcp --sport 0", "sport", [0, 1]),
    ("-m mark --mark 0x10/0xf0", "marks", [0x0, 0x10]),
    ("-p icmp --icmp-type 3/1", "icmp", [(2, 0), (3, 1), (3, 2), (4, 1)]),
    ("-p tcp --tcp-flags SYN,ACK SYN", "flags", [SYN, SYN | ACK, 0]),
]


@pytest.mark.parametrize(("text", "field", "wanted"), EDGES)
def test_both_sides_of_a_bound_are_tried(text: str, field: str, wanted: list[object]) -> None:
    rule = parse_rule(text, family=Family.IPV4, language=LANGUAGE)
    assert set(wanted) <= set(getattr(edges(rule, family=Family.IPV4, sets={}), field))


def test_the_addresses_beside_a_network_and_a_set_are_tried() -> None:
    rule = parse_rule("-s 10.4.0.4/30 -d @some", family=Family.IPV4, language=LANGUAGE)
    found = edges(rule, family=Family.IPV4, sets={"some": ((5, 9),)})
    first = parse_address("10.4.0.4")[1]
    assert {first - 1, first, first + 3, first + 4} <= set(found.source)
    assert {4, 5, 9, 10} <= set(found.destination)


STATES = [(SYN, "NEW"), (ACK, "NEW"), (SYN | ACK, "INVALID"), (RST, "INVALID"), (FIN | ACK, "INVALID"), (0, "INVALID")]


@pytest.mark.parametrize(("flags", "state"), STATES)
def test_the_first_segment_tells_its_state(flags: int, state: str) -> None:
    assert first_state(packet(Family.IPV4, 6, tcp_flags=flags)) == state


def test_half_of_the_probes_meet_the_rule_and_none_comes_twice() -> None:
    rule = parse_rule("-s 10.4.0.4/30 -p udp --dport 100:200", family=Family.IPV4, language=LANGUAGE)
    chance = random.Random(5)  # noqa: S311 - the same in every run
    probes = ProbeMaker([Aim(rule, Hook.FORWARD)], family=Family.IPV4, sets={}, chance=chance).make(400)
    assert len({(probe.packet, probe.start) for probe in probes}) == 400
    met = sum(rule.meets(probe.packet, {}) is True for probe in probes)
    assert 180 < met < 380


def test_every_condition_that_has_a_case_is_judged_or_left_out_with_a_reason() -> None:
    texts = [case.written for case in CASES]
    pools = [Pool.of(texts, family=family, language=LANGUAGE) for family in Family]
    judged = {LANGUAGE.by_value[type(match)].name for pool in pools for match in pool.matches}
    stateful = {extension.name for value, extension in LANGUAGE.by_value.items() if getattr(value, "stateful", False)}
    missing = set(LANGUAGE.matches) - judged - stateful - set(MATCHES_LEFT_OUT)
    aliases = {alias for extension in LANGUAGE.by_value.values() for alias in extension.aliases}
    assert missing - aliases <= {"comment"}
    assert all({**MATCHES_LEFT_OUT, **TARGETS_LEFT_OUT}.values())


DUMP = """*filter
:FORWARD DROP
:a -
:b -
-A FORWARD -p tcp -j a
-A FORWARD -p udp -j ACCEPT
-A a -s 10.0.0.0/8 -j ACCEPT
-A a -p tcp --dport 22 -m mark --mark 1 -j b
-A b -m mark --mark 7 -p tcp -j DROP
-A b -j RETURN
COMMIT
"""


def test_a_ruleset_shrinks_to_the_one_rule_that_shows_it() -> None:
    def shows(ruleset: Ruleset) -> bool:
        return any(isinstance(rule.target, Drop) for chain in ruleset.chains for rule in chain.rules)

    least = shrunk(ruleset_of_dump(parse_dump(DUMP, family=Family.IPV4, language=LANGUAGE)), shows)
    rules = [rule for chain in least.chains for rule in chain.rules]
    assert rules == [Rule(target=rules[0].target)]
    assert len(least.attachments) == 1
