"""Laws of packets: real ones, sent through a gateway, meet what the rules say, on iptables itself and on meshfw alike.

Each law that the language of iptables can state is loaded as one text by ``iptables-legacy-restore``, which shows that
the law is iptables' own, and by each of meshfw's backends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.errors import UnsupportedError
from meshfw.extensions.tcp import FLAGS
from meshfw.kernel.command import run
from meshfw.languages.iptables import parse_rule
from meshfw.model import Attachment, Chain, ElementType, Family, Hook, Place, Policy, Rule, Ruleset, Set, Table
from meshfw.reconcile import apply
from tests.kernel.worlds import BACKENDS, ICMP_REPLY, LANGUAGE, WITNESSES, Maker, World, tool_of, worlds

pytestmark = pytest.mark.kernel

SYN, ACK, FIN = FLAGS["SYN"], FLAGS["ACK"], FLAGS["FIN"]


@pytest.fixture
def make_world(request: pytest.FixtureRequest, kernel_room: object, tmp_path: Path) -> Iterator[Maker]:
    with worlds(request, tmp_path) as make:
        yield make


@pytest.fixture(params=(*BACKENDS, WITNESSES[0]))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=Family, ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


@pytest.fixture
def world(engine: str, family: Family, make_world: Maker) -> World:
    """A world whose rules are loaded from iptables' own text."""
    return make_world(family, engine)


@pytest.fixture(params=BACKENDS)
def mesh(request: pytest.FixtureRequest, family: Family, make_world: Maker) -> World:
    """A world whose rules are a ruleset of meshfw's."""
    return make_world(family, request.param)


# --- the verdicts ---


def test_without_rules_every_packet_passes(world: World) -> None:
    for protocol in ("udp", "tcp", "sctp", "icmp"):
        assert world.verdict(protocol, 0 if protocol == "icmp" else 53) == "accepted"
        assert (
            world.verdict(protocol, 0 if protocol == "icmp" else 53, destination="gateway") == "accepted by the gateway"
        )


def test_accept_passes_and_the_policy_drops_the_rest(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -m udp --dport 53 -j ACCEPT
    """)
    assert world.verdict("udp", 53) == "accepted"
    assert world.verdict("udp", 54) == "dropped"
    assert world.verdict("tcp", 53) == "dropped"
    assert world.verdict("icmp") == "dropped"


def test_drop_drops_and_the_policy_accepts_the_rest(world: World) -> None:
    world.load("""
        *filter
        :FORWARD ACCEPT
        -A FORWARD -p tcp -m tcp --dport 22 -j DROP
    """)
    assert world.verdict("tcp", 22) == "dropped"
    assert world.verdict("tcp", 23) == "accepted"


def test_the_first_rule_that_decides_wins(world: World) -> None:
    world.load("""
        *filter
        :FORWARD ACCEPT
        -A FORWARD -p udp -m udp --dport 1000:1010 -j ACCEPT
        -A FORWARD -p udp -m udp --dport 1005:1020 -j DROP
        -A FORWARD -p udp -m udp --dport 1015 -j ACCEPT
    """)
    assert [world.verdict("udp", port) for port in (999, 1000, 1010, 1011, 1015, 1020, 1021)] == [
        *("accepted", "accepted", "accepted", "dropped", "dropped", "dropped", "accepted")
    ]


def test_a_rule_without_target_only_counts(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp
        -A FORWARD -p udp -j ACCEPT
    """)
    assert world.verdict("udp", 9) == "accepted"


ANSWERS: Final = {
    Family.IPV4: {
        "icmp-net-unreachable": "net-unreachable",
        "icmp-host-unreachable": "host-unreachable",
        "icmp-proto-unreachable": "proto-unreachable",
        "icmp-port-unreachable": "port-unreachable",
        "icmp-net-prohibited": "net-prohibited",
        "icmp-host-prohibited": "host-prohibited",
        "icmp-admin-prohibited": "admin-prohibited",
    },
    Family.IPV6: {
        "icmp6-no-route": "no-route",
        "icmp6-adm-prohibited": "admin-prohibited",
        "icmp6-addr-unreachable": "addr-unreachable",
        "icmp6-port-unreachable": "port-unreachable",
    },
}


