"""Nodes and Peers are read as Kilo reads them: what it passes over is told, what Kubernetes can't hold is refused."""

from __future__ import annotations

from typing import Any

import pytest
from kilo_meshes import KEY, node_object, peer_object
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.objects import Cluster, Node, Parser, listed_objects, parse_objects

from meshfw import ConfigError

OTHER_KEY = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
ZERO_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def one_node(item: dict[str, Any], **options: Any) -> tuple[Node, tuple[str, ...]]:
    cluster = parse_objects([item], **options)
    return cluster.nodes[0], cluster.warnings


def test_location_is_the_annotation_even_if_empty_and_else_the_label() -> None:
    labels = {"topology.kubernetes.io/region": "eu", "rack": "r7"}
    assert one_node(node_object(labels=labels))[0].location == "eu"
    assert one_node(node_object(labels=labels), topology_label="rack")[0].location == "r7"
    assert one_node(node_object(labels=labels, location="aws"))[0].location == "aws"
    assert one_node(node_object(labels=labels, location=""))[0].location == ""
    assert one_node(node_object())[0].location == ""


def test_leader_is_the_presence_of_its_annotation() -> None:
    assert one_node(node_object(leader="false"))[0].leader
    assert one_node(node_object(leader=""))[0].leader
    assert not one_node(node_object())[0].leader


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("203.0.113.1:51820", True),
        ("10.1.2.3:1", False),
        ("172.15.0.1:1", True),
        ("172.16.0.1:1", False),
        ("172.31.255.255:65535", False),
        ("172.32.0.1:1", True),
        ("192.168.0.1:1", False),
        ("[2001:db8::1]:51820", True),
        ("[fd00::1]:51820", False),
        ("[fd01::1]:51820", True),
        ("[::ffff:10.0.0.1]:51820", False),
        ("mesh.example.org:51820", False),
    ],
)
def test_endpoint_is_host_and_port_and_private_ones_are_known(text: str, public: bool) -> None:
    node, warnings = one_node(node_object(endpoint=text))
    assert (node.endpoint, node.public, warnings) == (text, public, ())


@pytest.mark.parametrize(
    "text", ["203.0.113.1", "203.0.113.1:0", "203.0.113.1:65536", "2001:db8::1:51820", "Host:1", ":1", "a b:1", "x:"]
)
def test_unreadable_endpoint_is_none_and_told(text: str) -> None:
    node, (warning,) = one_node(node_object(endpoint=text))
    assert node.endpoint == ""
    assert warning.startswith(f"Node n1: endpoint: {text!r} is passed over")


def test_forced_endpoint_wins_unless_it_is_unreadable() -> None:
    assert one_node(node_object(endpoint="1.2.3.4:1", force_endpoint="5.6.7.8:2"))[0].endpoint == "5.6.7.8:2"
    node, warnings = one_node(node_object(endpoint="1.2.3.4:1", force_endpoint="5.6.7.8"))
    assert node.endpoint == "1.2.3.4:1"
    assert len(warnings) == 1


def test_internal_ip_keeps_its_host_bits_and_can_be_forced_or_forbidden() -> None:
    def internal(**annotations: str) -> tuple[str | None, bool]:
        node, _ = one_node(node_object(**annotations))
        return None if node.internal_ip is None else str(node.internal_ip), node.found_private_ip

    assert internal(internal_ip="10.0.1.11/24") == ("10.0.1.11/24", True)
    assert internal(internal_ip="10.0.1.11/24", force_internal_ip="10.9.9.9/16") == ("10.9.9.9/16", True)
    assert internal(internal_ip="10.0.1.11/24", force_internal_ip="bad") == ("10.0.1.11/24", True)
    assert internal(internal_ip="", force_internal_ip="-") == (None, True)
    assert internal(internal_ip="10.0.1.11/24", force_internal_ip="") == (None, True)
    assert internal(internal_ip="") == (None, False)
    assert internal() == (None, False)


def test_allowed_location_ips_lose_what_is_unreadable_blanks_included() -> None:
    node, warnings = one_node(node_object(allowed_location_ips="10.0.0.0/8, 10.1.0.0/16,fd00::1/128,10.2.0.0"))
    assert [str(cidr) for cidr in node.allowed_location_ips] == ["10.0.0.0/8", "fd00::1/128"]
    assert [warning.split("'")[1] for warning in warnings] == [" 10.1.0.0/16", "10.2.0.0"]


