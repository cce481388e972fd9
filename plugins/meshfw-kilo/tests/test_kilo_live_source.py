"""The source on a live cluster: rules follow the API, and stay where the API doesn't answer."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kilo_fake_api import FakeApi
from kilo_fake_store import NODES, PEERS
from kilo_meshes import LANGUAGE, lines, peer_object, ready_node
from meshfw_kilo.reader import LiveReader
from meshfw_kilo.source import KiloSource

from meshfw import ConfigError, Declaration, Family


def ready(name: str, pods: str, internal: str, *, at: int | None = None) -> dict[str, Any]:
    return ready_node(name, pods, internal, at=int(time.time()) if at is None else at)


@pytest.fixture
def api(loopback: None) -> Iterator[FakeApi]:
    fake = FakeApi()
    fake.install_peers()
    fake.store.create(NODES, ready("a1", "10.42.0.0/24", "10.0.1.11/24"))
    fake.store.create(NODES, ready("a2", "10.42.1.0/24", "10.0.1.12/24"))
    fake.store.create(PEERS, peer_object("laptop"))
    with fake:
        yield fake


def source_of(api: FakeApi, node: str = "a1", **options: Any) -> KiloSource:
    told = {"node": node, "kubernetes": True, "server": api.url} | {
        key.replace("_", "-"): value for key, value in options.items()
    }
    return KiloSource(Declaration(options=told, language=LANGUAGE, file="m.toml", path="source[1]"))


def nat(ruleset: Any) -> str:
    return "\n".join(lines(ruleset, Family.IPV4, "KILO-NAT"))


def hears(changes: Any, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([changes], [], [], left)[0] and changes.drain():
            return True
    return False


def test_rules_follow_the_api(api: FakeApi) -> None:
    with closing(source_of(api)) as source:
        assert isinstance(source._reader, LiveReader)
        changes = source.changes()
        assert changes is not None
        first = source.load()
        assert "10.42.1.0/24" in nat(first)
        assert "10.5.0.1/32" in nat(first)
        api.store.create(NODES, ready("a3", "10.42.2.0/24", "10.0.1.13/24"))
        assert hears(changes)
        assert "10.42.2.0/24" in nat(source.load())
        api.store.delete(NODES, "a3")
        assert hears(changes)
        assert source.load() == first


def test_a_node_that_checks_in_is_no_change(api: FakeApi) -> None:
    with closing(source_of(api)) as source:
        changes = source.changes()
        assert changes is not None
        first = source.load()
        seen = {"metadata": {"annotations": {"kilo.squat.ai/last-seen": str(int(time.time()) + 1)}}}
        api.store.update(NODES, "a2", lambda item: merged(item, seen))
        assert not hears(changes, 0.3)
        assert source.load() is first


def merged(item: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {
        key: merged(item[key], change[key])
        if isinstance(item.get(key), dict) and isinstance(change.get(key), dict)
        else change.get(key, item.get(key))
        for key in {*item, *change}
    }


def test_a_node_that_is_not_ready_is_named_with_the_key(api: FakeApi) -> None:
    with closing(source_of(api, node="a9")) as source, pytest.raises(ConfigError, match=r"source\[1\]\.node: node a9"):
        source.load()


def test_stale_after_is_the_readers_too(api: FakeApi) -> None:
    with closing(source_of(api, stale_after=7)) as source:
        assert isinstance(source._reader, LiveReader)
        assert source._reader.stale_after == 7


def test_the_command_asks_the_api(
    api: FakeApi, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from meshfw_kilo.cli import main

    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    conflist = tmp_path / "10-kilo.conflist"
    conflist.write_text(json.dumps({"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]}))
    assert main(["cni", "--node", "a2", "--kubernetes", "--conflist", str(conflist)]) == 0
    assert "10.42.1.0/24 written" in capsys.readouterr().out
    ranges = [[{"subnet": "10.42.1.0/24"}]]
    assert json.loads(conflist.read_text())["plugins"][0]["ipam"] == {"type": "host-local", "ranges": ranges}