def test_reject_answers_as_told(world: World) -> None:
    names = ANSWERS[world.family]
    lines = [
        f"-A FORWARD -p udp -m udp --dport {1000 + index} -j REJECT --reject-with {name}"
        for index, name in enumerate(names)
    ]
    world.load("\n".join(("*filter", ":FORWARD ACCEPT", *lines)))
    for index, kind in enumerate(names.values()):
        result = world.send("udp", 1000 + index)
        assert result.verdict == f"rejected ({kind})"
        assert result.answer is not None
        assert result.answer.source == world.words["gateway"]


def test_reject_says_port_unreachable_by_itself(world: World) -> None:
    world.load("""
        *filter
        :FORWARD ACCEPT
        -A FORWARD -j REJECT
        :INPUT ACCEPT
        -A INPUT -j REJECT
    """)
    for destination in ("host", "gateway"):
        for protocol, port in (("udp", 9), ("tcp", 9), ("icmp", 0)):
            assert world.verdict(protocol, port, destination=destination) == "rejected (port-unreachable)"


def test_reject_can_reset_a_connection(world: World) -> None:
    world.load("""
        *filter
        :FORWARD ACCEPT
        -A FORWARD -p tcp -m tcp --dport 22 -j REJECT --reject-with tcp-reset
    """)
    result = world.send("tcp", 22)
    assert result.verdict == "rejected (reset)"
    assert result.answer is not None
    assert result.answer.source == world.words["host"]  # a reset speaks for the one that was called
    assert world.verdict("tcp", 23) == "accepted"


# --- chains ---


@pytest.mark.parametrize(("policy", "verdict"), [("DROP", "dropped"), ("ACCEPT", "accepted")])
def test_return_from_an_attached_chain_meets_the_policy(world: World, policy: str, verdict: str) -> None:
    world.load(f"""
        *filter
        :FORWARD {policy}
        -A FORWARD -p udp -j RETURN
        -A FORWARD -j {"ACCEPT" if policy == "DROP" else "DROP"}
    """)
    assert world.verdict("udp", 9) == verdict
    assert world.verdict("tcp", 9) != verdict


@pytest.mark.parametrize("end", ["", "-A services -j RETURN"])
def test_a_chain_that_ends_or_returns_goes_on_behind_the_jump(world: World, end: str) -> None:
    world.load(
        f"""
        *filter
        :FORWARD DROP
        :services -
        -A FORWARD -p udp -j services
        -A FORWARD -p udp -m udp --dport 54 -j ACCEPT
        -A services -p udp -m udp --dport 53 -j ACCEPT
        {end}
    """.replace("\n        \n", "\n")
    )
    assert world.verdict("udp", 53) == "accepted"
    assert world.verdict("udp", 54) == "accepted"
    assert world.verdict("udp", 55) == "dropped"


@pytest.mark.parametrize(("policy", "verdict"), [("DROP", "dropped"), ("ACCEPT", "accepted")])
def test_a_finished_goto_meets_the_policy(world: World, policy: str, verdict: str) -> None:
    other = "ACCEPT" if policy == "DROP" else "DROP"
    world.load(f"""
        *filter
        :FORWARD {policy}
        :services -
        -A FORWARD -p udp -g services
        -A FORWARD -j {other}
        -A services -p udp -m udp --dport 53 -j {other}
        -A services -p udp -m udp --dport 54 -j RETURN
    """)
    assert world.verdict("udp", 53) != verdict
    assert world.verdict("udp", 54) == verdict
    assert world.verdict("udp", 55) == verdict
    assert world.verdict("tcp", 55) != verdict