def test_only_the_first_pod_network_counts_and_all_are_known() -> None:
    node, _ = one_node(node_object(spec={"podCIDR": "10.42.0.7/24", "podCIDRs": ["10.42.0.7/24", "fd00:42::/64"]}))
    assert str(node.pod_cidr) == "10.42.0.0/24"
    assert [str(cidr) for cidr in node.pod_cidrs] == ["10.42.0.0/24", "fd00:42::/64"]
    assert one_node(node_object(spec={}))[0].pod_cidr is None
    assert one_node(node_object(spec={"podCIDR": ""}))[0].pod_cidr is None


@pytest.mark.parametrize("text", ["abc", "AQEB", KEY[:-1], KEY + "AAAA", "ä"])
def test_unreadable_key_is_none_and_told(text: str) -> None:
    node, warnings = one_node(node_object(key=text))
    assert node.key == ""
    assert len(warnings) == 1


def test_key_of_zeros_is_none() -> None:
    assert one_node(node_object(key=ZERO_KEY)) == (one_node(node_object())[0], ())


def test_last_seen_is_a_whole_number_or_never() -> None:
    assert one_node(node_object(last_seen="1700000000"))[0].last_seen == 1700000000
    for text in ("", "1.7e9", "soon", "9" * 30):
        assert one_node(node_object(last_seen=text))[0].last_seen == 0


@pytest.mark.parametrize(
    "spec",
    [
        {"allowedIPs": []},
        {"allowedIPs": ["10.5.0.1/32", "10.5.0.2"]},
        {"allowedIPs": ["10.5.0.1/33"]},
        {"allowedIPs": "10.5.0.1/32"},
        {"allowedIPs": None},
        {"publicKey": ""},
        {"publicKey": "abc"},
        {"publicKey": None},
        {"persistentKeepalive": -1},
        {"persistentKeepalive": "10"},
        {"endpoint": {}},
        {"endpoint": {"dnsOrIP": {"ip": "192.0.2.1"}}},
        {"endpoint": {"dnsOrIP": {"ip": "192.0.2.1"}, "port": 0}},
        {"endpoint": {"dnsOrIP": {"ip": "192.0.2.1"}, "port": 65536}},
        {"endpoint": {"dnsOrIP": {"ip": "192.0.2"}, "port": 1}},
        {"endpoint": {"dnsOrIP": {"dns": "Example_"}, "port": 1}},
        {"endpoint": {"dnsOrIP": {}, "port": 1}},
    ],
)
def test_peer_with_one_bad_part_is_ignored_whole_and_told(spec: dict[str, Any]) -> None:
    cluster = parse_objects([peer_object(**spec)])
    assert cluster.peers == ()
    assert len(cluster.warnings) == 1
    assert cluster.warnings[0].startswith("Peer p1: spec.")


@pytest.mark.parametrize(
    "endpoint", [{"dnsOrIP": {"ip": "::ffff:192.0.2.1"}, "port": 1}, {"dnsOrIP": {"dns": "a.example"}, "port": 65535}]
)
def test_peer_with_a_good_endpoint_is_taken(endpoint: dict[str, Any]) -> None:
    cluster = parse_objects([peer_object(endpoint=endpoint)])
    assert (len(cluster.peers), cluster.warnings) == (1, ())


def test_of_peers_with_one_key_the_last_by_name_is_taken() -> None:
    objects = [peer_object("b", allowedIPs=["10.5.0.2/32"]), peer_object("a"), peer_object("c", publicKey=OTHER_KEY)]
    for order in (objects, objects[::-1]):
        cluster = parse_objects(order)
        assert [peer.name for peer in cluster.peers] == ["b", "c"]
        assert cluster.warnings == ("Peer a is left out: Peer b has the same public key",)


def test_other_kinds_and_peers_of_other_groups_are_left_out_and_told() -> None:
    foreign = peer_object() | {"apiVersion": "example.org/v1"}
    assert parse_objects([{"kind": "Pod"}, foreign]).warnings == (
        "1 of kind Peer left out: Kilo knows Node and Peer",
        "1 of kind Pod left out: Kilo knows Node and Peer",
    )


