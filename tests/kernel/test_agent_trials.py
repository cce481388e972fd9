"""Laws of the agent beside changes on trial: it leaves them alone, keeps what comes of them, ends them if need be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.agents import RULES, RunningAgent, config, running

pytestmark = pytest.mark.kernel

BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
ASKED = "follow = false\nresync = 1"


PROBE = """\
[safety]
probe = ["{program}"]
attempts = 1
timeout = 2
"""


def written(agent: RunningAgent, *rules: str, more: str = "") -> None:
    """A changed configuration, of which the agent isn't told."""
    text = config(*rules, agent=ASKED).replace("resync = 1\n", "", 1)
    agent.file.write_text(f"{text}{more}", encoding="utf-8")


def text_of(*rules: str) -> str:
    """The configuration of an agent that waits to be asked."""
    return config(*rules, agent=ASKED).replace("resync = 1\n", "", 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_that_nobody_confirms_is_undone_beside_a_running_agent_and_stays_undone(
    tools: None, netns: Netns, tmp_path: Path, backend: str
) -> None:
    with running(netns, tmp_path, backend=backend, text=text_of()) as agent:
        agent.wait_for("keeping the rules")
        written(agent, RULES[0])
        done = agent.meshfw("apply", "--confirm", "2")
        assert done.returncode == 0, done.stderr
        assert agent.rules() == 1
        time.sleep(0.5)
        assert agent.rules() == 1  # the agent doesn't fight it
        agent.until_rules(len(RULES))
        agent.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert agent.rules() == len(RULES)
        agent.flush()  # and what is kept is what stood before
        agent.until_rules(len(RULES))


def test_a_confirmed_change_is_what_the_agent_keeps(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path, text=text_of()) as agent:
        agent.wait_for("keeping the rules")
        written(agent, RULES[0])
        assert agent.meshfw("apply", "--confirm", "20").returncode == 0
        assert agent.meshfw("confirm").returncode == 0
        time.sleep(0.5)
        assert agent.rules() == 1
        agent.flush()
        agent.until_rules(1)


def guards(agent: RunningAgent) -> list[int]:
    """The processes that guard a change of this test's."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != agent.process.pid:
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{name}/environ", "rb") as file:
                    ours = str(agent.directory).encode() in file.read()
            except OSError:
                continue
            if ours and any(b"guard" in word for word in words):
                found.append(int(name))
    return found


def test_the_agent_undoes_a_change_whose_guard_was_killed(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path, text=text_of()) as agent:
        agent.wait_for("keeping the rules")
        written(agent, RULES[0])
        assert agent.meshfw("apply", "--confirm", "2").returncode == 0
        killed = guards(agent)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert killed
        assert agent.rules() == 1
        agent.until_rules(len(RULES))


def test_a_change_whose_guard_was_killed_is_undone_beside_a_rival_too(
    tools: None, netns: Netns, tmp_path: Path
) -> None:
    with running(netns, tmp_path, text=config(agent="follow = false\nrival_limit = 1\nback_off = 300")) as agent:
        agent.wait_for("keeping the rules")
        agent.flush()
        agent.wait_for("contended with")
        agent.file.write_text(config(RULES[0], agent="follow = false"), encoding="utf-8")
        assert agent.meshfw("apply", "--confirm", "2").returncode == 0
        for pid in guards(agent):
            os.kill(pid, signal.SIGKILL)
        assert agent.rules() == 1
        agent.until_rules(len(RULES))


def test_an_agent_shows_that_it_lives_while_its_probes_are_asked(tools: None, netns: Netns, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.write_text("#!/bin/sh\nsleep 3\n", encoding="utf-8")
    probe.chmod(0o755)
    heard: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        text = config() + PROBE.format(program=probe).replace("timeout = 2", "timeout = 20")
        with running(netns, tmp_path, text=text, environment=environment):
            message = b""
            while b"READY=1" not in message:  # which comes after the first apply, between two rounds of probes
                message = manager.recv(4096)
                heard += [time.monotonic()] if b"WATCHDOG=1" in message else []
    assert len(heard) >= 5
    assert max(later - sooner for sooner, later in pairwise(heard)) < 2.5


def test_a_killed_agent_is_no_hindrance_to_the_guard(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path, text=text_of()) as agent:
        agent.wait_for("keeping the rules")
        written(agent, RULES[0])
        assert agent.meshfw("apply", "--confirm", "2").returncode == 0
        agent.end(signal.SIGKILL)
        agent.until_rules(len(RULES))


def test_a_change_of_the_agents_own_is_undone_where_a_probe_fails_and_not_made_again(
    tools: None, netns: Netns, tmp_path: Path
) -> None:
    probe = tmp_path / "probe"
    probe.write_text("#!/bin/sh\nnft list table ip edge | grep -q 'dport 22'\n", encoding="utf-8")
    probe.chmod(0o755)
    base = PROBE.format(program=probe)
    with running(netns, tmp_path, text=config() + base) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(config(*RULES[:2]) + base, encoding="utf-8")
        assert "probe" in agent.wait_for("undone: ")["message"]
        agent.until_rules(len(RULES))
        time.sleep(1.5)
        assert agent.rules() == len(RULES)
        assert len(agent.said("undone: ")) == 1
        status = agent.meshfw("status", "--json")
        assert '"held"' in status.stdout
        agent.file.write_text(config(RULES[2]) + base, encoding="utf-8")
        agent.until_rules(1)


def test_a_rollback_is_kept_until_the_declaration_changes(tools: None, netns: Netns, tmp_path: Path) -> None:
    name = tmp_path / "room"
    name.symlink_to(netns.path)
    place = Netns.__new__(Netns)
    place.__dict__.update(netns.__dict__, path=str(name))
    with running(place, tmp_path, text=config()) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(config(*RULES[:2]), encoding="utf-8")
        agent.until_rules(2)
        done = agent.meshfw("rollback")
        assert done.returncode == 0, done.stderr
        agent.until_rules(3)
        agent.flush()
        agent.until_rules(3)
        agent.process.send_signal(signal.SIGHUP)
        time.sleep(0.7)
        assert agent.rules() == 3
        agent.file.write_text(config(RULES[0]), encoding="utf-8")
        agent.until_rules(1)


def test_a_forced_change_that_takes_most_rules_away_is_kept(tools: None, netns: Netns, tmp_path: Path) -> None:
    rules = [f"-s 10.0.0.{number} -j DROP" for number in range(1, 31)]
    with running(netns, tmp_path, text=config(*rules)) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(config(*rules[:2]), encoding="utf-8")
        agent.wait_for("may not go at once")
        assert agent.rules() == 30
        done: subprocess.CompletedProcess[str] = agent.meshfw("apply")
        assert done.returncode == 0, done.stderr
        time.sleep(1.5)
        assert agent.rules() == 2
        agent.flush()
        agent.until_rules(2)


def plain(*rules: str) -> str:
    """A configuration that is read back from the kernel as it was declared."""
    text = text_of(*rules).replace('name = "input"', 'name = "input"\nfamilies = "ipv4"')
    return text.replace('hook = "input"', 'hook = "input", rank = 1')


def test_an_agent_that_reads_its_configuration_during_a_trial_does_not_make_the_undone_change(
    tools: None, netns: Netns, tmp_path: Path
) -> None:
    name = tmp_path / "room"  # which lasts, so that a hold is kept for it
    name.symlink_to(netns.path)
    place = Netns.__new__(Netns)
    place.__dict__.update(netns.__dict__, path=str(name))
    with running(place, tmp_path, text=plain(*RULES)) as agent:
        agent.wait_for("keeping the rules")
        agent.file.write_text(plain(RULES[0]), encoding="utf-8")
        assert agent.meshfw("apply", "--confirm", "3").returncode == 0
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("read anew")
        agent.until_rules(len(RULES))
        time.sleep(2)
        assert agent.rules() == len(RULES)
        agent.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert agent.rules() == len(RULES)
        assert len(agent.said("applied")) == 1  # at the start, and not even for a moment after the undoing


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_on_trial_is_kept_against_others_until_it_is_confirmed(
    tools: None, netns: Netns, tmp_path: Path, backend: str
) -> None:
    with running(netns, tmp_path, backend=backend, text=text_of()) as agent:
        agent.wait_for("keeping the rules")
        written(agent, *RULES[:2])
        assert agent.meshfw("apply", "--confirm", "60").returncode == 0
        agent.flush()
        agent.wait_for("drift: ")
        agent.until_rules(2)
        assert '"phase": "on trial"' in agent.meshfw("status", "--json").stdout
        assert agent.meshfw("confirm").returncode == 0
        assert agent.meshfw("check").returncode == 0
        agent.flush()
        agent.until_rules(2)


def test_nothing_is_cleaned_under_a_running_agent(tools: None, netns: Netns, tmp_path: Path) -> None:
    with running(netns, tmp_path) as agent:
        agent.wait_for("keeping the rules")
        for words in (("clean",), ("clean", "--all-backends")):
            command = [word for word in agent.command(*words) if words[-1] != "--all-backends" or word != "--backend"]
            if words[-1] == "--all-backends":
                command.remove(agent.backend)
            done = subprocess.run(command, env=agent.environment, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert f"process {agent.process.pid}" in done.stderr
            assert "stop it" in done.stderr
        assert agent.rules() == len(RULES)
        second = agent.meshfw("agent")
        assert second.returncode == 1
        assert f"process {agent.process.pid}" in second.stderr
        agent.end()
        assert agent.meshfw("clean").returncode == 0
        assert agent.rules() == -1