def test_a_goto_returns_behind_the_jump_that_led_to_its_chain(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        :first -
        :second -
        -A FORWARD -j first
        -A FORWARD -p udp -m udp --dport 53 -j ACCEPT
        -A first -p udp -g second
        -A first -j ACCEPT
        -A second -p udp -m udp --dport 54 -j ACCEPT
    """)
    assert world.verdict("udp", 53) == "accepted"
    assert world.verdict("udp", 54) == "accepted"
    assert world.verdict("udp", 55) == "dropped"
    assert world.verdict("tcp", 55) == "accepted"


def test_jumps_lead_fourteen_chains_deep(world: World) -> None:
    # nf_tables' own limit: NFT_JUMP_STACK_SIZE, linux/netfilter/nf_tables.h. Ours takes one for the attached chain,
    # and where the base chain is iptables' own, another one for the dispatcher.
    depth = 13 if world.engine == "iptables-nft" else 14
    chains = [f":c{index} -" for index in range(depth)]
    jumps = [f"-A c{index} -j c{index + 1}" for index in range(depth - 1)]
    last = f"-A c{depth - 1} -p udp -m udp --dport 53 -j ACCEPT"
    world.load("\n".join(("*filter", ":FORWARD DROP", *chains, "-A FORWARD -j c0", *jumps, last)))
    assert world.verdict("udp", 53) == "accepted"
    assert world.verdict("udp", 54) == "dropped"


# --- conditions ---


def test_addresses_match_both_ways(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -s {peer} -d {hosts} -p udp -j ACCEPT
        -A FORWARD ! -s {peers} -p tcp -j ACCEPT
        -A FORWARD ! -d {host} -s {peers} -p tcp -j ACCEPT
    """)
    stranger = "10.4.0.10" if world.family is Family.IPV4 else "fd00:4::a"
    assert world.verdict("udp", 9) == "accepted"
    assert world.verdict("udp", 9, source=stranger) == "dropped"
    assert world.verdict("udp", 9, destination="other") == "dropped"
    assert world.verdict("tcp", 9) == "dropped"
    assert world.verdict("tcp", 9, destination="other") == "accepted"
    assert world.verdict("tcp", 9, source="host", destination="peer", start="server") == "accepted"


def test_interfaces_match_by_name_beginning_and_negation(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -i wg+ -o eth0 -p udp -j ACCEPT
        -A FORWARD ! -i wg+ -p tcp -j ACCEPT
        -A FORWARD -i wg -p icmp -j ACCEPT
        -A FORWARD ! -o eth0 -m udp -p udp --dport 53 -j ACCEPT
    """)
    back = {"source": "host", "destination": "peer", "start": "server"}
    assert world.verdict("udp", 9) == "accepted"
    assert world.verdict("udp", 9, **back) == "dropped"
    assert world.verdict("udp", 53, **back) == "accepted"
    assert world.verdict("tcp", 9) == "dropped"
    assert world.verdict("tcp", 9, **back) == "accepted"
    assert world.verdict("icmp") == "dropped"


def test_protocols_match_by_number_and_negation(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p 17 -d {host} -j ACCEPT
        -A FORWARD ! -p tcp -d {other} -j ACCEPT
    """)
    assert [world.verdict(p, 9 * (p != "icmp")) for p in ("udp", "tcp", "icmp")] == ["accepted", "dropped", "dropped"]
    verdicts = [world.verdict(p, 9 * (p != "icmp"), destination="other") for p in ("udp", "tcp", "icmp")]
    assert verdicts == ["accepted", "dropped", "accepted"]


def test_ports_match_by_range_and_negation(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p tcp -m tcp --sport 1024:2048 --dport 80 -j ACCEPT
        -A FORWARD -p udp -m udp ! --dport 53 -j ACCEPT
    """)
    assert [world.verdict("tcp", 80, sport=port) for port in (1023, 1024, 2048, 2049)] == [
        *("dropped", "accepted", "accepted", "dropped")
    ]
    assert world.verdict("tcp", 81, sport=1024) == "dropped"
    assert [world.verdict("udp", port) for port in (52, 53, 54)] == ["accepted", "dropped", "accepted"]


def test_port_lists_match_either_end(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p tcp -m multiport --dports 22,80:90,443 -j ACCEPT
        -A FORWARD -p udp -m multiport --ports 53,5000:5010 -j ACCEPT
        -A FORWARD -p tcp -m multiport ! --sports 1,2,3 -m tcp --dport 7 -j ACCEPT
    """)
    assert [world.verdict("tcp", port) for port in (22, 79, 80, 90, 91, 443)] == [
        *("accepted", "dropped", "accepted", "accepted", "dropped", "accepted")
    ]
    assert world.verdict("udp", 53, sport=1000) == "accepted"
    assert world.verdict("udp", 1000, sport=5010) == "accepted"
    assert world.verdict("udp", 1000, sport=5011) == "dropped"
    assert world.verdict("tcp", 7, sport=2) == "dropped"
    assert world.verdict("tcp", 7, sport=4) == "accepted"


