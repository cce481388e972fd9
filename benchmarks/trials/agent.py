"""A ``meshfw agent`` as a process of its own, with what /proc tells of it from outside."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from meshfw.errors import BackendError
from meshfw.extensions import Language
from meshfw.model import Ruleset
from meshfw.sealed import unseal
from meshfw.states import KIND, VERSION, State, format_state

OWNER: Final = "meshfw"
_READY_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KB: Final = 1024


def config_text(ruleset: Ruleset, language: Language, *, settings: Mapping[str, float]) -> str:
    """A configuration (TOML) that declares a ruleset; ``settings`` are those of its table ``[agent]``."""
    document = format_state(State(owner=OWNER, backend="", ruleset=ruleset), language)
    content = msgspec.json.decode(unseal(document, kind=KIND, version=VERSION))
    lines = [f'owner = "{OWNER}"', "[agent]", *(f"{name} = {value:g}" for name, value in settings.items())]
    lines += ["[[source]]", 'type = "rules"']
    for kind in ("set", "chain"):
        for table in content[kind]:
            lines += [f"[[{kind}]]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "".join(f"{line}\n" for line in lines)


def _toml(value: Any) -> str:
    """A value of JSON as one of TOML; their strings, numbers and booleans look alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


class AgentProcess:
    """An agent that keeps a configuration's rules in a namespace, from its being ready to the end of the block.

    ``directory`` gets its configuration, its state and its log.
    """

    def __init__(self, backend: str, *, netns: str, config: str, directory: str) -> None:
        self._backend = backend
        self._netns = netns
        self._directory = directory
        self._log = os.path.join(directory, "log")
        self._config = os.path.join(directory, "meshfw.toml")
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(config)

    def __enter__(self) -> AgentProcess:
        address = os.path.join(self._directory, "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(address)
            ready.settimeout(0.2)
            self._start(address)
            try:
                self._wait_until_ready(ready)
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise
        os.unlink(address)  # as under a service manager that has gone: what it says is dropped
        return self

    def _start(self, address: str) -> None:
        words = ("--config", self._config, "--netns", self._netns, "--backend", self._backend)
        places = {f"{kind}_DIRECTORY": os.path.join(self._directory, kind.lower()) for kind in ("STATE", "RUNTIME")}
        for place in places.values():
            os.makedirs(place, mode=0o700, exist_ok=True)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "meshfw", "agent", *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **places, "NOTIFY_SOCKET": address},
            )

    def _wait_until_ready(self, ready: socket.socket) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BackendError(f"the agent ended with {self._process.returncode}: {self.log()}")
            try:
                said = ready.recv(4096)
            except TimeoutError:
                continue
            if b"READY=1" in said.split(b"\n"):
                return
        raise BackendError(f"the agent wasn't ready after {_READY_SECONDS:g} s: {self.log()}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def alive(self) -> None:
        """Nothing, while it runs; else BackendError."""
        if self._process.poll() is not None:
            raise BackendError(f"the agent ended with {self._process.returncode}: {self.log()}")

    def log(self) -> str:
        """What it has said so far."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def cpu(self) -> float:
        """The seconds of user and system time that it, and the children it waited for, have taken."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Its resident memory, in bytes."""
        return resident(self.pid)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children that it waited for, in seconds.

    Its own by its CPU clock (clock_getcpuclockid(3)), to the nanosecond; its children's by /proc/PID/stat
    (proc_pid_stat(5), cutime and cstime), in ticks of mostly 10 ms.
    """
    own = time.clock_gettime((~pid << 3) | 2)  # linux/posix-timers.h: the clock CPUCLOCK_SCHED of a process
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / _TICKS


def resident(pid: int) -> int:
    """The resident memory of a process in bytes, as its mappings add up (proc_pid_smaps_rollup)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        found = re.search(r"^Rss:\s+(\d+) kB", file.read(), re.MULTILINE)
    if found is None:
        raise BackendError(f"/proc/{pid}/smaps_rollup says nothing of Rss")
    return int(found[1]) * _KB
