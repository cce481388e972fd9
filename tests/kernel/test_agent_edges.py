"""Laws of the agent at odd moments: what a person did last stays, whatever state the sources and files are in."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.agents import RULES, config, running
from tests.kernel.test_agent import SOURCE, dump, until_drops

pytestmark = pytest.mark.kernel


@pytest.fixture
def tools(requires: Callable[..., None]) -> None:
    """The tool of the backend."""
    requires("nft")


@pytest.fixture
def place(netns: Netns, tmp_path: Path) -> Netns:
    """The namespace by a name that lasts, so that what was applied is kept."""
    name = tmp_path / "room"
    name.symlink_to(netns.path)
    made = Netns.__new__(Netns)
    made.__dict__.update(netns.__dict__, path=str(name))
    return made


def test_a_rollback_stays_while_the_sources_are_away(tools: None, place: Netns, tmp_path: Path) -> None:
    source = tmp_path / "rules.v4"
    source.write_text(dump(3), encoding="utf-8")
    with running(place, tmp_path, text=SOURCE) as agent:
        agent.wait_for("keeping the rules")
        until_drops(agent, 3)
        source.write_text(dump(5), encoding="utf-8")
        until_drops(agent, 5)
        agent.wait_for("applied", times=2)
        source.unlink()
        agent.wait_for("rules.v4")
        done = agent.meshfw("rollback")
        assert done.returncode == 0, done.stderr
        until_drops(agent, 3)
        agent.process.send_signal(signal.SIGHUP)  # which makes it look, at the latest
        time.sleep(1.5)
        until_drops(agent, 3)
        agent.tool("nft", "flush", "table", "ip", "edge")
        until_drops(agent, 3)


def test_an_agent_that_ends_leaves_a_change_on_trial_to_its_guard(tools: None, netns: Netns, tmp_path: Path) -> None:
    text = config(agent='on_stop = "clean"\nfollow = false')
    with running(netns, tmp_path, text=text) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(config(RULES[0], agent='on_stop = "clean"\nfollow = false'), encoding="utf-8")
        assert agent.meshfw("apply", "--confirm", "3").returncode == 0
        assert agent.end() == 0
        assert agent.rules() == 1
        assert agent.said("on trial")
        agent.until_rules(len(RULES))


@pytest.mark.parametrize(
    "bad",
    [
        config(RULES[0]) + "[backend.nft]\nnonsense = true\n",
        config(RULES[0], "-m string --algo bm --string x -j DROP"),
    ],
    ids=["an option that there isn't", "a rule that nft can't hold"],
)
def test_what_the_backend_refuses_at_a_reload_is_told_of_and_the_old_rules_are_kept(
    tools: None, netns: Netns, tmp_path: Path, bad: str
) -> None:
    with running(netns, tmp_path) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(bad, encoding="utf-8")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("the old one stays")
        agent.flush()
        agent.until_rules(len(RULES))


def test_what_nft_cannot_hold_of_a_source_leaves_the_last_good_rules(tools: None, netns: Netns, tmp_path: Path) -> None:
    source = tmp_path / "rules.v4"
    source.write_text(dump(3), encoding="utf-8")
    with running(netns, tmp_path, text=SOURCE) as agent:
        agent.wait_for("keeping the rules")
        until_drops(agent, 3)
        source.write_text(
            dump(3).replace("COMMIT", "-A INPUT -m string --algo bm --string x -j DROP\nCOMMIT"), encoding="utf-8"
        )
        agent.wait_for("string")
        agent.tool("nft", "flush", "table", "ip", "edge")
        until_drops(agent, 3)
        assert '"last good"' in agent.meshfw("status", "--json").stdout


@pytest.mark.parametrize("backend", ["nft", "iptables-nft", "iptables-legacy"])
def test_what_a_person_applies_stays_where_no_state_can_be_kept(
    requires: Callable[..., None], netns: Netns, tmp_path: Path, backend: str
) -> None:
    requires("nft", "iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore")
    ask = "follow = false"
    with running(netns, tmp_path, backend=backend, text=config(agent=ask)) as agent:
        agent.wait_for("keeping the rules")
        (tmp_path / "state").chmod(0o777)  # which nobody trusts
        agent.file.write_text(config(RULES[0], agent=ask), encoding="utf-8")
        done = agent.meshfw("apply")
        assert done.returncode == 0
        assert "not kept for a rollback" in done.stderr
        agent.wait_for("read anew")
        time.sleep(1)
        assert agent.rules() == 1
        assert agent.said("drift: ") == []
        agent.flush()
        agent.until_rules(1)
