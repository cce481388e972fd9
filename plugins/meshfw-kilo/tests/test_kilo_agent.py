"""The agent with this source: a node that no longer checks in leaves the rules by itself, though no file says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kilo_meshes import Objects, peer_object, ready_node

from meshfw.testing.netns import Netns


def mesh(*, late: int) -> Objects:
    now = int(time.time())
    bad = peer_object("bad", publicKey="short")
    own = ready_node("a1", "10.42.0.0/24", "10.0.1.11/24", at=now)
    return [own, ready_node("a2", "10.42.1.0/24", "10.0.1.12/24", at=now - late), bad]


@pytest.mark.kernel
def test_the_agent_follows_the_hour_and_tells_what_is_passed_over(
    netns: Netns, tmp_path: Path, requires: Callable[..., None]
) -> None:
    requires("nft")
    objects = tmp_path / "mesh.json"
    objects.write_text(json.dumps({"kind": "List", "items": mesh(late=0)}))
    (tmp_path / "meshfw.toml").write_text(
        'backend = "nft"\n[[source]]\ntype = "kilo"\nnode = "a1"\nobjects = "mesh.json"\ncompact = true\n'
    )
    places = {name: str(tmp_path / name.lower()) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY")}
    command = [sys.executable, "-m", "meshfw", "agent", "--config", str(tmp_path / "meshfw.toml")]
    with netns.entered():
        agent = subprocess.Popen(command, env=os.environ | places, stderr=subprocess.PIPE, text=True)

    def stands(text: str) -> bool:
        with netns.entered():
            listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
        return text in listed.stdout

    def until(wanted: bool, text: str) -> None:
        end = time.monotonic() + 30
        while stands(text) is not wanted:
            assert time.monotonic() < end, agent.poll()
            time.sleep(0.05)

    try:
        until(True, "10.42.1.0/24")
        (tmp_path / "new").write_text(json.dumps({"kind": "List", "items": mesh(late=58)}))
        (tmp_path / "new").rename(objects)
        until(False, "10.42.1.0/24")
        assert stands("10.42.0.0/24")
    finally:
        agent.terminate()
        _, errors = agent.communicate(timeout=30)
    assert errors.count("Peer bad: spec.publicKey: 'short' is passed over") == 1
    assert errors.count("Node a2 is left out") == 1