@pytest.mark.parametrize(
    ("item", "key"),
    [
        ({"kind": "Node"}, "Node 1.metadata"),
        ({"kind": "Node", "metadata": {}}, "Node 1.metadata.name"),
        ({"kind": "Node", "metadata": {"name": 7}}, "Node 1.metadata.name"),
        ({"kind": "Node", "metadata": {"name": "a", "annotations": []}}, "Node a.metadata.annotations"),
        ({"kind": "Node", "metadata": {"name": "a", "annotations": {"x/last-seen": 7}}}, "[x/last-seen]"),
        ({"kind": "Node", "metadata": {"name": "a", "labels": {"x": None}}}, "Node a.metadata.labels[x]"),
        ({"kind": "Node", "metadata": {"name": "a", "annotations": {7: "x"}}}, "Node a.metadata.annotations[7]"),
        ({"kind": "Node", "metadata": {"name": "a"}, "spec": "x"}, "Node a.spec"),
        ({"kind": "Node", "metadata": {"name": "a"}, "spec": {"podCIDRs": "x"}}, "Node a.spec.podCIDRs"),
    ],
)
def test_what_kubernetes_cannot_hold_is_refused_with_its_key(item: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_objects([item])
    assert caught.value.key.endswith(key)
    assert caught.value.expected


def test_two_objects_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two Nodes are called n1"):
        parse_objects([node_object(), node_object()])
    with pytest.raises(ConfigError, match="two Peers are called p1"):
        parse_objects([peer_object(), peer_object()])


def test_lists_of_every_kind_are_opened() -> None:
    bare = {key: value for key, value in node_object("b").items() if key not in ("kind", "apiVersion")}
    nodes = {"kind": "NodeList", "apiVersion": "v1", "items": [bare]}
    whole = {"kind": "List", "apiVersion": "v1", "items": [node_object("a"), nodes, peer_object()]}
    cluster = parse_objects(listed_objects(whole))
    assert [node.name for node in cluster.nodes] == ["a", "b"]
    assert [peer.name for peer in cluster.peers] == ["p1"]


def test_only_what_is_another_mapping_is_read_again() -> None:
    class Counting(dict[str, Any]):
        reads = 0

        def get(self, *wanted: Any) -> Any:
            Counting.reads += wanted == ("metadata",)
            return super().get(*wanted)

    objects = [Counting(node_object(f"n{number}")) for number in range(5)]
    parser = Parser()
    first = parser.parse(objects)
    assert (len(first.nodes), Counting.reads) == (5, 5)
    assert parser.parse(objects) == first
    objects[2] = Counting(node_object("n2", location="aws"))
    assert parser.parse(objects) == parse_objects(objects) != first
    assert Counting.reads == 5 + 1 + 5


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ("text", "document"),
        (None, "document"),
        ({}, "document"),
        ({"kind": 7}, "document"),
        ({"kind": "List"}, "items"),
        ({"kind": "List", "items": [node_object(), 7]}, "items[2]"),
        ({"kind": "List", "items": [{}]}, "items[1]"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(document: object, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(listed_objects(document))
    assert caught.value.key == key


def test_no_objects_are_an_empty_cluster() -> None:
    assert parse_objects([]) == Cluster()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.1.11/24", "10.0.1.11/24"),
        ("fd00::1/64", "fd00::1/64"),
        ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
        ("10.0.0.0/024", "10.0.0.0/24"),
        ("10.0.0.0", None),
        ("10.0.0.0/", None),
        ("10.0.0.0/33", None),
        ("10.0.0.0/-1", None),
        ("10.0.0.0/255.0.0.0", None),
        (" 10.0.0.0/8", None),
        ("10.0.0/8", None),
        ("010.0.0.0/8", None),
        ("fe80::1%eth0/64", None),
        ("::ffff:10.0.0.1/64", None),
        ("", None),
    ],
)
def test_cidr_is_an_address_with_a_length(text: str, shown: str | None) -> None:
    cidr = Cidr.parse(text)
    assert (None if cidr is None else str(cidr)) == shown
