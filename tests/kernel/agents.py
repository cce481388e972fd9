"""A real agent in a process and a network namespace of its own, for tests to disturb."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from meshfw.testing.netns import Netns

PATIENCE: Final = 30.0
"""Seconds in which what is waited for must have happened; it mostly takes a fraction of one."""
ROOT: Final = Path(__file__).resolve().parents[2]
CONFIG: Final = """\
owner = "edge"
[agent]
log = "json"
level = "debug"
resync = 1
debounce = 0.01
{agent}
[[chain]]
name = "input"
attach = {{ hook = "input" }}
rules = [{rules}]
"""
RULES: Final = ("-i lo -j ACCEPT", "-s 10.0.0.0/8 -j DROP", "-p tcp -m tcp --dport 22 -j ACCEPT")


def config(*rules: str, agent: str = "") -> str:
    """A configuration of one chain."""
    return CONFIG.format(agent=agent, rules=", ".join(json.dumps(rule) for rule in rules or RULES))


class RunningAgent:
    """A ``meshfw agent`` and what it has logged so far."""

    def __init__(self, room: Netns, directory: Path, backend: str, environment: dict[str, str]) -> None:
        self.room, self.directory, self.backend = room, directory, backend
        self.file = directory / "meshfw.toml"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "STATE_DIRECTORY": str(directory / "state"),
            "RUNTIME_DIRECTORY": str(directory / "run"),
            "XTABLES_LOCKFILE": str(directory / "xtables.lock"),
            **environment,
        }
        for name in ("state", "run"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        self.logged: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            (*self.command("agent"),),
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        return process

    def command(self, *words: str) -> tuple[str, ...]:
        """A command line of meshfw's for the same configuration, backend and namespace."""
        common = ("--config", str(self.file), "--backend", self.backend, "--netns", self.room.path)
        return (sys.executable, "-m", "meshfw", *words, *common)

    def meshfw(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of meshfw's, run to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def tool(self, *argv: str) -> str:
        """What a tool prints, run in the namespace."""
        with self.room.entered():
            done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    record = {"message": line.rstrip("\n"), "level": "raw"}
                with self._news:
                    self.logged.append(record)
                    self._news.notify_all()

    def said(self, words: str) -> list[dict[str, Any]]:
        """What was logged with these words."""
        return [record for record in list(self.logged) if words in record["message"]]

    def wait_for(self, words: str, *, times: int = 1) -> dict[str, Any]:
        """The record with these words, or the last of several, as soon as it's logged."""
        with self._news:
            found = self._news.wait_for(lambda: len(self.said(words)) >= times, timeout=PATIENCE)
        assert found, f"{words!r} was not said {times} times: {self.logged}"
        return self.said(words)[times - 1]

    def rules(self) -> int:
        """How many rules of ours stand in the IPv4 chain, the marker of iptables' chains aside; -1 without a chain."""
        if self.backend == "nft":
            with self.room.entered():
                argv: tuple[str, ...] = ("nft", "list", "table", "ip", "edge")
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.stdout.count("counter") - 1 if done.returncode == 0 else -1
        with self.room.entered():
            argv = (self.backend, "-S", "edge-input")
            done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.count("\n-A") - 1 if done.returncode == 0 else -1

    def until_rules(self, number: int) -> None:
        """Wait until so many rules stand."""
        end = time.monotonic() + PATIENCE
        while (there := self.rules()) != number:
            assert time.monotonic() < end, (there, self.logged)
            time.sleep(0.02)

    def flush(self) -> None:
        """Take our rules away behind the agent's back, as another program would."""
        if self.backend == "nft":
            self.tool("nft", "flush", "chain", "ip", "edge", "filter-input")
        else:
            self.tool(self.backend, "-F", "edge-input")

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def restart(self) -> None:
        """Another agent in the place of one that has ended."""
        self.end(signal.SIGKILL)
        self.logged.clear()
        self.process = self._start()


@contextmanager
def running(
    room: Netns, directory: Path, *, backend: str = "nft", text: str = "", environment: dict[str, str] | None = None
) -> Iterator[RunningAgent]:
    """An agent that keeps a configuration, until the block ends."""
    (directory / "meshfw.toml").write_text(text or config(), encoding="utf-8")
    agent = RunningAgent(room, directory, backend, environment or {})
    try:
        yield agent
    finally:
        agent.end(signal.SIGKILL)
