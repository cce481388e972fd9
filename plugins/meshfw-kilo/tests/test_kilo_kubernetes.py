"""The live cluster against a server that lists and watches: what it reads, what it tells, and by which clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kilo_fake_api import FakeApi
from kilo_fake_store import CRDS, NODES, PEERS
from kilo_live import (
    SEEN,
    SOON,
    Clocks,
    annotate,
    names,
    node,
    opened,
    patch,
    peer,
    populated,
    readable,
    settled,
    until,
)
from meshfw_kilo.kubernetes import LiveCluster, kept_node, kept_peer
from meshfw_kilo.kubernetes_clock import ContactClock

from meshfw import Changes


@pytest.fixture
def api(loopback: None) -> Iterator[FakeApi]:
    with populated() as fake:
        yield fake


@pytest.fixture
def cluster(api: FakeApi) -> Iterator[LiveCluster]:
    with closing(opened(api)) as found:
        found.read()
        settled(api)
        yield found


# --- reading ---


def test_the_first_reading_has_both_lists(cluster: LiveCluster) -> None:
    assert [(item["kind"], item["metadata"]["name"]) for item in cluster.read()] == [
        ("Node", "a"),
        ("Node", "b"),
        ("Peer", "laptop"),
    ]
    assert isinstance(cluster.changes(), Changes)
    assert not cluster.drain()


def test_changes_are_told_and_read(api: FakeApi, cluster: LiveCluster) -> None:
    api.store.create(PEERS, peer("office", "10.6.0.0/24"))
    assert readable(cluster, SOON)
    assert cluster.drain()
    assert names(cluster) == ["a", "b", "laptop", "office"]
    api.store.delete(NODES, "a")
    assert readable(cluster, SOON)
    assert cluster.drain()
    assert names(cluster) == ["b", "laptop", "office"]
    assert not readable(cluster)


def test_what_didnt_change_is_the_same_object(api: FakeApi, cluster: LiveCluster) -> None:
    before = cluster.read()
    assert cluster.read() is before
    annotate(api, "b", location="aws")
    assert readable(cluster, SOON)
    after = cluster.read()
    assert [new is old for new, old in zip(after, before, strict=True)] == [True, False, True]


def test_a_burst_is_told_once(api: FakeApi, cluster: LiveCluster) -> None:
    for number in range(300):
        annotate(api, "a", location=f"rack-{number}")
    until(lambda: cluster.read()[0]["metadata"]["annotations"].get("kilo.squat.ai/location") == "rack-299")
    cluster.drain()
    assert not readable(cluster)
    assert not cluster.drain()


def test_a_status_of_the_kubelet_is_no_change(api: FakeApi, cluster: LiveCluster) -> None:
    before = cluster.read()
    patch(api, "a", {"status": {"images": ["x" * 1000]}, "metadata": {"annotations": {"other/annotation": "1"}}})
    api.store.create(NODES, node("c"))  # told after it, in the same watch
    until(lambda: "c" in names(cluster))
    assert cluster.read()[0] is before[0]


def test_pages_make_one_list(api: FakeApi) -> None:
    for number in range(1100):
        api.store.create(NODES, node(f"n{number:04}"))
    with closing(opened(api)) as found:
        assert len(found.read()) == 1103
    assert api.asked("nodes", watch=False) == 3


def test_pages_that_expire_make_one_list_without_pages(api: FakeApi) -> None:
    for number in range(600):
        api.store.create(NODES, node(f"n{number:04}"))
    api.faults.expire_pages = 1
    with closing(opened(api)) as found:
        assert len(found.read()) == 603


# --- heartbeats and the clock ---


def test_a_heartbeat_is_no_change_as_long_as_the_same_nodes_live(api: FakeApi) -> None:
    wall = Clocks()
    annotate(api, "a", last_seen="999990")
    with closing(opened(api, wall=wall)) as found:
        found.read()
        settled(api)
        wall.seconds += 30
        annotate(api, "a", last_seen="1000030")
        until(lambda: found.read()[0]["metadata"]["annotations"][SEEN] == "1000030")
        assert not readable(found)
        assert not found.drain()
        assert found.now() == 1000030


def test_a_node_that_comes_back_is_a_change(api: FakeApi) -> None:
    wall = Clocks()
    annotate(api, "a", last_seen="900000")
    with closing(opened(api, wall=wall)) as found:
        found.read()
        settled(api)
        annotate(api, "a", last_seen="999999")
        assert readable(found, SOON)
        assert found.drain()


def test_a_node_that_checks_in_no_longer_is_a_change_once_others_are_heard(api: FakeApi) -> None:
    wall = Clocks()
    for name in ("a", "b"):
        annotate(api, name, last_seen="1000000")
    with closing(opened(api, wall=wall)) as found:
        found.read()
        settled(api)
        wall.seconds += 61
        annotate(api, "a", last_seen="1000061")
        assert readable(found, SOON)
        assert found.drain()
        assert found.read()
        assert found.now() == 1000061


def test_the_clock_stands_while_the_server_is_away(api: FakeApi) -> None:
    wall = Clocks()
    with closing(opened(api, wall=wall)) as found:
        found.read()
        settled(api)
        api.stop()
        wall.seconds += 3600
        assert found.read()
        assert found.now() == 1_000_000


def test_the_clock_waits_for_heartbeats_after_an_outage() -> None:
    wall, monotonic = Clocks(), Clocks()

    def passes(seconds: float) -> None:
        wall.seconds += seconds
        monotonic.seconds += seconds

    clock = ContactClock(60, wall=wall, monotonic=monotonic)
    clock.contact()
    passes(45)
    clock.contact()
    assert clock.at == 1_000_045  # a quiet time is no outage
    clock.lost()
    passes(10)
    clock.contact()
    assert clock.at == 1_000_055  # nor is a moment
    clock.lost()
    passes(600)
    clock.contact()
    passes(59)
    clock.contact()
    assert clock.at == 1_000_055
    passes(1)
    clock.contact()
    assert clock.at == 1_000_055 + 660


# --- peers without a definition ---


def test_a_cluster_without_the_definition_of_peers_has_none(loopback: None, caplog: pytest.LogCaptureFixture) -> None:
    with FakeApi() as fake:
        fake.store.create(NODES, node("a"))
        with closing(opened(fake)) as found:
            assert names(found) == ["a"]
    assert caplog.text.count("has no /apis/kilo.squat.ai/v1alpha1/peers: taken as none") == 1


def test_a_definition_taken_away_takes_its_peers(api: FakeApi, cluster: LiveCluster) -> None:
    api.store.delete(CRDS, "peers.kilo.squat.ai")
    until(lambda: names(cluster) == ["a", "b"])


# --- what is kept ---


def test_of_a_node_what_the_mesh_says_is_kept() -> None:
    found = kept_node(
        {
            "metadata": {
                "name": "a",
                "uid": "x",
                "managedFields": [{}],
                "labels": {"l": "v"},
                "annotations": {"x/y": "z", SEEN: "1"},
            },
            "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "taints": []},
            "status": {"images": []},
        }
    )
    assert found == {
        "metadata": {"name": "a", "labels": {"l": "v"}, "annotations": {SEEN: "1"}},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
    }


@pytest.mark.parametrize("odd", [None, [], "x", 7])
def test_an_odd_node_or_peer_is_kept_as_far_as_it_goes(odd: Any) -> None:
    found = kept_node({"metadata": {"name": "a", "labels": odd, "annotations": odd}, "spec": odd})
    assert found == {"metadata": {"name": "a", "labels": {}, "annotations": {}}, "spec": {}}
    assert kept_peer({"metadata": {"name": "p"}, "spec": odd}) == {"metadata": {"name": "p"}, "spec": odd}
