"""The live cluster in storms of changes, disconnects and refusals: it loses nothing, and ends equal to the server."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import pytest
from kilo_fake_api import FakeApi
from kilo_fake_store import NODES, PEERS, Kind, Object, merged
from kilo_live import node, opened, peer, populated, readable, until
from meshfw_kilo.kubernetes import LiveCluster, kept_node, kept_peer

STORMS: Final = 60 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 6
STEPS: Final = 80
ANCHORS: Final = {"a", "b", "laptop"}
"""Objects that are there from the beginning to the end."""
LINES: Final = ("!", "[]", '{"type":"DELETED","object":{"metadata":{}}}', '{"type":"ADDED","object":null}')
ANSWERS: Final[tuple[tuple[int, dict[str, str], bytes], ...]] = (
    (429, {"Retry-After": "0"}, b""),
    (500, {}, b"{}"),
    (503, {}, b"starting"),
    (504, {}, b'{"kind":"Status","code":504,"reason":"Timeout"}'),
    (410, {}, b'{"kind":"Status","code":410,"reason":"Expired"}'),
    (404, {}, b"404 page not found"),
    (200, {}, b""),
    (200, {}, b'{"kind":"NodeList","items":[]}'),
    (200, {}, b'{"metadata":{},"items":[]}'),
)


class Storm:
    """A server and all that may happen to it, drawn by a seed."""

    def __init__(self, api: FakeApi, seed: int) -> None:
        self.api = api
        self.draw = random.Random(seed)  # noqa: S311 - a draw of tests, not a secret
        self.made: dict[Kind, list[str]] = {NODES: [], PEERS: []}
        self.count = 0

    def step(self) -> None:
        act = self.draw.choices(
            (
                self._create,
                self._delete,
                self._change,
                self._order,
                self._forget,
                self._answers,
                self._restart,
                self._mute,
            ),
            (6, 4, 6, 6, 2, 3, 1, 1),
        )[0]
        act()

    def _create(self) -> None:
        kind = self.draw.choice((NODES, PEERS))
        self.count += 1
        name = f"{kind.plural}-{self.draw.randrange(8)}-{self.count}"
        self.made[kind].append(name)
        self.api.store.create(kind, node(name) if kind is NODES else peer(name, f"10.9.{self.count % 250}.0/24"))

    def _delete(self) -> None:
        kind = self.draw.choice((NODES, PEERS))
        if self.made[kind]:
            name = self.made[kind].pop(self.draw.randrange(len(self.made[kind])))
            self.api.store.delete(kind, name)

    def _change(self) -> None:
        name = self.draw.choice(("a", "b", *self.made[NODES]))
        key = self.draw.choice(("location", "last-seen", "leader"))
        value = self.draw.choice((None, "1", "2", str(self.draw.randrange(10**9))))
        change: Object = {"metadata": {"annotations": {f"kilo.squat.ai/{key}": value}}}
        self.api.store.update(NODES, name, lambda item: merged(item, change))

    def _order(self) -> None:
        self.api.order(self.draw.choice(("end", "break", "tear", "bookmark", self.draw.choice(LINES))))

    def _forget(self) -> None:
        self.api.store.forget()

    def _answers(self) -> None:
        self.api.faults.answers += self.draw.choices(ANSWERS, k=self.draw.randrange(1, 4))
        self.api.faults.expire_pages = self.draw.randrange(2)

    def _restart(self) -> None:
        self.api.stop()
        self.api.start()

    def _mute(self) -> None:
        self.api.faults.mute = not self.api.faults.mute


def wanted(api: FakeApi) -> list[Mapping[str, Any]]:
    """What the server has, as the cluster keeps it."""
    found: list[Mapping[str, Any]] = []
    for kind, keep in ((NODES, kept_node), (PEERS, kept_peer)):
        about = {"apiVersion": kind.version, "kind": kind.kind}
        found += [about | keep(item) for _, item in sorted(api.store.objects[kind].items())]
    return found


def held(cluster: LiveCluster) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.read()}


@pytest.mark.parametrize("seed", range(STORMS))
def test_a_storm_ends_with_what_the_server_has_and_loses_nothing_on_the_way(loopback: None, seed: int) -> None:
    with populated() as api, closing(opened(api, chance=lambda: 0.01, idle=0.3)) as cluster:
        assert held(cluster) == ANCHORS
        storm = Storm(api, seed)
        for _ in range(STEPS):
            storm.step()
            readable(cluster, 0.002)
            assert held(cluster) >= ANCHORS
        api.calm()
        api.order("break")  # who was muted may have missed something
        until(lambda: list(cluster.read()) == wanted(api))