def test_address_ranges_match_with_both_ends(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -m iprange --dst-range {range} -j ACCEPT
        -A FORWARD -p tcp -m iprange ! --dst-range {range} -j ACCEPT
    """)
    stem = "192.0.2." if world.family is Family.IPV4 else "2001:db8:2::"
    verdicts = [world.verdict("udp", 9, destination=f"{stem}{last}") for last in (4, 5, 9, 10)]
    assert verdicts == ["dropped", "accepted", "accepted", "dropped"]
    verdicts = [world.verdict("tcp", 9, destination=f"{stem}{last}") for last in (4, 5, 9, 10)]
    assert verdicts == ["accepted", "dropped", "dropped", "accepted"]


def test_icmp_matches_by_type(world: World) -> None:
    world.load(
        """
        *filter
        :FORWARD DROP
        -A FORWARD {icmp} {ping} -j ACCEPT
        :INPUT DROP
        -A INPUT {icmp_not} {ping} -j ACCEPT
    """
    )
    assert world.verdict("icmp") == "accepted"
    assert world.verdict("icmp", icmp=ICMP_REPLY[world.family]) == "dropped"
    assert world.verdict("udp", 9) == "dropped"
    assert world.verdict("icmp", destination="gateway") == "dropped"
    assert world.verdict("icmp", destination="gateway", icmp=ICMP_REPLY[world.family]) == "accepted by the gateway"


def test_tcp_flags_match_what_opens_a_connection(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p tcp --syn -m tcp --dport 80 -j ACCEPT
        -A FORWARD -p tcp -m tcp --dport 81 ! --syn -j ACCEPT
        -A FORWARD -p tcp -m tcp --dport 82 --tcp-flags ALL NONE -j ACCEPT
    """)
    assert [world.verdict("tcp", 80, flags=flags) for flags in (SYN, SYN | ACK, ACK)] == [
        *("accepted", "dropped", "dropped")
    ]
    assert [world.verdict("tcp", 81, flags=flags) for flags in (SYN, SYN | ACK, ACK)] == [
        *("dropped", "accepted", "accepted")
    ]
    assert [world.verdict("tcp", 82, flags=flags) for flags in (0, SYN, FIN)] == ["accepted", "dropped", "dropped"]


def test_fragments_match_beyond_the_first(make_world: Maker, engine: str) -> None:
    world = make_world(Family.IPV4, engine)
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -f -d {host} -j ACCEPT
        -A FORWARD ! -f -d {other} -j ACCEPT
    """)
    for destination, later, whole in (("host", "accepted", "dropped"), ("other", "dropped", "accepted")):
        assert world.verdict("udp", destination=destination, fragment=True) == later
        assert world.verdict("udp", 9, destination=destination) == whole


def test_ports_of_sctp_match_and_are_translated(world: World) -> None:
    world.load("""
        *nat
        :PREROUTING ACCEPT
        -A PREROUTING -d {gateway} -p sctp -m sctp --dport 36412 -j DNAT --to-destination {host_port}
        *filter
        :FORWARD DROP
        -A FORWARD -p sctp -m sctp --dport 8080:8081 -j ACCEPT
        -A FORWARD -p sctp -m conntrack --ctstate INVALID -j ACCEPT
    """)
    assert world.verdict("sctp", 36412, destination="gateway") == f"accepted to {world.words['host_port']}"
    assert [world.verdict("sctp", port) for port in (8081, 8082)] == ["accepted", "dropped"]


def test_address_types_are_looked_up(world: World) -> None:
    world.load("""
        *raw
        :PREROUTING ACCEPT
        -A PREROUTING -p udp -m addrtype --dst-type LOCAL -j DROP
        -A PREROUTING -p tcp -m addrtype ! --dst-type LOCAL -j DROP
    """)
    assert world.verdict("udp", 9) == "accepted"
    assert world.verdict("udp", 9, destination="gateway") == "dropped"
    assert world.verdict("tcp", 9) == "dropped"
    assert world.verdict("tcp", 9, destination="gateway") == "accepted by the gateway"


def test_hardware_addresses_match(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT
        -A FORWARD -p tcp -m mac ! --mac-source 02:00:00:00:00:01 -j ACCEPT
    """)
    back = {"source": "host", "destination": "peer", "start": "server"}
    assert (world.verdict("udp", 9), world.verdict("udp", 9, **back)) == ("accepted", "dropped")
    assert (world.verdict("tcp", 9), world.verdict("tcp", 9, **back)) == ("dropped", "accepted")


