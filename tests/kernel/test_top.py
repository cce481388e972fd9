"""Laws of the verb ``top``: it counts what really passes, starts no process on nft, and leaves a terminal as it was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import meshfw
from meshfw.cli import INTERRUPTED, main
from meshfw.cli.top import _pressed
from meshfw.kernel.netns import entered
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

ROOT: Final = Path(meshfw.__file__).parents[1]
CONFIG: Final = """\
owner = "toptest"
backend = "nft"

[[chain]]
name = "in"
attach = { hook = "input" }
rules = ["-p udp -m udp --dport 9 -j count", "-i lo -j ACCEPT"]

[[chain]]
name = "count"
rules = ["-s 192.0.2.1 -j RETURN", "-p udp -m comment --comment \\"a [red]b\\" -j RETURN"]
"""

LEADER: Final = """\
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that becomes another one whose terminal standard input is, so that Ctrl-C is for it."""


@pytest.fixture
def place(netns: Netns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, ...]:
    """The options for a namespace where the rules stand."""
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    options = ("--config", str(tmp_path / "meshfw.toml"), "--netns", netns.path)
    assert main(["apply", *options]) == 0
    capsys.readouterr()
    return options


@pytest.fixture
def traffic(netns: Netns, place: tuple[str, ...]) -> Iterator[None]:
    """Packets to port 9 of the namespace's loopback, until the test ends."""
    over = threading.Event()

    def send() -> None:
        with entered(netns.path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not over.wait(0.005):
                sender.sendto(b"x" * 72, ("127.0.0.1", 9))

    sender = threading.Thread(target=send)
    sender.start()
    yield
    over.set()
    sender.join()


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["top", "--json", "--interval", "0.3", *options]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


@pytest.mark.usefixtures("traffic")
def test_it_counts_what_passes_without_a_process(place: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with ProcessCounter() as counter:
        data = measured(capsys, *place)
    assert counter.count.forks == 0
    busy = data["rules"][0]
    assert (busy["family"], busy["packets_per_second"] > 0) == ("ipv4", True)
    found = {(row["family"], row["chain"], row["position"]): row for row in data["rules"]}
    assert len(found) == len(data["rules"]) == 9
    counted = found["ipv4", "count", 2]
    assert counted["bytes"] == 100 * counted["packets"] > 0  # 72 and the headers of UDP and IPv4
    assert counted["bytes_per_second"] == pytest.approx(100 * counted["packets_per_second"], rel=0.01)
    assert found["ipv4", "count", 1]["packets_per_second"] == 0
    assert found["ipv6", "in", 1]["packets"] == 0
    chains = {(row["family"], row["chain"]): row["packets_per_second"] for row in data["chains"]}
    assert chains["ipv4", "count"] == pytest.approx(counted["packets_per_second"], rel=0.01)
    assert set(chains) == {(family, name) for family in ("ipv4", "ipv6") for name in ("in", "count", "input/first")}


def test_where_nobody_watches_it_is_one_table(place: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--interval", "0.1", *place]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["PKT/S", "B/S", "PACKETS", "BYTES", "WHERE", "RULE"]
    assert len(rows) == 9
    assert any("ipv4 filter count 2" in row and "a [red]b" in row for row in rows)


class Terminal:
    """A terminal with ``top`` on it."""

    def __init__(self, options: tuple[str, ...], *, lines: int, columns: int) -> None:
        self._leader, self._follower = pty.openpty()
        self.resize(lines, columns)
        self.before = termios.tcgetattr(self._follower)
        hidden = ("NO_COLOR", "CI", "COLUMNS", "LINES")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            (sys.executable, "-c", LEADER, sys.executable, "-m", "meshfw", "top", "--interval", "0.2", *options),
            env=environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
        )
        self.seen = ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._follower, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._leader, key)

    def until(self, shown: Callable[[str], object], what: str) -> None:
        """Wait until what is written from now on shows something."""
        self.seen = ""
        deadline = time.monotonic() + 60
        while not shown(self.seen):
            assert time.monotonic() < deadline, f"{what} is not in {self.seen!r}"
            if select.select([self._leader], [], [], 0.5)[0]:
                self.seen += os.read(self._leader, 65536).decode("utf-8", "replace")

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        assert termios.tcgetattr(self._follower) == self.before
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)
        os.close(self._follower)


@pytest.fixture
def terminal(place: tuple[str, ...]) -> Iterator[Terminal]:
    made = Terminal(place, lines=20, columns=100)
    made.until(lambda text: "q quit" in text, "the first screen")
    yield made
    made.close()


def frames(text: str) -> list[str]:
    """The whole screens in what was written, as plain text."""
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part) for part in text.split("\x1b[H")][1:-1]


@pytest.mark.usefixtures("traffic")
def test_a_terminal_is_filled_and_given_back(terminal: Terminal) -> None:
    terminal.until(lambda text: re.search(r"[1-9]\d* packets and", text), "a rate")
    terminal.press(b"b")
    terminal.until(lambda text: "by bytes" in text, "the other order")
    terminal.resize(12, 50)
    terminal.until(lambda text: len(frames(text)) > 3, "some screens")
    lines = frames(terminal.seen)[-1].splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 50
    terminal.press(b"\x1b[A")
    terminal.until(lambda text: len(frames(text)) > 1, "one more screen after a key that means nothing")
    terminal.press(b"q")
    terminal.until(lambda text: "\x1b[?1049l" in text, "the screen given back")
    assert terminal.end() == 0


def test_ctrl_c_is_an_end_like_any(terminal: Terminal) -> None:
    terminal.press(b"\x03")
    terminal.until(lambda text: "\x1b[?1049l" in text, "the screen given back")
    assert terminal.end() == 0


@pytest.mark.parametrize(("typed", "key"), [(b"", "q"), (b"\x1b", "\x1b"), (b"\x1b[A", ""), (b"bb", "b")])
def test_a_terminal_that_went_away_is_an_end_and_an_arrow_is_no_escape(typed: bytes, key: str) -> None:
    reader, writer = os.pipe()
    os.write(writer, typed)
    os.close(writer)
    assert _pressed(reader, 60) == key
    os.close(reader)


def test_a_signal_gives_the_terminal_back_too(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGTERM)
    terminal.until(lambda text: "ended by signal 15" in text, "the message")
    assert terminal.end() == INTERRUPTED - signal.SIGINT + signal.SIGTERM
