"""A host that moves between backends while packets flow loses none of them, a kill in the middle of it included."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from meshfw.testing.netns import Netns
from meshfw.testing.topology import Topology
from tests.kernel.traffic import RULES, Traffic

pytestmark = pytest.mark.kernel

ROOT: Final = Path(__file__).resolve().parents[2]
CIRCLE: Final = ("nft", "iptables-nft", "iptables-legacy", "iptables-nft", "nft", "iptables-legacy")
"""All directions, from iptables-legacy on."""
RUNS: Final = 20 if settings.get_current_profile_name() == "full" else len(CIRCLE)
WORK: Final = 0.06
"""Seconds about as long as the work of a move takes, behind its first record."""
FOREIGN: Final = (
    "iptables-legacy -t nat -A POSTROUTING -s 172.16.0.0/12 -j MASQUERADE",
    "iptables-legacy -A FORWARD -s 172.16.0.0/12 -j DROP",
    "iptables-nft -A FORWARD -s 172.17.0.0/16 -j DROP",
    "ip6tables-nft -t nat -A POSTROUTING -s fd99::/64 -j MASQUERADE",
    "nft add table inet fw { chain fw { type filter hook forward priority 0; ip saddr 172.18.0.0/16 drop; }; }",
)


class Gateway:
    """The gateway's command line, each command a process of its own."""

    def __init__(self, room: Netns, directory: Path) -> None:
        self._room = room
        self._directory = directory
        (directory / "meshfw.toml").write_text(f'owner = "moved"\n{RULES}', encoding="utf-8")
        self._environment = os.environ | {
            "STATE_DIRECTORY": str(directory / "state"),
            "RUNTIME_DIRECTORY": str(directory),
            "XTABLES_LOCKFILE": str(directory / "xtables.lock"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    def begin(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-m", "meshfw", *argv, "--netns", self._room.path),
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *argv: str) -> str:
        process = self.begin(*argv)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        return said

    def journals(self) -> list[Path]:
        """The records of moves under way."""
        return list((self._directory / "state").glob("*.migration"))

    def tool(self, command: str) -> str:
        with self._room.entered():
            done = subprocess.run(command.split(), capture_output=True, text=True, check=True, env=self._environment)
        return done.stdout

    def stood(self) -> dict[str, str]:
        """What each of the three holds, counters and notes left out."""
        found = {"nft": self.tool("nft -s list ruleset")}
        for way, stem, table in itertools.product(
            ("legacy", "nft"), ("iptables", "ip6tables"), ("nat", "mangle", "filter")
        ):
            text = self.tool(f"{stem}-{way}-save -t {table}")
            found[f"{stem}-{way} {table}"] = "".join(line for line in text.splitlines(True) if line.startswith("-A"))
        return found


@pytest.fixture
def topology(legacy_seen: None) -> Iterator[Topology]:
    with Topology("meshfw-move") as made:
        yield made


class Kills:
    """Moves that are killed at random moments, and how many of them were on their way between two backends then."""

    def __init__(self, gateway: Gateway, seed: int) -> None:
        self._gateway = gateway
        self._chance = random.Random(seed)  # noqa: S311 - moments, told with the outcome
        self.made = self.making = self.breaking = 0

    def kill(self, name: str) -> None:
        """Begin a move and kill it with its work begun, soon or late in it."""
        process = self._gateway.begin("migrate", "--to", name, "--force")
        while process.poll() is None and not self._gateway.journals():
            time.sleep(0.001)
        time.sleep(self._chance.uniform(0, WORK))
        self.made += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for journal in self._gateway.journals():
            proven = '"proven":true' in journal.read_text().replace(" ", "")
            self.breaking += proven
            self.making += not proven


def test_no_packet_is_lost_whoever_moves_and_is_killed_at_whatever_moment(
    topology: Topology, tmp_path: Path, tools: None, requires: Callable[..., None]
) -> None:
    requires("ip")
    seed = int(os.environ.get("MESHFW_SEED", "0")) or secrets.randbits(32)
    gateway = Gateway(topology.gateway, tmp_path)
    kills = Kills(gateway, seed)
    for command in FOREIGN:
        gateway.tool(command)
    gateway("apply", "--backend", "iptables-legacy")
    others = {name: _foreign(text) for name, text in gateway.stood().items() if name != "nft"}
    with Traffic(topology).flowing() as traffic:
        time.sleep(0.3)
        for run, name in zip(range(RUNS), itertools.cycle(CIRCLE), strict=False):
            if kills.made < (run + 1) // 2:
                kills.kill(name)
            gateway("migrate", "--to", name, "--force")
            stood = gateway.stood()
            ours = {_backend(way) for way, text in stood.items() if "meshfw:moved" in text or "ip moved" in text}
            assert ours == {name}, f"seed {seed}, run {run}"
            assert {key: _foreign(text) for key, text in stood.items() if key != "nft"} == others, f"seed {seed}"
            assert "172.18.0.0/16 drop" in stood["nft"]
        time.sleep(0.1)
    told = f"{RUNS} runs, {kills.made} killed ({kills.making} while making, {kills.breaking} while breaking)"
    told += f", of {traffic.counts()}, seed {seed}\n"
    assert traffic.faults() == [], told
    assert min(traffic.counts().values()) > 10 * RUNS
    assert kills.made >= RUNS // 2 - 1, told
    assert gateway.journals() == []
    sys.stdout.write(told)


def test_a_host_whose_rules_go_before_they_come_is_caught(topology: Topology, tmp_path: Path, tools: None) -> None:
    gateway = Gateway(topology.gateway, tmp_path)
    gateway("apply", "--backend", "iptables-legacy")
    with Traffic(topology, patience=0.5).flowing() as traffic:
        gateway("clean", "--backend", "iptables-legacy")
        gateway("apply", "--backend", "nft")
    faults = " ".join(traffic.faults())
    assert "new pings ipv4: came from 10.4.0.9" in faults, "a source that wasn't masqueraded"


def _foreign(text: str) -> str:
    return "".join(line for line in text.splitlines(True) if "moved" not in line)


def _backend(way: str) -> str:
    return way if way == "nft" else f"iptables-{'legacy' if '-legacy' in way else 'nft'}"