def test_a_comment_matches_every_packet(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -m comment --comment "names, and more names: 1 & 2" -j ACCEPT
    """)
    assert world.verdict("udp", 9) == "accepted"


# --- what remembers ---


def test_answers_pass_where_calls_do_not(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A FORWARD -i wg0 -m conntrack --ctstate NEW -j ACCEPT
    """)
    for protocol, port, kind in (("udp", 9, "port-unreachable"), ("tcp", 9, "reset"), ("icmp", 0, "reply")):
        result = world.send(protocol, port)
        assert result.verdict == "accepted"
        assert result.answer is not None
        assert result.answer.kind == kind
        assert world.verdict(protocol, port, source="host", destination="peer", start="server") == "dropped"


def test_without_a_rule_for_answers_none_passes(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -i wg0 -m state --state NEW -j ACCEPT
    """)
    result = world.send("tcp", 9)
    assert (result.verdict, result.answer) == ("accepted", None)


def test_an_answer_to_nothing_is_invalid(world: World) -> None:
    world.load("""
        *filter
        :FORWARD ACCEPT
        -A FORWARD -m conntrack --ctstate INVALID -j DROP
    """)
    assert world.verdict("icmp", icmp=ICMP_REPLY[world.family]) == "dropped"
    assert world.verdict("icmp") == "accepted"


def test_a_limit_lets_its_burst_through(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -m limit --limit 1/hour --limit-burst 3 -j ACCEPT
    """)
    verdicts = [world.verdict("udp", 9) for _ in range(6)]
    assert verdicts == ["accepted"] * 3 + ["dropped"] * 3


