"""What tests of the live cluster share: objects, a cluster that is open, and waiting for what must come."""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import Callable
from typing import Any

from kilo_fake_api import FakeApi
from kilo_fake_store import NODES, PEERS, Object, merged
from meshfw_kilo.kubernetes import LiveCluster
from meshfw_kilo.kubernetes_access import Access, KubernetesError

SEEN = "kilo.squat.ai/last-seen"
SOON = 10.0  # seconds within which what must happen does; a machine may be busy


def node(name: str, **annotations: str) -> Object:
    about = {"name": name, "annotations": {f"kilo.squat.ai/{key}": value for key, value in annotations.items()}}
    return {"kind": "Node", "apiVersion": "v1", "metadata": about, "spec": {"podCIDR": "10.42.0.0/24"}}


def peer(name: str, *addresses: str) -> Object:
    about = {"kind": "Peer", "apiVersion": "kilo.squat.ai/v1alpha1", "metadata": {"name": name}}
    return {**about, "spec": {"allowedIPs": list(addresses), "publicKey": "CQkJ"}}


def populated() -> FakeApi:
    """A server with two Nodes and a Peer, that serves once it is entered."""
    fake = FakeApi()
    fake.install_peers()
    fake.store.create(NODES, node("a"))
    fake.store.create(NODES, node("b"))
    fake.store.create(PEERS, peer("laptop", "10.5.0.1/32"))
    return fake


def opened(api: FakeApi, *, access: Access | None = None, **options: Any) -> LiveCluster:
    """A live cluster with short pauses."""
    return LiveCluster(access or Access(server=api.url), **{"chance": lambda: 0.05, **options})


def server_context(certificate: str, key: str, clients: str = "") -> ssl.SSLContext:
    """A server's TLS; ``clients`` is the authority that clients have to prove themselves by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def names(cluster: LiveCluster) -> list[str]:
    return [item["metadata"]["name"] for item in cluster.read()]


def readable(cluster: LiveCluster, seconds: float = 0) -> bool:
    return bool(select.select([cluster], [], [], seconds)[0])


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not what():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def settled(api: FakeApi, watches: int = 2) -> None:
    until(lambda: len(api.watches) == watches)


def patch(api: FakeApi, name: str, change: Object) -> None:
    api.store.update(NODES, name, lambda item: merged(item, change))


def annotate(api: FakeApi, name: str, **annotations: str | None) -> None:
    found = {f"kilo.squat.ai/{key.replace('_', '-')}": value for key, value in annotations.items()}
    patch(api, name, {"metadata": {"annotations": found}})


def attempt(cluster: LiveCluster) -> object:
    try:
        return cluster.read()
    except KubernetesError as error:
        return error


class Clocks:
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds
