"""Laws of the agent on real kernels: what others change is repaired at once, and they are named."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.kernel.netlink import Nfnetlink
from meshfw.testing.netns import Netns
from tests.kernel.agents import RULES, RunningAgent, config, running

pytestmark = pytest.mark.kernel

BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
NAMES = {"nft": "nft", "iptables-nft": "iptables", "iptables-legacy": "iptables"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flush_is_repaired_in_one_transaction_and_the_culprit_named(
    tools: None, netns: Netns, tmp_path: Path, backend: str
) -> None:
    with running(netns, tmp_path, backend=backend) as agent:
        agent.wait_for("keeping the rules")
        assert agent.rules() == len(RULES)
        agent.flush()
        drift = agent.wait_for("drift: ")
        agent.until_rules(len(RULES))
        assert "in 1 transaction" in drift["message"]
        if backend != "iptables-legacy":  # whose kernel tells nobody's name
            assert NAMES[backend] in drift["message"]
        assert agent.end() == 0
        assert agent.rules() == len(RULES)
        assert len(agent.said("drift: ")) == 1
        assert agent.said("the rules stay in place")


def test_rules_of_others_are_no_reason_to_write(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path) as agent, Nfnetlink(netns.path) as netlink:
        agent.wait_for("keeping the rules")
        for number in range(5):
            agent.tool("nft", "add", "table", "ip", f"other{number}")
        before = netlink.generation()
        time.sleep(1.5)  # more than one look
        assert netlink.generation() == before
        assert agent.said("drift: ") == []


def test_a_restarted_agent_adopts_what_stands_and_writes_nothing(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path) as agent, Nfnetlink(netns.path) as netlink:
        agent.wait_for("keeping the rules")
        assert agent.end(signal.SIGKILL) == -signal.SIGKILL
        assert agent.rules() == len(RULES)
        before = netlink.generation()
        agent.restart()
        agent.wait_for("keeping the rules")
        assert netlink.generation() == before
        assert agent.said("applied") == []


def test_on_stop_clean_takes_the_rules_away(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path, text=config(agent='on_stop = "clean"')) as agent:
        agent.wait_for("keeping the rules")
        assert agent.end() == 0
        assert agent.rules() == -1


def test_a_changed_configuration_is_followed_and_a_bad_one_keeps_the_old(
    tools: None, netns: Netns, tmp_path: Path
) -> None:
    with running(netns, tmp_path) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(config(*RULES[:2]), encoding="utf-8")
        agent.until_rules(2)
        agent.file.write_text(config(RULES[0], "--nonsense"), encoding="utf-8")
        agent.process.send_signal(signal.SIGHUP)
        refusal = agent.wait_for("the old one stays")
        assert "chain[1].rules[2]" in refusal["message"] or "nonsense" in refusal["message"]
        agent.flush()
        agent.until_rules(2)
        agent.file.write_text(config(*RULES), encoding="utf-8")
        agent.process.send_signal(signal.SIGHUP)
        agent.until_rules(3)


def test_an_owner_that_changes_is_refused_by_name(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(config().replace('"edge"', '"other"'), encoding="utf-8")
        agent.process.send_signal(signal.SIGHUP)
        assert "owner" in agent.wait_for("the old one stays")["message"]
        assert agent.rules() == len(RULES)


DUMP = "*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n"
SOURCE = """\
owner = "edge"
[agent]
log = "json"
resync = 1
[[source]]
type = "iptables-save"
ipv4 = "rules.v4"
"""


def dump(number: int) -> str:
    """A dump with so many rules."""
    return DUMP.format(rules="".join(f"-A INPUT -s 10.0.0.{n} -j DROP\n" for n in range(1, number + 1)))


def drops(agent: RunningAgent) -> int:
    """The DROP rules of ours."""
    return agent.tool("nft", "list", "table", "ip", "edge").count(" drop")


def until_drops(agent: RunningAgent, number: int) -> None:
    """Wait until so many stand."""
    end = time.monotonic() + 30
    while drops(agent) != number:
        assert time.monotonic() < end, (drops(agent), agent.logged)
        time.sleep(0.02)


def test_a_source_is_followed_and_while_it_is_away_the_last_good_rules_stay(
    tools: None, netns: Netns, tmp_path: Path
) -> None:
    source = tmp_path / "rules.v4"
    source.write_text(dump(3), encoding="utf-8")
    named = tmp_path / "room"
    named.symlink_to(netns.path)
    with running(netns, tmp_path, text=SOURCE) as agent:
        agent.wait_for("keeping the rules")
        until_drops(agent, 3)
        source.write_text(dump(5), encoding="utf-8")
        until_drops(agent, 5)
        source.unlink()
        agent.wait_for("rules.v4")
        agent.tool("nft", "flush", "table", "ip", "edge")
        until_drops(agent, 5)
        source.write_text("*filter\n-A NOWHERE\n", encoding="utf-8")
        time.sleep(0.5)
        assert drops(agent) == 5
        source.write_text(dump(4), encoding="utf-8")
        until_drops(agent, 4)


def test_more_than_the_share_may_not_go_at_once(tools: None, netns: Netns, tmp_path: Path) -> None:
    source = tmp_path / "rules.v4"
    source.write_text(dump(30), encoding="utf-8")
    with running(netns, tmp_path, text=SOURCE) as agent:
        agent.wait_for("keeping the rules")
        source.write_text(dump(3), encoding="utf-8")
        refusal = agent.wait_for("may not go at once")
        assert "3 rules in place of 30" in refusal["message"]
        assert drops(agent) == 30
        source.write_text(dump(20), encoding="utf-8")
        until_drops(agent, 20)


def test_a_rival_meets_growing_pauses_and_is_told_once(tools: None, netns: Netns, tmp_path: Path) -> None:
    text = config(agent="rival_limit = 2\nback_off = 0.5\nrival_window = 60")
    with running(netns, tmp_path, text=text) as agent:
        agent.wait_for("keeping the rules")
        end = time.monotonic() + 4
        while time.monotonic() < end:
            agent.flush()
            time.sleep(0.05)
        agent.wait_for("contended with")
        assert len(agent.said("contended with")) == 1
        assert "nft" in agent.said("contended with")[0]["message"]
        assert 2 <= len(agent.said("drift: ")) <= 6
        agent.until_rules(len(RULES))


def test_a_wrong_configuration_at_the_start_is_an_error_that_names_the_key(
    tools: None, netns: Netns, tmp_path: Path
) -> None:
    with running(netns, tmp_path, text=config(agent="shrink = 7")) as agent:
        assert agent.process.wait(30) == 1
        agent.wait_for("agent.shrink")


@pytest.mark.parametrize("backend", ["nft", "iptables-nft"])
def test_a_namespace_that_goes_away_is_waited_for(
    kernel_room: Callable[[], Netns], tools: None, tmp_path: Path, backend: str
) -> None:
    with kernel_room() as first, kernel_room() as second:
        name = tmp_path / "room"
        name.symlink_to(first.path)
        place = Netns.__new__(Netns)
        place.__dict__.update(first.__dict__, path=str(name))
        with running(place, tmp_path, backend=backend) as agent:
            agent.wait_for("keeping the rules")
            name.unlink()
            agent.wait_for("went away")
            name.symlink_to(second.path)
            agent.wait_for("applied", times=2)
            agent.room = second
            assert agent.rules() == len(RULES)
