"""The law of the cross-check: what the usual look misses is found by reading anew, told as our defect, and repaired."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from meshfw.agent.loop import Agent
from meshfw.agent.notify import Notifier
from meshfw.agent.past import Past
from meshfw.agent.status import Status
from meshfw.agent.voice import Voice
from meshfw.testing.netns import Netns
from meshfw.workshop import Workshop

pytestmark = pytest.mark.kernel

CONFIG = """\
owner = "edge"
[agent]
full_check = 100
resync = 1000
[[chain]]
name = "input"
attach = {{ hook = "input" }}
rules = {rules}
"""


class Asked(msgspec.Struct, frozen=True):
    """A command line's words."""

    config: str
    backend: str | None
    netns: str | None


@pytest.fixture
def tools(requires: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools of all backends, under a lock of the test's own."""
    requires("nft", "iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore")
    monkeypatch.setattr(logging.getLogger("meshfw"), "propagate", True)
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@pytest.mark.parametrize("backend", ["nft", "iptables-nft", "iptables-legacy"])
def test_a_look_that_misses_a_change_is_a_defect_that_the_full_check_tells_and_repairs(
    tools: None, netns: Netns, tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "meshfw.toml"
    file.write_text(CONFIG.format(rules=json.dumps(["-s 10.0.0.0/8 -j DROP"])), encoding="utf-8")
    asked = Asked(str(file), backend, netns.path)
    now = [1000.0]
    shop = Workshop(asked)
    voice = Voice(Status(), notifier=Notifier(None))
    agent = Agent(shop, asked, voice=voice, past=Past(shop.history), clock=lambda: now[0])
    commands = {
        "nft": "nft flush chain ip edge filter-input",
        "iptables-nft": "iptables-nft -F edge-input",
        "iptables-legacy": "iptables-legacy -F edge-input",
    }

    def standing() -> bool:
        with netns.entered():
            argv = ("nft", "list", "ruleset") if backend == "nft" else (f"{backend}-save",)
            return "10.0.0.0/8" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def turn(seconds: float) -> None:
        now[0] += seconds
        agent.ears.say("")
        agent.step()

    try:
        agent._begin()
        keeper = agent._keeper
        assert keeper is not None
        assert standing()
        turn(101)  # a check that finds nothing
        assert not [record for record in caplog.records if "defect" in record.getMessage()]
        kept = keeper.backend.fingerprint()
        with pytest.MonkeyPatch.context() as blind:
            blind.setattr(keeper.backend, "fingerprint", lambda: kept)
            with netns.entered():
                subprocess.run(commands[backend].split(), check=True)
            if keeper.watch is not None:
                keeper.watch.events()
            turn(20)
            assert not standing()
            turn(101)
            told = [record.getMessage() for record in caplog.records if "a defect of meshfw" in record.getMessage()]
            assert len(told) == 1
            assert "10.0.0.0/8" in told[0]
        turn(0)
        assert standing()
    finally:
        agent.close()
