"""The rules of a mesh node, written out by hand; and what a packet meets under compact rules is what it met before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kilo_meshes import (
    FULL,
    Objects,
    assert_in_order,
    flat_ruleset,
    key_of,
    large_mesh,
    lines,
    peer_object,
    ready_node,
    rules,
)
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.options import Compatibility, Encapsulation, Firewall, PodCidrs
from msgspec.structs import replace

from meshfw import ChainKey, Family, Hook, Ruleset, Table
from meshfw.model import Packet, Place, Return, parse_address

IPV4, IPV6 = Family.IPV4, Family.IPV6
QUIET = Firewall(encapsulate=Encapsulation.NEVER)


def said(comment: str) -> str:
    """The words of a comment, an apostrophe escaped as iptables prints it."""
    escaped = comment.replace("'", "\\'")
    return f'-m comment --comment "Kilo: {escaped}"'


def dual_stack() -> Objects:
    """A location of IPv4 with two Nodes, one of IPv6 with a network behind it, and a Peer of both."""
    return [
        ready_node("a1", "10.42.0.0/24", "10.0.1.11/24", location="aws", endpoint="203.0.113.11:51820"),
        ready_node("a2", "10.42.1.0/24", "10.0.1.12/24", location="aws"),
        ready_node("h1", "fd00:42::/64", "fd00:1::21/64", location="home", allowed_location_ips="192.168.7.0/24"),
        peer_object("laptop", allowedIPs=["10.5.0.3/24", "fd00:5::1/128"]),
    ]


def cidrs(*texts: str) -> tuple[Cidr, ...]:
    return tuple(cidr for text in texts if (cidr := Cidr.parse(text)) is not None)


def test_what_leaves_the_mesh_is_masqueraded_and_nothing_within_it() -> None:
    options = Firewall(encapsulate=Encapsulation.NEVER, service_cidrs=cidrs("10.43.0.0/16", "fd00:43::/112"))
    ruleset = rules(dual_stack(), "a1", options)
    assert lines(ruleset, IPV4, "KILO-POSTROUTING") == [
        f"-s 10.5.0.0/24 {said('jump to NAT chain')} -j KILO-NAT",
        f"-s 10.42.0.0/24 {said('jump to KILO-NAT chain')} -j KILO-NAT",
    ]
    known = said("do not NAT packets destined for known IPs")
    assert lines(ruleset, IPV4, "KILO-NAT") == [
        f"-d 10.5.0.0/24 {said('do not NAT packets destined for peers')} -j RETURN",
        f"-d 10.4.0.1/32 {said('do not NAT packets destined for WireGuared IPs')} -j RETURN",
        f"-d 10.4.0.2/32 {said('do not NAT packets destined for WireGuared IPs')} -j RETURN",
        f"-d 10.0.1.11/32 {known} -j RETURN",
        f"-d 10.0.1.12/32 {known} -j RETURN",
        f"-d 10.4.0.1/32 {known} -j RETURN",
        f"-d 10.4.0.2/32 {known} -j RETURN",
        f"-d 10.42.0.0/24 {known} -j RETURN",
        f"-d 10.42.1.0/24 {known} -j RETURN",
        f"-d 10.43.0.0/16 {said('do not NAT packets destined for service CIDRs')} -j RETURN",
        f"{said('NAT remaining packets')} -j MASQUERADE",
    ]
    assert lines(ruleset, IPV6, "KILO-POSTROUTING") == [f"-s fd00:5::1/128 {said('jump to NAT chain')} -j KILO-NAT"]
    assert lines(ruleset, IPV6, "KILO-NAT") == [
        f"-d fd00:5::1/128 {said('do not NAT packets destined for peers')} -j RETURN",
        f"-d fd00:1::21/128 {known} -j RETURN",
        f"-d fd00:42::/64 {known} -j RETURN",
        f"-d fd00:43::/112 {said('do not NAT packets destined for service CIDRs')} -j RETURN",
        f"{said('NAT remaining packets')} -j MASQUERADE",
    ]
    assert {chain.name for chain in ruleset.chains} == {"KILO-POSTROUTING", "KILO-NAT"}


def test_networks_behind_the_own_location_are_masqueraded_whatever_the_source() -> None:
    jump = f"-d 192.168.7.0/24 {said('jump to NAT chain')} -j KILO-NAT"
    assert jump in lines(rules(dual_stack(), "h1", QUIET), IPV4, "KILO-POSTROUTING")
    assert jump not in lines(rules(dual_stack(), "a1", QUIET), IPV4, "KILO-POSTROUTING")


def test_without_cni_pods_are_not_masqueraded_and_nothing_is_forwarded() -> None:
    options = Firewall(encapsulate=Encapsulation.NEVER, cni=False, forward_rules=True)
    ruleset = rules(dual_stack(), "a1", options)
    assert lines(ruleset, IPV4, "KILO-POSTROUTING") == [f"-s 10.5.0.0/24 {said('jump to NAT chain')} -j KILO-NAT"]
    assert lines(ruleset, IPV4, "KILO-FORWARD") == []


def test_a_leader_forwards_for_its_segment_and_another_node_for_its_pods() -> None:
    options = Firewall(encapsulate=Encapsulation.NEVER, forward_rules=True)

    def ways(address: str, what: str) -> list[str]:
        return [
            f"-d {address} {said(f'forward packets to {what}')} -j ACCEPT",
            f"-s {address} {said(f'forward packets from {what}')} -j ACCEPT",
        ]

    leader = rules(dual_stack(), "a1", options)
    pairs = [("10.0.1.11/32", "private IPs"), ("10.0.1.12/32", "private IPs")]
    pairs += [("10.42.0.0/24", "the pod subnet"), ("10.42.1.0/24", "the pod subnet")]
    assert sorted(lines(leader, IPV4, "KILO-FORWARD")) == sorted(line for pair in pairs for line in ways(*pair))
    other = rules(dual_stack(), "a2", options)
    assert lines(other, IPV4, "KILO-FORWARD") == ways("10.42.1.0/24", "the node's pod subnet")
    home = rules(dual_stack(), "h1", options)
    assert lines(home, IPV4, "KILO-FORWARD") == ways("192.168.7.0/24", "allowed location IPs")
    pairs = [("fd00:1::21/128", "private IPs"), ("fd00:42::/64", "the pod subnet")]
    assert lines(home, IPV6, "KILO-FORWARD") == [line for pair in pairs for line in ways(*pair)]


def test_ipip_comes_from_the_location_alone_and_in_both_families() -> None:
    ruleset = rules(dual_stack(), "a2")
    allow = said("allow IPIP traffic")
    assert lines(ruleset, IPV4, "KILO-IPIP") == [
        f"-s 10.0.1.11/32 {allow} -j ACCEPT",
        f"-s 10.0.1.12/32 {allow} -j ACCEPT",
    ]
    gate = [
        f"-p ipencap {said('jump to IPIP chain')} -j KILO-IPIP",
        f"-p ipencap {said('reject other IPIP traffic')} -j DROP",
    ]
    for family in Family:
        assert lines(ruleset, family, "KILO-INPUT") == gate
    assert ruleset.chain(ChainKey(IPV6, Table.FILTER, "KILO-IPIP")) is not None
    assert lines(ruleset, IPV6, "KILO-IPIP") == []


def has_ipip(options: Firewall, node: dict[str, Any] | None = None) -> bool:
    own = node or ready_node("n1", "10.42.0.0/24", "10.0.0.1/24")
    names = {chain.name for chain in rules([own], "n1", options).chains}
    assert ("KILO-INPUT" in names) == ("KILO-IPIP" in names)
    return "KILO-IPIP" in names


def test_ipip_rules_depend_on_options_and_a_private_address() -> None:
    assert has_ipip(Firewall())
    assert has_ipip(Firewall(encapsulate=Encapsulation.CROSSSUBNET))
    assert has_ipip(Firewall(cni=False, compatibility=Compatibility.CILIUM))
    assert not has_ipip(Firewall(encapsulate=Encapsulation.NEVER))
    assert not has_ipip(Firewall(local=False))
    assert not has_ipip(Firewall(compatibility=Compatibility.FLANNEL))
    assert not has_ipip(Firewall(), ready_node("n1", "10.42.0.0/24"))
    assert has_ipip(Firewall(), ready_node("n1", "10.42.0.0/24", force_internal_ip="-"))


def test_full_granularity_lets_no_ipip_in() -> None:
    from meshfw_kilo.options import Granularity

    ruleset = rules(dual_stack(), "a1", granularity=Granularity.FULL)
    assert lines(ruleset, IPV4, "KILO-IPIP") == []
    assert len(lines(ruleset, IPV4, "KILO-INPUT")) == 2


def test_second_pod_network_is_masqueraded_if_asked_for() -> None:
    spec = {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24", "fd00:42::/64"]}
    objects = [ready_node("n1", "", "10.0.0.1/24") | {"spec": spec}]
    assert lines(rules(objects, "n1", QUIET), IPV6, "KILO-POSTROUTING") == []
    assert lines(rules(objects, "n1", QUIET, pod_cidrs=PodCidrs.ALL), IPV6, "KILO-POSTROUTING") == [
        f"-s fd00:42::/64 {said('jump to KILO-NAT chain')} -j KILO-NAT"
    ]


def test_chains_stand_first_and_input_where_it_is_told() -> None:
    def places(options: Firewall) -> set[tuple[Hook, Place]]:
        return {(item.hook, item.place) for item in rules(dual_stack(), "a1", options).attachments}

    first = {(Hook.POSTROUTING, Place.FIRST), (Hook.FORWARD, Place.FIRST)}
    assert places(Firewall(forward_rules=True)) == {*first, (Hook.INPUT, Place.FIRST)}
    assert places(Firewall(forward_rules=True, input_place=Place.LAST)) == {*first, (Hook.INPUT, Place.LAST)}


def test_a_peer_of_everything_makes_one_jump_and_one_return() -> None:
    objects = [*dual_stack(), peer_object("exit", publicKey=key_of(9), allowedIPs=["0.0.0.0/0"])]
    for compact in (False, True):
        ruleset = rules(objects, "h1", Firewall(encapsulate=Encapsulation.NEVER, compact=compact))
        assert_in_order(flat_ruleset(ruleset))


# --- compact ---


def test_compact_rules_are_as_many_however_many_nodes_there_are() -> None:
    options = Firewall(forward_rules=True, compact=True, service_cidrs=cidrs("10.43.0.0/16"))
    few, many = (rules(large_mesh(count), "n000", options) for count in (10, 300))
    shape = [(chain.key, chain.rules) for chain in few.chains]
    assert shape == [(chain.key, chain.rules) for chain in many.chains]
    assert few.attachments == many.attachments
    assert {entry.name for entry in many.sets} == {
        *("kilo-known", "kilo-peers", "kilo-services", "kilo-private", "kilo-pods"),
    }
    assert sum(len(entry.elements) for entry in many.sets) > 600


ADDRESSES = ("10.42.0.5", "10.42.1.5", "10.0.1.11", "10.0.1.12", "10.5.0.77", "10.4.0.1", "10.43.1.1", "192.168.7.9")
WAN = ("8.8.8.8", "10.4.0.3", "192.168.8.1")


def masqueraded(ruleset: Ruleset, source: str, destination: str) -> bool:
    """Whether a packet that leaves is masqueraded: the first final rule on its way through POSTROUTING."""
    ends = parse_address(source)[1], parse_address(destination)[1]
    packet = Packet(family=IPV4, source=ends[0], destination=ends[1], protocol=6)
    flat = flat_ruleset(ruleset).get((IPV4, Table.NAT, Hook.POSTROUTING), [])
    returned: tuple[Any, ...] | None = None
    for way, rule in flat:
        if returned == way or not all(condition.meets(packet, {}) for condition in way):
            continue
        if rule.target is None or not rule.meets(packet, {}):
            continue
        if isinstance(rule.target, Return):
            returned = way
            continue
        return True
    return False


@settings(max_examples=300 if FULL else 40, deadline=None)
@given(st.sampled_from(("a1", "a2", "h1")), st.sampled_from(ADDRESSES + WAN), st.sampled_from(ADDRESSES + WAN))
def test_a_packet_is_masqueraded_as_the_mesh_means_it(node: str, source: str, destination: str) -> None:
    """From pods and peers to anything unknown, and from anywhere to what lies behind the own location."""
    options = Firewall(encapsulate=Encapsulation.NEVER, service_cidrs=cidrs("10.43.0.0/16"))
    own = {"a1": "10.42.0.", "a2": "10.42.1.", "h1": "none"}[node]
    inside = destination.startswith(("10.42.0.", "10.42.1.", "10.0.1.", "10.5.0.", "10.43.")) or destination in {
        *("10.4.0.1", "10.4.0.2"),
    }
    leaves = source.startswith((own, "10.5.0.")) or (node == "h1" and destination.startswith("192.168.7."))
    for compact in (False, True):
        ruleset = rules(dual_stack(), node, replace(options, compact=compact))
        assert masqueraded(ruleset, source, destination) == (leaves and not inside)


@pytest.mark.parametrize("compact", [False, True])
def test_rules_are_the_same_each_time(compact: bool) -> None:
    options = Firewall(forward_rules=True, compact=compact)
    assert rules(dual_stack(), "a1", options) == rules(dual_stack()[::-1], "a1", options)
