"""Laws of evaluation: which packets meet which conditions, and what becomes of them at rules, hooks and targets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import ModelError
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.languages.iptables import parse_rule
from meshfw.model import (
    ACCEPT,
    DROP,
    Attachment,
    Chain,
    ElementType,
    Family,
    Fate,
    Hook,
    Packet,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    Table,
    Target,
    every,
    format_address,
    parse_address,
    some,
    turned,
)
from meshfw.packet import Evaluator, Journey, Passage, Way, evaluate, journey
from tests.extensions.case import LANGUAGE

SYN, ACK = 0x02, 0x10


def address(text: str) -> int:
    return parse_address(text)[1]


def tcp(**fields: Any) -> Packet:
    usual = {
        "source": address("10.0.0.7"),
        "destination": address("192.0.2.5"),
        "protocol": 6,
        "sport": 40000,
        "dport": 443,
        "tcp_flags": SYN,
        "in_interface": "eth0",
        "out_interface": "wg0",
        "state": "NEW",
    }
    return Packet(family=Family.IPV4, **{**usual, **fields})


def udp(**fields: Any) -> Packet:
    return tcp(**{"protocol": 17, "tcp_flags": None, "dport": 53, **fields})


def icmp(kind: int, code: int = 0, **fields: Any) -> Packet:
    return tcp(protocol=1, sport=None, dport=None, tcp_flags=None, icmp=(kind, code), **fields)


LATER = tcp(sport=None, dport=None, tcp_flags=None, fragment=True)


def rule(text: str, family: Family = Family.IPV4) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def ruleset(text: str, family: Family = Family.IPV4) -> Ruleset:
    lines = [line.strip() for line in text.strip().splitlines()]
    tables = "\n".join(lines).replace("\n*", "\nCOMMIT\n*") + "\nCOMMIT\n"
    return ruleset_of_dump(parse_dump(tables, family=family, language=LANGUAGE))


def at(text: str, packet: Packet, hook: Hook = Hook.FORWARD) -> Passage:
    return evaluate(ruleset(text), packet, hook=hook)


def forwarded(text: str, packet: Packet) -> Journey:
    return journey(ruleset(text), packet, way=Way.FORWARD)


def verdicts(held: Passage | Journey) -> list[str]:
    return [str(verdict) for verdict in held.verdicts]


def marks(found: Journey) -> set[int | None]:
    return {ending.packet.mark for ending in found.endings}


# --- three-valued logic ---

ANSWERS = st.sampled_from((True, False, None))


@given(st.lists(ANSWERS, max_size=4))
def test_what_is_not_known_may_be_either(answers: list[bool | None]) -> None:
    worlds: list[list[bool]] = [[]]
    for answer in answers:
        worlds = [[*world, value] for world in worlds for value in (True, False) if answer in (None, value)]
    for ask, plain in ((every, all), (some, any)):
        found = {plain(world) for world in worlds}
        assert ask(answers) == (found.pop() if len(found) == 1 else None)


@given(ANSWERS, st.booleans())
def test_a_negation_turns_what_is_known(answer: bool | None, negated: bool) -> None:
    assert turned(answer, negated) == (None if answer is None else answer != negated)


# --- conditions ---

MEETS = [
    # base conditions
    ("-s 10.0.0.0/8", tcp(), True),
    ("-s 10.0.0.0/8", tcp(source=None), None),
    ("! -s 10.0.0.0/8", tcp(), False),
    ("-s 10.0.0.7/255.0.0.255", tcp(source=address("10.9.9.7")), True),
    ("-d 192.0.2.4/31", tcp(), True),
    ("-d 192.0.2.4", tcp(source=None), False),
    ("-s 10.0.0.0/8 -d 192.0.2.4", tcp(source=None), False),  # one thing that isn't met settles it
    ("-i eth+", tcp(), True),
    ("-i eth0+", tcp(), True),
    ("-i eth", tcp(), False),
    ("-i eth0", tcp(in_interface=""), False),
    ("! -i eth0", tcp(in_interface=""), True),
    ("! -i eth0", tcp(in_interface=None), None),
    ("! -o wg+", tcp(), False),
    ("-p tcp", tcp(protocol=None), None),
    ("! -p tcp", udp(), True),
    ("-p tcp", LATER, True),
    ("-f", LATER, True),
    ("! -f", LATER, False),
    ("-f", tcp(), False),
    # ports
    ("-p tcp --dport 440:450", tcp(), True),
    ("-p tcp ! --dport 440:450", tcp(), False),
    ("-p tcp --sport 1:100", tcp(), False),
    ("-p tcp --dport 443", tcp(dport=None), None),
    ("-p tcp --dport 443", LATER, False),
    ("-p tcp ! --dport 443", LATER, False),
    ("-p tcp -m tcp", LATER, False),
    ("-p udp --dport 53", udp(), True),
    ("-p udp --dport 53", tcp(dport=53), False),
    ("-p sctp --sport 40000", tcp(protocol=132), True),
    ("-p sctp --chunk-types any INIT", tcp(protocol=132), None),
    ("-p sctp --dport 1 --chunk-types any INIT", tcp(protocol=132), False),
    ("-p tcp -m multiport --dports 80,440:450", tcp(), True),
    ("-p tcp -m multiport ! --dports 80,443", tcp(), False),
    ("-p tcp -m multiport --ports 443", tcp(sport=None), True),
    ("-p tcp -m multiport ! --ports 443", tcp(sport=None), False),
    ("-p tcp -m multiport --ports 80", tcp(sport=None), None),
    ("-p tcp -m multiport ! --dports 80", LATER, False),
    # flags and types
    ("-p tcp --syn", tcp(), True),
    ("-p tcp --syn", tcp(tcp_flags=SYN | ACK), False),
    ("-p tcp ! --syn", tcp(tcp_flags=ACK), True),
    ("-p tcp ! --syn", LATER, False),
    ("-p tcp --tcp-flags SYN,ACK NONE", tcp(tcp_flags=None), None),
    ("-p tcp --tcp-option 2", tcp(), None),
    ("-p tcp --dport 80 --tcp-option 2", tcp(), False),
    ("-p icmp --icmp-type 8", icmp(8), True),
    ("-p icmp --icmp-type 3/4", icmp(3, 4), True),
    ("-p icmp --icmp-type 3/4", icmp(3), False),
    ("-p icmp ! --icmp-type 3/4", icmp(3), True),
    ("-p icmp --icmp-type any", icmp(77, 7), True),
    ("-p icmp --icmp-type 8", tcp(protocol=1, icmp=None), None),
    ("-p icmp ! --icmp-type 8", tcp(protocol=1, fragment=True), False),
    # addresses and links
    ("-m iprange --src-range 10.0.0.1-10.0.0.7", tcp(), True),
    ("-m iprange ! --src-range 10.0.0.1-10.0.0.7", tcp(), False),
    ("-m iprange --src-range 10.0.0.1-10.0.0.6 --dst-range 1.1.1.1-2.2.2.2", tcp(destination=None), False),
    ("-m mac --mac-source 02:00:00:00:00:01", tcp(), None),
    ("-m mac --mac-source 02:00:00:00:00:01", tcp(mac="02:00:00:00:00:01"), True),
    ("-m mac ! --mac-source 02:00:00:00:00:01", tcp(mac="02:00:00:00:00:02"), True),
    ("-m mac ! --mac-source 02:00:00:00:00:01", tcp(mac=""), False),
    ("-m addrtype --dst-type LOCAL", tcp(), None),
    ("-m addrtype --dst-type LOCAL", tcp(destination_type="LOCAL"), True),
    ("-m addrtype --dst-type LOCAL,BROADCAST", tcp(destination_type="UNICAST"), False),
    ("-m addrtype ! --dst-type LOCAL", tcp(destination_type="UNICAST"), True),
    ("-m addrtype --dst-type LOCAL --limit-iface-in", tcp(destination_type="LOCAL"), None),
    # the IP header
    ("-m dscp --dscp 4", tcp(tos=0x11), True),
    ("-m dscp ! --dscp 4", tcp(tos=0x11), False),
    ("-m dscp --dscp 4", tcp(tos=None), None),
    ("-m tos ! --tos 0x10/0x3c", tcp(tos=0x53), False),
    ("-m tos --tos 0x11/0x10", tcp(tos=None), False),
    ("-m tos --tos 0/0", tcp(tos=None), True),
    ("-m ecn --ecn-ip-ect 3", tcp(tos=0xFF), True),
    ("-p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr", tcp(tcp_flags=0x50), True),
    ("-p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr", tcp(tcp_flags=0xD0), False),
    ("-p tcp -m ecn --ecn-tcp-ece --ecn-ip-ect 1", tcp(tcp_flags=None, tos=0), False),
    ("-p tcp -m ecn --ecn-tcp-ece --ecn-ip-ect 1", tcp(tcp_flags=None, tos=1), None),
    ("-m ttl --ttl-lt 5", tcp(ttl=4), True),
    ("-m ttl --ttl-gt 5", tcp(ttl=5), False),
    ("-m ttl ! --ttl-eq 5", tcp(ttl=None), None),
    ("-m ttl --ttl-gt 255", tcp(ttl=None), False),
    ("-m length --length 60:100", tcp(length=60), True),
    ("-m length ! --length 60:100", tcp(length=100), False),
    ("-m length --length 100:60", tcp(length=None), False),
    ("-m length ! --length 100:60", tcp(length=None), True),
    ("-p esp -m esp --espspi 5", tcp(protocol=50), None),
    ("-p esp -m esp ! --espspi :", tcp(protocol=50), False),
    ("-p esp -m esp", tcp(protocol=50, fragment=True), False),
    ("-p ah --ahspi 5", tcp(protocol=51), None),
    ("-p ipcomp --ipcompspi 65536", tcp(protocol=108), False),
    ("-p tcp -m tcpmss --mss 5", tcp(), None),
    ("-m pkttype --pkt-type unicast", tcp(), None),
    # marks
    ("-m mark --mark 0x10/0xf0", tcp(mark=0x13), True),
    ("-m mark ! --mark 0x10/0xf0", tcp(mark=0x13), False),
    ("-m mark --mark 0x10", tcp(mark=None), None),
    ("-m mark --mark 0x0/0x0", tcp(mark=None), True),
    ("-m mark --mark 0x11/0x1", tcp(mark=None), False),
    ("-m connmark --mark 7", tcp(ct_mark=7), True),
    ("-m connmark --mark 7", tcp(), None),
    ("-m connmark ! --mark 7", tcp(ct_mark=1, state="UNTRACKED"), False),
    ("-m connmark ! --mark 7", tcp(ct_mark=1, state=None), None),
    ("-m connmark --mark 7", tcp(ct_mark=1, state=None), False),
    # connections
    ("-m state --state NEW", tcp(), True),
    ("-m state ! --state NEW", tcp(), False),
    ("-m state --state NEW", tcp(state=None), None),
    ("-m state --state UNTRACKED", tcp(state="UNTRACKED"), True),
    ("-m conntrack ! --ctstate NEW,ESTABLISHED", tcp(state="UNTRACKED"), True),
    ("-m conntrack --ctstate NEW,ESTABLISHED,RELATED,INVALID,UNTRACKED", tcp(state=None), True),
    ("-m conntrack --ctstate DNAT", tcp(dnat=True), True),
    ("-m conntrack --ctstate DNAT", tcp(dnat=False), False),
    ("-m conntrack --ctstate SNAT,DNAT", tcp(dnat=False), None),
    ("-m conntrack ! --ctstate DNAT", tcp(state="INVALID"), True),
    ("-m conntrack --ctproto 6", tcp(), True),
    ("-m conntrack --ctproto 6", tcp(state="INVALID"), False),
    ("-m conntrack ! --ctproto 17", tcp(state="INVALID"), False),
    ("-m conntrack --ctproto 1", icmp(3, state="RELATED"), None),  # the connection that the error tells of
    ("-m conntrack --ctstate INVALID --ctproto 17", tcp(state="INVALID"), True),
    ("-m conntrack --ctstate INVALID --ctproto 17", tcp(state="NEW"), False),
    ("-m conntrack --ctproto 17", tcp(state=None), False),
    ("-m conntrack --ctproto 6", tcp(state=None), None),
    ("-m conntrack --ctstatus SEEN_REPLY,ASSURED", tcp(), False),
    ("-m conntrack ! --ctstatus CONFIRMED", tcp(), True),
    ("-m conntrack --ctstatus SEEN_REPLY", tcp(state="ESTABLISHED"), True),
    ("-m conntrack --ctstatus ASSURED", tcp(state="ESTABLISHED"), None),
    ("-m conntrack --ctstatus NONE", tcp(state="ESTABLISHED"), False),
    ("-m conntrack --ctdir ORIGINAL", tcp(), None),
    ("-m conntrack --ctdir REPLY", tcp(direction="ORIGINAL"), False),
    ("-m conntrack --ctreplsrc 192.0.2.5 --ctrepldstport 40000", tcp(), True),
    ("-m conntrack --ctreplsrc 192.0.2.5", tcp(state="ESTABLISHED"), None),
    ("-m conntrack --ctorigdst 192.0.2.5", tcp(), None),  # it may have been sent to another address before
    ("-m conntrack --ctexpire 1:2", tcp(), None),
    # what a packet alone never tells
    ("-m limit --limit 1/hour", tcp(), None),
    ("-p udp -m limit --limit 1/hour", tcp(), False),
    ("-m unheard-of --option", tcp(), None),
    ("-m comment --comment x", tcp(), True),
    ("", tcp(), True),
]


@pytest.mark.parametrize(("text", "packet", "answer"), MEETS, ids=[f"{text}-{answer}" for text, _, answer in MEETS])
def test_a_packet_meets_a_rule_as_the_kernel_has_it(text: str, packet: Packet, answer: bool | None) -> None:
    assert rule(text).meets(packet, {}) is answer


def test_icmpv6_has_no_type_that_stands_for_any() -> None:
    packet = Packet(family=Family.IPV6, protocol=58, icmp=(128, 0))
    assert rule("-p icmpv6 --icmpv6-type 128", Family.IPV6).meets(packet, {}) is True
    assert rule("-p icmpv6 --icmpv6-type 255", Family.IPV6).meets(packet, {}) is False


@pytest.mark.parametrize(
    ("text", "answer"),
    [("-s @hosts", True), ("! -s @hosts", False), ("-p tcp --dport @web", True), ("-p tcp ! --sport @web", True)],
)
def test_a_set_holds_its_elements(text: str, answer: bool) -> None:
    hosts = Set.of(Family.IPV4, "hosts", ["10.0.0.0/24", "10.0.9.1-10.0.9.3"])
    web = Set.of(Family.IPV4, "web", ["80", "440-450"], type=ElementType.PORT)
    sets = {entry.name: entry.elements for entry in (hosts, web)}
    assert rule(text).meets(tcp(), sets) is answer
    assert rule(text).meets(tcp(), {}) is None


@given(st.lists(st.integers(0, 40), max_size=9), st.integers(0, 40))
def test_a_value_is_within_a_set_as_in_a_python_set(values: list[int], value: int) -> None:
    ports = Set.of(Family.IPV4, "p", map(str, values), type=ElementType.PORT)
    packet = tcp(dport=value)
    assert rule("-p tcp --dport @p").meets(packet, {"p": ports.elements}) is (value in values)


# --- chains ---


def test_the_first_verdict_counts_and_the_policy_stands_behind() -> None:
    text = """
        *filter
        :FORWARD DROP
        -A FORWARD -p tcp --dport 443 -j ACCEPT
        -A FORWARD -p tcp -j REJECT --reject-with tcp-reset
    """
    assert verdicts(at(text, tcp())) == ["accept"]
    assert verdicts(at(text, tcp(dport=80))) == ["reject with tcp-reset"]
    dropped = at(text, udp())
    assert verdicts(dropped) == ["drop"]
    assert str(dropped.endings[0].spot) == "filter forward/first policy"


CHAINS = """
    *filter
    :FORWARD DROP
    :a -
    :b -
    -A FORWARD -p tcp -j a
    -A FORWARD -p udp -g a
    -A FORWARD -j ACCEPT
    -A a -p tcp --dport 1 -j RETURN
    -A a -p tcp --dport 2 -g b
    -A a -p udp --dport 3 -j b
    -A a -p tcp --dport 4 -j REJECT
    -A a -p udp --dport 5 -j REJECT
    -A a -p udp --dport 3 -j REJECT
    -A b -p tcp --dport 9