def test_a_limit_counts_only_what_met_the_matches_before_it(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -m udp --dport 53 -m limit --limit 1/hour --limit-burst 2 -j ACCEPT
    """)
    for _ in range(4):
        assert world.verdict("udp", 54) == "dropped"
    assert [world.verdict("udp", 53) for _ in range(3)] == ["accepted", "accepted", "dropped"]


def test_a_mark_is_seen_by_later_tables(world: World) -> None:
    world.load("""
        *mangle
        :PREROUTING ACCEPT
        -A PREROUTING -p udp -m udp --dport 53 -j MARK --set-xmark 0x15/0xff
        -A PREROUTING -p udp -m udp --dport 54 -j MARK --set-xmark 0x1100/0xff00
        *filter
        :FORWARD DROP
        -A FORWARD -m mark --mark 0x5/0xf -j ACCEPT
        -A FORWARD -m mark --mark 0x1100 -j ACCEPT
    """)
    assert [world.verdict("udp", port) for port in (53, 54, 55)] == ["accepted", "accepted", "dropped"]


def test_a_mark_stays_with_the_connection(world: World) -> None:
    world.load("""
        *mangle
        :PREROUTING ACCEPT
        -A PREROUTING -i wg0 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x7/0xffffffff
        -A PREROUTING -i wg0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
        *filter
        :FORWARD DROP
        -A FORWARD -i wg0 -j ACCEPT
        -A FORWARD -i eth0 -m connmark --mark 0x7 -j ACCEPT
    """)
    answers = [world.send("tcp", port).answer for port in (80, 81)]
    assert [answer and answer.kind for answer in answers] == ["reset", None]


def test_log_goes_on_to_the_next_rule(world: World) -> None:
    world.load("""
        *filter
        :FORWARD DROP
        -A FORWARD -p udp -j LOG --log-prefix "meshfw law: " --log-level 7
        -A FORWARD -p udp -j ACCEPT
    """)
    assert world.verdict("udp", 9) == "accepted"


# --- address translation ---


def test_snat_gives_another_source_and_answers_find_back(world: World) -> None:
    world.load("""
        *nat
        :POSTROUTING ACCEPT
        -A POSTROUTING -s {peers} -o eth0 -p tcp -j SNAT --to-source {alias}
    """)
    result = world.send("tcp", 80)
    assert result.verdict == f"accepted from {world.words['alias']}"
    assert result.answer is not None
    assert (result.answer.kind, result.answer.source) == ("reset", world.words["host"])
    assert world.verdict("udp", 80) == "accepted"


def test_masquerade_gives_the_address_of_the_way_out(world: World) -> None:
    world.load("""
        *nat
        :POSTROUTING ACCEPT
        -A POSTROUTING -s {peers} -d {other} -j RETURN
        -A POSTROUTING -s {peers} -o eth0 -j MASQUERADE
    """)
    for protocol, port in (("udp", 9), ("tcp", 9), ("icmp", 0)):
        result = world.send(protocol, port)
        assert result.verdict == f"accepted from {world.words['wan']}"
        assert result.answer is not None
        assert result.answer.destination == world.words["peer"]
        assert world.verdict(protocol, port, destination="other") == "accepted"


def test_dnat_gives_another_destination_and_port(world: World) -> None:
    world.load("""
        *nat
        :PREROUTING ACCEPT
        -A PREROUTING -d {gateway} -p tcp -m tcp --dport 80 -j DNAT --to-destination {host_port}
        -A PREROUTING -d {gateway} -p udp -j DNAT --to-destination {host}
    """)
    result = world.send("tcp", 80, destination="gateway")
    assert result.verdict == f"accepted to {world.words['host_port']}"
    assert result.answer is not None
    assert result.answer.source == world.words["gateway"]
    seen = world.send("udp", 9, destination="gateway").far
    assert seen is not None
    assert (seen.destination, seen.dport) == (world.words["host"], 9)
    assert world.verdict("tcp", 81, destination="gateway") == "accepted by the gateway"


def test_redirect_ends_in_the_gateway(world: World) -> None:
    world.load("""
        *nat
        :PREROUTING ACCEPT
        -A PREROUTING -i wg0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128
        -A PREROUTING -i wg0 -p udp -m udp --dport 53 -j REDIRECT
    """)
    seen = world.send("tcp", 80).gateway
    assert seen is not None
    assert (seen.destination, seen.dport) == (world.words["gateway"], 3128)
    seen = world.send("udp", 53).gateway
    assert seen is not None
    assert (seen.destination, seen.dport) == (world.words["gateway"], 53)
    assert world.verdict("tcp", 81) == "accepted"


def test_filter_sees_the_translated_destination(world: World) -> None:
    world.load("""
        *nat
        :PREROUTING ACCEPT
        -A PREROUTING -d {gateway} -p tcp -m tcp --dport 80 -j DNAT --to-destination {host_port}
        *filter
        :FORWARD DROP
        -A FORWARD -d {host2} -p tcp -m tcp --dport 8080 -m conntrack --ctstate DNAT -j ACCEPT
    """)
    assert world.verdict("tcp", 80, destination="gateway") == f"accepted to {world.words['host_port']}"
    assert world.verdict("tcp", 8080, destination="host2") == "dropped"


# --- hooks and tables ---


def test_each_hook_of_filter_sees_its_own_packets(world: World) -> None:
    world.load("""
        *filter
        :INPUT ACCEPT
        :FORWARD ACCEPT
        :OUTPUT ACCEPT
        -A INPUT -p udp -m udp --dport 1 -j DROP
        -A FORWARD -p udp -m udp --dport 2 -j DROP
        -A OUTPUT -p udp -m udp --dport 3 -j DROP
    """)
    ways: tuple[dict[str, str], ...] = ({"destination": "gateway"}, {}, {"source": "wan", "start": "gateway"})
    passed = [[port for port in (1, 2, 3) if world.verdict("udp", port, **way) != "dropped"] for way in ways]
    assert passed == [[2, 3], [1, 3], [1, 2]]


def test_raw_and_mangle_drop_where_they_stand(world: World) -> None:
    world.load("""
        *raw
        :PREROUTING ACCEPT
        :OUTPUT ACCEPT
        -A PREROUTING -p udp -m udp --dport 1 -j DROP
        -A OUTPUT -p udp -m udp --dport 2 -j DROP
        *mangle
        :PREROUTING ACCEPT
        :INPUT ACCEPT
        :FORWARD ACCEPT
        :OUTPUT ACCEPT
        :POSTROUTING ACCEPT
        -A PREROUTING -p udp -m udp --dport 3 -j DROP
        -A INPUT -p udp -m udp --dport 4 -j DROP
        -A FORWARD -p udp -m udp --dport 5 -j DROP
        -A OUTPUT -p udp -m udp --dport 6 -j DROP
        -A POSTROUTING -p udp -m udp --dport 7 -j DROP
    """)
    ways: tuple[dict[str, str], ...] = ({"destination": "gateway"}, {}, {"source": "wan", "start": "gateway"})
    dropped = [[port for port in range(1, 9) if world.verdict("udp", port, **way) == "dropped"] for way in ways]
    assert dropped == [[1, 3, 4], [1, 3, 5, 7], [2, 6, 7]]


def test_a_mark_in_mangle_output_routes_anew(world: World) -> None:
    with world.topology.gateway.entered():
        flag = "-4" if world.family is Family.IPV4 else "-6"
        run(("ip", flag, "rule", "add", "fwmark", "9", "table", "99"), timeout=10)
        run(("ip", flag, "route", "add", "blackhole", "default", "table", "99"), timeout=10)
    world.load("""
        *mangle
        :OUTPUT ACCEPT
        -A OUTPUT -p udp -m udp --dport 9 -j MARK --set-xmark 0x9/0xffffffff
    """)
    way = {"source": "wan", "start": "gateway"}
    assert (world.verdict("udp", 9, **way), world.verdict("udp", 10, **way)) == ("dropped", "accepted")


# --- what only a ruleset can say ---


def rule(world: World, text: str) -> Rule:
    return parse_rule(text.format(**world.words), family=world.family, language=LANGUAGE)


def chain(world: World, name: str, *texts: str, table: Table = Table.FILTER) -> Chain:
    return Chain(family=world.family, table=table, name=name, rules=tuple(rule(world, text) for text in texts))


def attached(world: World, name: str, hook: Hook = Hook.FORWARD, **fields: Any) -> Attachment:
    return Attachment(family=world.family, table=Table.FILTER, hook=hook, chain=name, **fields)


def test_elements_of_a_set_count_from_the_moment_of_their_commit(mesh: World) -> None:
    def ruleset(addresses: Sequence[str], ports: Sequence[str]) -> Ruleset:
        return Ruleset(
            chains=(chain(mesh, "fw", "-d @hosts -p udp -m udp --dport @ports -j ACCEPT"),),
            sets=(
                Set.of(mesh.family, "hosts", [mesh.words[name] for name in addresses]),
                Set.of(mesh.family, "ports", ports, type=ElementType.PORT),
            ),
            attachments=(attached(mesh, "fw", policy=Policy.DROP),),
        )

    def passing() -> list[tuple[str, int]]:
        ways = [(name, port) for name in ("host", "host2", "other") for port in (53, 5005)]
        return [(name, port) for name, port in ways if mesh.verdict("udp", port, destination=name) == "accepted"]

    apply(mesh.backend(), ruleset(["host"], ["53"]))
    assert passing() == [("host", 53)]
    apply(mesh.backend(), ruleset(["host", "other"], ["53"]))
    assert passing() == [("host", 53), ("other", 53)]
    apply(mesh.backend(), ruleset(["hosts"], ["5000-5010"]))
    assert passing() == [("host", 5005), ("host2", 5005)]
    apply(mesh.backend(), ruleset([], ["5000-5010"]))
    assert passing() == []


def test_a_set_matches_negated(mesh: World) -> None:
    apply(
        mesh.backend(),
        Ruleset(
            chains=(chain(mesh, "fw", "! -d @hosts -j DROP"),),
            sets=(Set.of(mesh.family, "hosts", [mesh.words["host"]]),),
            attachments=(attached(mesh, "fw"),),
        ),
    )
    assert mesh.verdict("udp", 9) == "accepted"
    assert mesh.verdict("udp", 9, destination="other") == "dropped"


def test_attachments_are_met_in_the_order_of_their_rank(mesh: World) -> None:
    opened, closed = "-p udp -m udp --dport 53 -j ACCEPT", "-p udp -j DROP"
    for ranks, verdict in (((1, 2), "accepted"), ((2, 1), "dropped")):
        ruleset = Ruleset(
            chains=(chain(mesh, "opened", opened), chain(mesh, "closed", closed)),
            attachments=(attached(mesh, "opened", rank=ranks[0]), attached(mesh, "closed", rank=ranks[1])),
        )
        apply(mesh.backend(), ruleset)
        assert mesh.verdict("udp", 53) == verdict
        assert mesh.verdict("udp", 54) == "dropped"
        assert mesh.verdict("tcp", 54) == "accepted"


def test_conditions_of_an_attachment_narrow_it(mesh: World) -> None:
    ruleset = Ruleset(
        chains=(chain(mesh, "fw", "-j DROP"),), attachments=(attached(mesh, "fw", when=rule(mesh, "-i eth0 -p udp")),)
    )
    apply(mesh.backend(), ruleset)
    back = {"source": "host", "destination": "peer", "start": "server"}
    assert mesh.verdict("udp", 9, **back) == "dropped"
    assert mesh.verdict("udp", 9) == mesh.verdict("tcp", 9, **back) == "accepted"


def test_what_comes_first_decides_before_what_comes_last(mesh: World) -> None:
    # A mark set by the one and seen by the other tells which came first, whoever's verdict wins.
    ruleset = Ruleset(
        chains=(
            chain(mesh, "early", "-p udp -j MARK --set-xmark 0x1/0xff"),
            chain(mesh, "late", "-m mark --mark 0x1/0xff -j DROP"),
        ),
        attachments=(
            attached(mesh, "late", place=Place.LAST),
            attached(mesh, "early", place=Place.FIRST),
        ),
    )
    apply(mesh.backend(), ruleset)
    assert (mesh.verdict("udp", 9), mesh.verdict("tcp", 9)) == ("dropped", "accepted")


def test_a_policy_drops_what_attached_chains_of_every_rank_returned(mesh: World) -> None:
    ruleset = Ruleset(
        chains=(
            chain(mesh, "one", "-p udp -m udp --dport 53 -j ACCEPT", "-j RETURN"),
            chain(mesh, "two", "-p udp -m udp --dport 54 -j ACCEPT"),
        ),
        attachments=(attached(mesh, "one", policy=Policy.DROP), attached(mesh, "two", rank=1)),
    )
    apply(mesh.backend(), ruleset)
    assert [mesh.verdict("udp", port) for port in (53, 54, 55)] == ["accepted", "accepted", "dropped"]


def test_two_owners_each_have_their_say(mesh: World) -> None:
    def ruleset(port: int) -> Ruleset:
        text = f"-p udp -m udp --dport {port} -j DROP"
        return Ruleset(chains=(chain(mesh, "fw", text),), attachments=(attached(mesh, "fw"),))

    apply(mesh.backend("one"), ruleset(53))
    apply(mesh.backend("two"), ruleset(54))
    assert [mesh.verdict("udp", port) for port in (53, 54, 55)] == ["dropped", "dropped", "accepted"]
    apply(mesh.backend("one"), Ruleset())
    assert [mesh.verdict("udp", port) for port in (53, 54, 55)] == ["accepted", "dropped", "accepted"]


def accept_first(world: World, requires: Callable[..., None]) -> None:
    """Somebody else's accept of everything that is forwarded, as early as it can be."""
    if world.backend().capabilities.foreign_accept_wins:
        world.run(tool_of(world.engine, world.family), "-w", "10", "-I", "FORWARD", "-j", "ACCEPT")
    else:
        requires("nft")
        world.run("nft", "table inet foreign { chain early { type filter hook forward priority -200; accept; }; }")


def test_what_stands_first_drops_whatever_others_accept(mesh: World, requires: Callable[..., None]) -> None:
    accept_first(mesh, requires)
    apply(
        mesh.backend(),
        Ruleset(chains=(chain(mesh, "fw", "-p udp -j DROP"),), attachments=(attached(mesh, "fw"),)),
    )
    assert (mesh.verdict("udp", 9), mesh.verdict("tcp", 9)) == ("dropped", "accepted")


def test_a_foreign_accept_ends_the_hook_before_what_stands_last_as_the_backend_declares(
    mesh: World, requires: Callable[..., None]
) -> None:
    accept_first(mesh, requires)
    ruleset = Ruleset(
        chains=(chain(mesh, "fw", "-p udp -j DROP"),), attachments=(attached(mesh, "fw", place=Place.LAST),)
    )
    if mesh.backend().capabilities.foreign_accept_wins:
        mesh.apply(ruleset)
        assert mesh.verdict("udp", 9) == "accepted"
        return
    with pytest.raises(UnsupportedError, match="isolated = true"):
        apply(mesh.backend(), ruleset)
    assert mesh.verdict("udp", 9) == "accepted", "what is refused is not written"
    apply(mesh.backend(options={"isolated": True}), ruleset)
    assert (mesh.verdict("udp", 9), mesh.verdict("tcp", 9)) == ("dropped", "accepted")
