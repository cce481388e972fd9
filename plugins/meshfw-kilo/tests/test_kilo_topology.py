"""Segments, leaders and addresses of a mesh: by hand, and as laws over drawn meshes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kilo_meshes import FULL, KEY, NOW, Objects, key_of, node_object, peer_object, ready_node, seen
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.objects import parse_objects
from meshfw_kilo.options import Granularity, Mesh, PodCidrs
from meshfw_kilo.topology import NotReadyError, topology_of

from meshfw import MeshfwError

EXAMPLES = settings(max_examples=400 if FULL else 25, deadline=None)


def two_places() -> Objects:
    """Two Nodes in aws, three in gcp of which one has no internal address."""
    return [
        ready_node("a1", "10.42.0.0/24", "10.0.1.11/24", location="aws", endpoint="203.0.113.11:51820"),
        ready_node("a2", "10.42.1.0/24", "10.0.1.12/24", location="aws"),
        ready_node("g1", "10.42.2.0/24", "10.1.1.21/24", location="gcp"),
        ready_node("g2", "10.42.3.0/24", "10.1.1.22/24", location="gcp", leader="false"),
        ready_node("g3", "10.42.4.0/24", location="gcp"),
    ]


def test_nodes_of_a_location_share_a_segment_and_one_without_internal_ip_is_alone() -> None:
    topology = seen(two_places(), "a2")
    assert [(segment.key, segment.leader, segment.nodes) for segment in topology.segments] == [
        ("location:aws", "a1", ("a1", "a2")),
        ("location:gcp", "g2", ("g1", "g2")),
        ("node:g3", "g3", ("g3",)),
    ]
    assert [str(segment.wireguard_ip) for segment in topology.segments] == ["10.4.0.1/32", "10.4.0.2/32", "10.4.0.3/32"]
    assert [str(cidr) for cidr in topology.segment.allowed_ips] == [
        *("10.42.0.0/24", "10.42.1.0/24", "10.0.1.11/32", "10.0.1.12/32", "10.4.0.1/32"),
    ]
    assert not topology.leads
    assert seen(two_places(), "a1").leads


def test_full_granularity_makes_each_node_a_segment() -> None:
    topology = seen(two_places(), "a2", Mesh(granularity=Granularity.FULL))
    assert [segment.key for segment in topology.segments] == ["node:a1", "node:a2", "node:g1", "node:g2", "node:g3"]
    assert topology.leads
    assert topology.neighbours == ()


def test_a_node_without_internal_ip_still_has_the_neighbours_of_its_location() -> None:
    topology = seen(two_places(), "g3")
    assert topology.segment.private_ips == ()
    assert [str(cidr) for cidr in topology.neighbours] == ["10.1.1.21/32", "10.1.1.22/32"]


@pytest.mark.parametrize(
    ("nodes", "leader"),
    [
        ("private private", "n0"),
        ("private public", "n1"),
        ("public leading", "n1"),
        ("leading leading+public", "n1"),
        ("leading private leading", "n0"),
        ("public private leading+public", "n2"),
    ],
)
def test_leader_is_a_volunteer_before_others_and_a_public_one_before_private_ones(nodes: str, leader: str) -> None:
    objects = []
    for number, kind in enumerate(nodes.split()):
        more: dict[str, Any] = {"leader": ""} if "leading" in kind else {}
        if "public" in kind:
            more["endpoint"] = "203.0.113.1:1"
        objects.append(ready_node(f"n{number}", f"10.42.{number}.0/24", f"10.0.0.{number}/24", **more))
    assert seen(objects, "n0").segment.leader == leader


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"endpoint": ""}, "has no endpoint"),
        ({"endpoint": "nowhere"}, "has no endpoint"),
        ({"key": ""}, "has no WireGuard key"),
        ({"last_seen": ""}, "has never checked in"),
        ({"last_seen": str(NOW - 60)}, "hasn't checked in since 2023-11-14 22:12:20 UTC"),
    ],
)
def test_nothing_is_known_before_the_node_itself_is_ready(change: dict[str, str], reason: str) -> None:
    found = {"endpoint": "203.0.113.1:1", "key": KEY, "last_seen": str(NOW)} | change
    with pytest.raises(NotReadyError, match=f"node n1 isn't ready: it {reason}"):
        seen([node_object("n1", **found)], "n1")
    others = [*two_places(), node_object("n1", **found)]
    assert "n1" not in [name for segment in seen(others, "a1").segments for name in segment.nodes]


def test_a_node_without_pod_network_or_not_there_is_not_ready() -> None:
    bare = ready_node("n1", "10.42.0.0/24") | {"spec": {}}
    with pytest.raises(NotReadyError, match="has no pod network"):
        seen([bare], "n1")
    with pytest.raises(NotReadyError, match="node n9 isn't there; there are a1, a2, g1, g2, g3"):
        seen(two_places(), "n9")
    with pytest.raises(NotReadyError, match="there is none"):
        seen([], "n9")


def test_a_node_counts_for_a_minute_after_it_checked_in() -> None:
    objects = [*two_places(), ready_node("z", "10.42.9.0/24", location="far", at=NOW - 30)]
    for now in (NOW, NOW + 29):
        topology = seen(objects, "a1", now=now)
        assert (len(topology.segments), topology.expires, topology.warnings) == (4, NOW + 30, ())
    topology = seen(objects, "a1", now=NOW + 30)
    assert (len(topology.segments), topology.expires) == (3, NOW + 60)
    assert topology.warnings == ("Node z is left out: it hasn't checked in since 2023-11-14 22:12:50 UTC",)
    assert len(seen(objects, "a1", Mesh(stale_after=31), now=NOW).segments) == 4
    assert len(seen(objects, "a1", Mesh(stale_after=30), now=NOW).segments) == 3


def test_a_clock_behind_the_cluster_takes_nobody_away() -> None:
    assert len(seen(two_places(), "a1", now=NOW - 86400).segments) == 3


def location_ips(objects: Objects) -> dict[str, list[str]]:
    topology = seen(objects, "a1")
    return {segment.key: [str(cidr) for cidr in segment.location_ips] for segment in topology.segments}


def with_location_ips(**claims: str) -> Objects:
    objects = two_places()
    for item in objects:
        name = item["metadata"]["name"]
        if name in claims:
            item["metadata"]["annotations"]["kilo.squat.ai/allowed-location-ips"] = claims[name]
    return objects


def test_location_ips_are_those_of_all_its_nodes_in_the_order_of_their_texts() -> None:
    found = location_ips(with_location_ips(a1="192.168.7.0/24,172.20.0.0/16", a2="172.20.0.0/16,10.9.0.0/16"))
    assert found["location:aws"] == ["10.9.0.0/16", "172.20.0.0/16", "192.168.7.0/24"]


@pytest.mark.parametrize(
    ("claims", "left"),
    [
        ({"a1": "192.168.0.0/16", "g1": "192.168.7.0/24"}, {"location:gcp": ["192.168.7.0/24"]}),
        ({"a1": "192.168.7.0/24", "g1": "192.168.0.0/16"}, {"location:gcp": ["192.168.0.0/16"]}),
        ({"a1": "10.42.3.7/32"}, {}),  # a pod's, of another location
        ({"a1": "10.42.1.7/32"}, {}),  # ... and of its own
        ({"a1": "10.1.1.21/32"}, {}),  # a node's
        ({"a1": "10.1.1.20/24"}, {"location:aws": ["10.1.1.20/24"]}),  # around nodes
        ({"a1": "10.4.0.1/32"}, {}),  # its own WireGuard address
        ({"a1": "10.4.0.2/32"}, {"location:aws": ["10.4.0.2/32"]}),  # a later one's isn't known yet
        ({"g1": "10.4.0.1/32"}, {}),
        ({"a1": "10.5.0.0/24"}, {}),  # a peer's
        ({"a1": "10.5.0.1/32"}, {}),
        ({"a1": "0.0.0.0/0"}, {}),
        ({"a1": "fd00::/8"}, {"location:aws": ["fd00::/8"]}),
    ],
)
def test_disputed_location_ips_are_left_out_and_told(claims: dict[str, str], left: dict[str, list[str]]) -> None:
    objects = [*with_location_ips(**claims), peer_object()]
    none: dict[str, list[str]] = {"location:aws": [], "location:gcp": [], "node:g3": []}
    assert location_ips(objects) == none | left
    lost = len(claims) - sum(len(held) for held in left.values())
    assert len(seen(objects, "a1").warnings) == lost


def test_peers_come_by_name_and_the_first_keeps_a_repeated_ip() -> None:
    peers = [
        peer_object("b", publicKey=key_of(2), allowedIPs=["10.6.0.3/24", "10.7.0.1/32"]),
        peer_object("a", publicKey=key_of(1), allowedIPs=["10.6.0.0/24", "10.6.0.7/24"]),
    ]
    topology = seen([*two_places(), *peers], "a1")
    assert [(peer.name, [str(cidr.network) for cidr in peer.allowed_ips]) for peer in topology.peers] == [
        ("a", ["10.6.0.0/24"]),
        ("b", ["10.7.0.1/32"]),
    ]


def test_a_subnet_that_is_too_small_is_refused() -> None:
    small = Cidr.parse("10.4.0.0/30")
    assert small is not None
    seen(two_places(), "a1", Mesh(subnet=small))
    objects = [*two_places(), ready_node("x", "10.42.9.0/24", location="far")]
    with pytest.raises(MeshfwError, match=r"10\.4\.0\.0/30 has no address for segment 4"):
        seen(objects, "a1", Mesh(subnet=small))


def test_pod_networks_of_both_families_count_if_asked_for() -> None:
    spec = {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24", "fd00:42::/64"]}
    objects = [ready_node("n1", "", "10.0.0.1/24") | {"spec": spec}]
    assert [str(cidr) for cidr in seen(objects, "n1").pod_cidrs] == ["10.42.0.0/24"]
    both = seen(objects, "n1", Mesh(pod_cidrs=PodCidrs.ALL))
    assert [str(cidr) for cidr in both.pod_cidrs] == ["10.42.0.0/24", "fd00:42::/64"]
    assert [str(cidr) for cidr in both.segment.pod_cidrs] == ["10.42.0.0/24", "fd00:42::/64"]


def test_an_hour_that_changes_no_node_changes_no_topology() -> None:
    early, late = seen(two_places(), "a1"), seen(two_places(), "a1", now=NOW + 59)
    assert early.same(late)
    checked_in = [ready_node("a1", "10.42.0.0/24", "10.0.1.11/24", at=NOW + 30)]
    assert not early.same(seen(checked_in, "a1"))
    assert not early.same(None)


# --- laws over drawn meshes ---


@st.composite
def meshes(draw: st.DrawFn) -> Objects:
    """Some Nodes and Peers whose networks often meet."""

    def node(number: int) -> dict[str, Any]:
        family = draw(st.sampled_from(("10.42.{}.0/24", "fd00:42:0:{}::/64")))
        internal = draw(st.sampled_from(("", f"10.0.{number}.{number + 1}/24", f"fd00:1::{number + 1}/64")))
        more = {"location": draw(st.sampled_from(("", "a", "b")))}
        if draw(st.booleans()):
            more["leader"] = ""
        claims = st.sampled_from(("192.168.0.0/16", "192.168.7.0/24", "10.42.1.9/32", "fd00:aa::/64", "10.5.0.0/16"))
        more["allowed_location_ips"] = ",".join(draw(st.lists(claims, max_size=2)))
        more["endpoint"] = draw(st.sampled_from(("203.0.113.1:1", "10.0.0.1:1", "name.example:1", "")))
        return ready_node(f"n{number}", family.format(number), internal, at=NOW - draw(st.integers(0, 70)), **more)

    def peer(number: int) -> dict[str, Any]:
        claims = st.sampled_from(("10.5.0.1/32", "10.5.0.9/24", "10.5.0.0/24", "192.168.7.7/32", "fd00:5::1/128"))
        found = draw(st.lists(claims, min_size=1, max_size=3))
        return peer_object(f"p{number}", publicKey=key_of(draw(st.integers(1, 3))), allowedIPs=found)

    own = ready_node("n0", "10.42.0.0/24", "10.0.0.1/24", location=draw(st.sampled_from(("", "a", "b"))))
    nodes = [node(number) for number in range(1, draw(st.integers(1, 6)))]
    return [own, *nodes, *(peer(number) for number in range(draw(st.integers(0, 3))))]


GRANULARITIES = st.sampled_from(Granularity)


@EXAMPLES
@given(meshes(), GRANULARITIES, st.randoms(use_true_random=False))
def test_the_order_of_objects_changes_nothing(objects: Objects, granularity: Granularity, chance: Any) -> None:
    shuffled = list(objects)
    chance.shuffle(shuffled)
    mesh = Mesh(granularity=granularity)
    assert parse_objects(objects) == parse_objects(shuffled)
    assert seen(objects, "n0", mesh) == seen(shuffled, "n0", mesh)


@EXAMPLES
@given(meshes(), GRANULARITIES)
def test_all_nodes_see_one_mesh(objects: Objects, granularity: Granularity) -> None:
    mesh = Mesh(granularity=granularity)
    topology = seen(objects, "n0", mesh)
    names = [name for segment in topology.segments for name in segment.nodes]
    assert len(names) == len(set(names))
    for name in names:
        other = seen(objects, name, mesh)
        assert other.segments == topology.segments
        assert other.peers == topology.peers
        assert name in other.segment.nodes
    leaders = [name for name in names if seen(objects, name, mesh).leads]
    assert leaders == [segment.leader for segment in topology.segments]


@EXAMPLES
@given(meshes())
def test_what_is_left_of_location_ips_is_nobody_elses(objects: Objects) -> None:
    topology = seen(objects, "n0")
    for segment in topology.segments:
        assert segment.leader in segment.nodes
        for cidr in segment.location_ips:
            for other in topology.segments:
                assert not any(held.holds(cidr) for held in (*other.pod_cidrs, *other.private_ips))
                if other is not segment:
                    assert not any(cidr.overlaps(held) for held in other.location_ips)
            assert not any(cidr.overlaps(held) for peer in topology.peers for held in peer.allowed_ips)
    claims = [cidr.network for peer in topology.peers for cidr in peer.allowed_ips]
    assert len(claims) == len(set(claims))


@EXAMPLES
@given(meshes())
def test_nothing_changes_before_the_moment_that_is_told(objects: Objects) -> None:
    cluster, mesh = parse_objects(objects), Mesh()
    topology = topology_of(cluster, "n0", mesh, now=NOW)
    assert topology.expires is not None
    assert topology.expires > NOW
    assert topology_of(cluster, "n0", mesh, now=topology.expires - 1) == topology
    try:
        later = topology_of(cluster, "n0", mesh, now=topology.expires)
    except NotReadyError:
        return
    assert len(later.segments) < len(topology.segments) or later != topology