"""


@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        (tcp(dport=1), "accept"),  # RETURN goes on behind the jump
        (tcp(dport=2), "accept"),  # a goto's chain ends behind the jump that led to where it stood
        (tcp(dport=4), "reject with port-unreachable"),
        (tcp(dport=9), "accept"),  # the end of a chain is a return
        (udp(dport=5), "reject with port-unreachable"),
        (udp(dport=3), "reject with port-unreachable"),  # a jump in a chain that was gone to comes back to it
        (udp(dport=7), "drop"),  # and behind a goto from the attached chain is the policy
        (icmp(8), "accept"),
    ],
)
def test_a_chain_ends_where_its_jump_or_goto_says(packet: Packet, verdict: str) -> None:
    assert verdicts(at(CHAINS, packet)) == [verdict]


def test_the_path_names_each_rule_that_is_met() -> None:
    path = at(CHAINS, tcp(dport=2)).path
    assert [(str(step.spot), step.did, step.depth, step.sure) for step in path] == [
        ("filter forward/first rule 1", "jump to FORWARD", 0, True),
        ("filter FORWARD rule 1", "jump to a", 1, True),
        ("filter a rule 2", "goto b", 2, True),
        ("filter FORWARD rule 3", "accept", 1, True),
    ]


def test_ranks_and_places_are_met_in_order() -> None:
    def chain(name: str, *texts: str) -> Chain:
        return Chain(family=Family.IPV4, table=Table.FILTER, name=name, rules=tuple(map(rule, texts)))

    def attached(name: str, **fields: Any) -> Attachment:
        return Attachment(family=Family.IPV4, table=Table.FILTER, hook=Hook.FORWARD, chain=name, **fields)

    rules = Ruleset(
        chains=(chain("a", "-j MARK --set-mark 1"), chain("b", "-m mark --mark 1 -j MARK --set-mark 2"), chain("c")),
        attachments=(
            attached("c", policy=Policy.DROP, place=Place.LAST),
            attached("b", rank=2, when=rule("-i eth0")),
            attached("a", rank=1),
        ),
    )
    assert verdicts(evaluate(rules, tcp(), hook=Hook.FORWARD)) == ["drop"]
    assert evaluate(rules, tcp(), hook=Hook.FORWARD).endings[0].packet.mark == 2
    assert evaluate(rules, tcp(in_interface="wg0"), hook=Hook.FORWARD).endings[0].packet.mark == 1


def test_chains_in_chains_have_an_end() -> None:
    lines = [f"-A c{number} -j c{number + 1}" for number in range(400)]
    names = [f":c{number} -" for number in range(401)]
    with pytest.raises(ModelError, match="chains in chains"):
        at("\n".join(("*filter", ":FORWARD ACCEPT", *names, "-A FORWARD -j c0", *lines)), tcp())


# --- hooks and tables ---


def test_an_accept_ends_its_table_and_no_more() -> None:
    text = """
        *mangle
        :FORWARD ACCEPT
        -A FORWARD -j ACCEPT
        -A FORWARD -j DROP
        *filter
        :FORWARD ACCEPT
        -A FORWARD -j DROP
    """
    found = at(text, tcp())
    assert verdicts(found) == ["drop"]
    assert str(found.endings[0].spot) == "filter FORWARD rule 1"


def test_each_way_goes_through_its_hooks_and_tables_in_their_order() -> None:
    hooks = {
        "raw": ("PREROUTING", "OUTPUT"),
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "security": ("INPUT", "FORWARD", "OUTPUT"),
    }
    lines = []
    for table, names in hooks.items():
        lines += [
            f"*{table}",
            *(f":{name} ACCEPT" for name in names),
            *(f"-A {name} -j MARK --or-mark 1" for name in names),
        ]
    rules = ruleset("\n".join(lines))
    order = {way: [str(step.spot) for step in journey(rules, tcp(), way=way).path if step.depth] for way in Way}
    assert order[Way.FORWARD] == [
        f"{table} {hook} rule 1"
        for hook, tables in (
            ("PREROUTING", "raw mangle nat"),
            ("FORWARD", "mangle filter security"),
            ("POSTROUTING", "mangle nat"),
        )
        for table in tables.split()
    ]
    assert order[Way.INPUT] == [
        f"{table} {hook} rule 1"
        for hook, tables in (("PREROUTING", "raw mangle nat"), ("INPUT", "mangle filter security nat"))
        for table in tables.split()
    ]
    assert order[Way.OUTPUT] == [
        f"{table} {hook} rule 1"
        for hook, tables in (("OUTPUT", "raw mangle nat filter security"), ("POSTROUTING", "mangle nat"))
        for table in tables.split()
    ]


def test_in_table_raw_a_packet_has_no_connection_yet() -> None:
    text = """
        *raw
        :PREROUTING ACCEPT
        -A PREROUTING -m state --state NEW -j DROP
        -A PREROUTING -m state --state INVALID -j MARK --set-mark 1
        -A PREROUTING -j CONNMARK --set-mark 7
        *mangle
        :PREROUTING ACCEPT
        -A PREROUTING -m state --state NEW -m connmark --mark 0 -j MARK --or-mark 2
    """
    assert marks(forwarded(text, tcp())) == {3}


def test_a_packet_has_no_interface_where_a_hook_knows_none() -> None:
    text = """
        *mangle
        :PREROUTING ACCEPT
        :OUTPUT ACCEPT
        :a -
        -A PREROUTING -j a
        -A OUTPUT -j a
        -A a -i eth0 -j MARK --or-mark 1
        -A a ! -i eth0 -j MARK --or-mark 2
        -A a -o wg0 -j MARK --or-mark 4
        -A a ! -o wg0 -j MARK --or-mark 8
    """
    rules = ruleset(text)
    assert marks(journey(rules, tcp(), way=Way.INPUT)) == {1 | 8}
    assert marks(journey(rules, tcp(), way=Way.OUTPUT)) == {2 | 4}


# --- targets ---


def test_marks_are_seen_by_later_rules() -> None:
    text = """
        *mangle
        :PREROUTING ACCEPT
        -A PREROUTING -j MARK --set-xmark 0x105/0xf
        -A PREROUTING -j CONNMARK --save-mark
        -A PREROUTING -j MARK --set-mark 0
        *filter
        :FORWARD DROP
        -A FORWARD -m mark ! --mark 0 -j DROP
        -A FORWARD -j CONNMARK --restore-mark --mask 0xff
        -A FORWARD -m mark --mark 0x5 -m connmark --mark 0x105 -j ACCEPT
    """
    assert verdicts(forwarded(text, tcp())) == ["accept"]
    assert verdicts(forwarded(text, tcp(state="INVALID"))) == ["drop"]
    did = [step.did for step in forwarded(text, tcp()).path]
    assert "mark 0x0 becomes 0x105, goes on" in did
    assert "connection mark 0x0 becomes 0x105, goes on" in did


@pytest.mark.parametrize(
    ("target", "mark"),
    [
        ("CONNMARK --set-mark 0x3 --left-shift-mark 4", 0x30),
        ("CONNMARK --save-mark --nfmask 0xf0 --ctmask 0xff --right-shift-mark 4", 0x1205),
        ("CONNMARK --save-mark --nfmask 0xf --ctmask 0xf", 0x123C),
    ],
)
def test_a_connection_mark_is_changed_as_the_kernel_does(target: str, mark: int) -> None:
    changed = rule(f"-j {target}").target
    assert changed is not None
    after = changed.applied(tcp(mark=0x5C, ct_mark=0x1234))
    assert after.ct_mark == mark


@pytest.mark.parametrize(
    "condition", ["-s 10.9.9.9", "-p tcp --dport 80", "-m conntrack --ctstate RELATED", "-m mark --mark 7"]
)
def test_behind_a_target_that_nobody_knows_a_packet_may_be_another(condition: str) -> None:
    text = f"*filter\n:FORWARD ACCEPT\n-A FORWARD -j NOSUCH --what\n-A FORWARD {condition} -j REJECT"
    assert {verdict.fate for verdict in at(text, tcp()).verdicts} == set(Fate)


def test_log_goes_on_and_so_does_no_target() -> None:
    text = """
        *filter
        :FORWARD DROP
        -A FORWARD -j LOG
        -A FORWARD
        -A FORWARD -j ACCEPT
    """
    found = at(text, tcp())
    assert [step.did for step in found.path][1:] == ["goes on", "goes on", "accept"]


NAT = """
    *nat
    :PREROUTING ACCEPT
    :POSTROUTING ACCEPT
    -A PREROUTING -d 192.0.2.5 -p tcp --dport 443 -j DNAT --to-destination 10.0.9.9:8443
    -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.9.1-10.0.9.9:8000-8009
    -A PREROUTING -p udp -j REDIRECT --to-ports 5353
    -A POSTROUTING -d 10.0.9.9 -j SNAT --to-source 10.0.9.254
    -A POSTROUTING -o wg0 -j MASQUERADE
    *filter
    :INPUT DROP
    :FORWARD DROP
    -A INPUT -p udp --dport 5353 -m conntrack --ctstate DNAT --ctorigdstport 53 -j ACCEPT
    -A FORWARD -d 10.0.9.9 -p tcp --dport 8443 -m conntrack --ctstate DNAT --ctorigdst 192.0.2.5 -j ACCEPT
    -A FORWARD -p tcp -m conntrack --ctstate NEW --ctstatus NONE -j ACCEPT
    -A FORWARD -p tcp -m conntrack ! --ctstate DNAT -j REJECT
    -A FORWARD -p tcp --sport 40000 -j ACCEPT
"""


def test_later_hooks_see_the_translated_packet() -> None:
    found = forwarded(NAT, tcp())
    (ending,) = found.endings
    assert str(ending.verdict) == "accept"
    assert format_address(ending.packet.destination or 0, Family.IPV4) == "10.0.9.9"
    assert format_address(ending.packet.source or 0, Family.IPV4) == "10.0.9.254"
    assert (ending.packet.sport, ending.packet.dport) == (40000, 8443)
    assert [held.text(Family.IPV4) for held in ending.translations] == [
        "destination becomes 10.0.9.9 port 8443",
        "source becomes 10.0.9.254",
    ]


def test_an_address_of_several_is_named_and_not_chosen() -> None:
    (ending,) = {
        (held.verdict, held.packet.dport, held.translations[0]) for held in forwarded(NAT, tcp(dport=80)).endings
    }
    assert ending[0].fate is Fate.ACCEPT
    assert ending[1] is None
    assert ending[2].text(Family.IPV4) == "destination becomes one of 10.0.9.1-10.0.9.9 a port of 8000-8009"


def test_what_is_redirected_goes_the_way_of_input() -> None:
    found = forwarded(NAT, udp())
    assert [passage.hook for passage in found.passages] == [Hook.PREROUTING, Hook.INPUT]
    assert verdicts(found) == ["accept"]
    assert found.endings[0].packet.destination_type == "LOCAL"


def test_only_the_first_packet_of_a_connection_meets_nat() -> None:
    text = "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -j DNAT --to-destination 10.0.9.9"
    for state in ("ESTABLISHED", "INVALID", "UNTRACKED"):
        found = forwarded(text, tcp(state=state))
        assert not found.path
        assert found.endings[0].packet.destination == address("192.0.2.5")
        noted = [note for passage in found.passages for note in passage.notes]
        assert bool(noted) == (state == "ESTABLISHED")
    unsure = forwarded(text, tcp(state=None))
    assert {ending.packet.destination for ending in unsure.endings} == {address("192.0.2.5"), address("10.0.9.9")}
    assert [unknown.what for unknown in unsure.unknowns] == ["whether it is the first of its connection"]


def test_a_packet_sent_to_this_host_itself_goes_by_its_loopback() -> None:
    text = """
        *nat
        :OUTPUT ACCEPT
        -A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 5353
        *mangle
        :POSTROUTING ACCEPT
        -A POSTROUTING -o lo -d 127.0.0.1 -p udp --dport 5353 -j MARK --set-mark 1
    """
    assert marks(journey(ruleset(text), udp(), way=Way.OUTPUT)) == {1}


def test_routes_are_asked_where_a_translated_packet_goes() -> None:
    asked = []

    def route(packet: Packet) -> str | None:
        asked.append(packet.destination)
        return "" if packet.destination == address("10.0.9.9") else "eth7"

    rules = ruleset(NAT)
    here = Evaluator(rules).journey(tcp(), way=Way.FORWARD, route=route)
    assert here.passages[-1].hook is Hook.INPUT
    onward = Evaluator(rules).journey(tcp(dport=22), way=Way.INPUT, route=route)
    assert [passage.hook for passage in onward.passages] == [Hook.PREROUTING, Hook.FORWARD]
    assert onward.endings[0].packet.out_interface == "eth7"
    assert asked == [address("10.0.9.9"), address("192.0.2.5")]


# --- what isn't known ---


def test_what_is_not_known_makes_both_ways_possible_and_is_named() -> None:
    text = """
        *filter
        :FORWARD DROP
        -A FORWARD -p tcp -m limit --limit 5/min -j ACCEPT
        -A FORWARD -m limit --limit 5/min -j LOG
        -A FORWARD -j REJECT
    """
    found = at(text, tcp())
    assert verdicts(found) == ["accept", "reject with port-unreachable"]
    assert [str(unknown.spot) for unknown in found.unknowns] == ["filter FORWARD rule 1", "filter FORWARD rule 2"]
    assert [step.sure for step in found.path] == [True, False, False, False]
    other = at(text, udp())
    assert verdicts(other) == ["reject with port-unreachable"]  # whether it's logged isn't known, its end is
    assert [step.sure for step in other.path] == [True, False, True]


def test_what_is_true_either_way_is_sure() -> None:
    text = """
        *filter
        :FORWARD DROP
        :a -
        -A FORWARD -m limit --limit 5/min -j MARK --set-mark 1
        -A FORWARD -m limit --limit 5/min -j a
        -A FORWARD -m mark --mark 0 -j ACCEPT
        -A FORWARD -m mark --mark 1 -j ACCEPT
        -A a -j RETURN
    """
    found = at(text, tcp())
    assert verdicts(found) == ["accept"]
    assert {ending.packet.mark for ending in found.endings} == {0, 1}
    other = at(text + "\n*security\n:FORWARD ACCEPT\n-A FORWARD -j DROP", tcp())
    assert other.path[-1].sure


def test_what_may_be_gone_is_not_sure_to_come_later() -> None:
    text = """
        *filter
        :FORWARD ACCEPT
        -A FORWARD -m limit --limit 5/min -j DROP
        *mangle
        :POSTROUTING ACCEPT
        -A POSTROUTING -j MARK --set-mark 1
    """
    found = forwarded(text, tcp())
    assert verdicts(found) == ["accept", "drop"]
    assert not found.path[-1].sure


def test_of_a_target_that_nobody_knows_anything_may_come() -> None:
    text = """
        *filter
        :FORWARD ACCEPT
        -A FORWARD -j UNHEARDOF --option
        -A FORWARD -m mark --mark 1 -j REJECT
    """
    found = at(text, tcp())
    assert verdicts(found) == ["accept", "drop", "reject with port-unreachable"]
    assert found.unknowns[0].what == "what UNHEARDOF does"


def test_a_target_that_ends_a_chain_and_does_not_say_how_may_accept_or_drop() -> None:
    class Queue(Target, frozen=True):
        """A program decides."""

    for target, ends in ((Queue(), ["accept", "drop"]), (ACCEPT, ["accept"]), (DROP, ["drop"])):
        assert [str(verdict) for verdict in target.verdicts(tcp())] == ends


def test_many_things_that_are_not_known_take_no_more_time_than_few() -> None:
    bits = [f"-A FORWARD -m limit --limit 5/min -j MARK --or-mark {1 << bit:#x}" for bit in range(32)]
    text = "\n".join(("*filter", ":FORWARD DROP", *bits, "-A FORWARD -m mark --mark 0/0 -j ACCEPT"))
    found = at(text, tcp())
    assert verdicts(found) == ["accept"]
    assert [ending.packet.mark for ending in found.endings] == [None]


HOPS = "*mangle\n-A PREROUTING -m ttl --ttl-eq {} -j MARK --set-mark 1\n-A FORWARD -m ttl --ttl-eq {} -j DROP"


@pytest.mark.parametrize(
    ("came_with", "before", "behind", "verdict"),
    [
        (64, 64, 63, "drop"),
        (64, 64, 64, "accept"),
        (2, 2, 1, "drop"),
        (1, 1, 1, "reject with time-exceeded"),
        (0, 0, 0, "reject with time-exceeded"),
    ],
)
def test_routing_takes_a_hop_and_asks_no_rule_where_none_is_left(
    came_with: int, before: int, behind: int, verdict: str
) -> None:
    found = forwarded(HOPS.format(before, behind), tcp(ttl=came_with))
    assert verdicts(found) == [verdict]
    assert marks(found) == {1}


def test_what_ends_here_or_starts_here_keeps_its_hops() -> None:
    for way in (Way.INPUT, Way.OUTPUT):
        found = journey(ruleset("*mangle\n-A POSTROUTING -j ACCEPT"), tcp(ttl=1), way=way)
        assert [ending.packet.ttl for ending in found.endings] == [1]


CHANGES = [
    ("-j TTL --ttl-set 9", tcp(ttl=64), tcp(ttl=9)),
    ("-j TTL --ttl-dec 70", tcp(ttl=64), tcp(ttl=0)),
    ("-j TTL --ttl-inc 200", tcp(ttl=64), tcp(ttl=255)),
    ("-j TOS --set-tos 0x12/0xf0", tcp(tos=0xFF), tcp(tos=0x0F ^ 0x12)),
    ("-j DSCP --set-dscp 1", tcp(tos=0xFF), tcp(tos=0x07)),
    ("-j DSCP --set-dscp 1", tcp(tos=None), tcp(tos=None)),
    ("-j TOS --set-tos 3", tcp(tos=None), tcp(tos=3)),
    ("-p tcp -j ECN --ecn-tcp-remove", tcp(tcp_flags=SYN | 0xC0), tcp(tcp_flags=SYN)),
]


@pytest.mark.parametrize(("text", "before", "after"), CHANGES)
def test_later_rules_see_what_a_target_made_of_the_header(text: str, before: Packet, after: Packet) -> None:
    target = rule(text).target
    assert target is not None
    assert target.applied(before) == after
