"""Laws of what the agent tells its service manager, each against a socket that really receives."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from meshfw.agent.notify import Notifier

Notify = Callable[[Mapping[str, str]], Notifier]


class Listening:
    """A service manager's end of the protocol: a datagram socket, and what came."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)
        self.variables = {"NOTIFY_SOCKET": address.replace("\0", "@")}

    def heard(self) -> list[list[str]]:
        """The messages that came, each as its lines."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notify() -> Iterator[Notify]:
    """The maker of notifiers for an environment; they are closed when the test ends."""
    with ExitStack() as stack:
        yield lambda environment: stack.enter_context(closing(Notifier.from_environment(environment)))


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    listening = Listening(
        str(tmp_path / "notify") if request.param == "path" else f"\0meshfw-test-{secrets.token_hex(8)}"
    )
    yield listening
    listening.close()


def test_each_word_is_what_systemd_reads(manager: Listening, notify: Notify) -> None:
    notifier = notify(manager.variables)
    notifier.ready("watching 12 rules")
    notifier.status("repaired 2 changes")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.ready()
    notifier.stopping("leaves the rules in place")
    heard = manager.heard()
    reloading = heard.pop(2)
    assert heard == [
        ["READY=1", "STATUS=watching 12 rules"],
        ["STATUS=repaired 2 changes"],
        ["READY=1"],
        ["STOPPING=1", "STATUS=leaves the rules in place"],
    ]
    assert reloading[0] == "RELOADING=1"
    name, _, told = reloading[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(told) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.close()


def test_the_environment_is_read_when_none_is_given(manager: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.variables["NOTIFY_SOCKET"])
    with closing(Notifier.from_environment()) as notifier:
        notifier.ready()
    assert manager.heard() == [["READY=1"]]


@pytest.mark.parametrize("named", [True, False])
def test_a_watched_service_gives_signs_of_life_at_half_time(manager: Listening, named: bool, notify: Notify) -> None:
    watched = {"WATCHDOG_USEC": "30000000"} | ({"WATCHDOG_PID": str(os.getpid())} if named else {})
    notifier = notify(manager.variables | watched)
    assert notifier.watchdog_interval == 15.0
    notifier.watchdog()
    assert manager.heard() == [["WATCHDOG=1"]]
    notifier.close()
    assert notifier.watchdog_interval is None


@pytest.mark.parametrize(
    "watched",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_an_unwatched_service_gives_no_signs_of_life(
    manager: Listening, notify: Notify, watched: dict[str, str]
) -> None:
    notifier = notify(manager.variables | watched)
    assert notifier.watchdog_interval is None
    notifier.watchdog()
    assert manager.heard() == []


def test_a_status_is_one_short_line_of_utf8(manager: Listening, notify: Notify) -> None:
    notifier = notify(manager.variables)
    notifier.status("bad line:\n\tREADY=1\r\n")
    notifier.status("ä" * 5000)
    notifier.status("a name of \udcff bytes")
    first, long, odd = manager.heard()
    assert first == ["STATUS=bad line: READY=1"]
    assert len(long) == 1
    assert len(long[0].encode()) <= len("STATUS=") + 1024
    assert set(long[0].removeprefix("STATUS=")) == {"ä"}
    assert odd == ["STATUS=a name of ? bytes"]


@pytest.mark.parametrize("named", ["", "/", "@", "relative/path", "vsock:2:1234", "/run/\0x", "/run/" + "x" * 200])
def test_nothing_is_said_where_nobody_can_listen(named: str, notify: Notify) -> None:
    notifier = notify({"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "1000000"})
    for _ in range(2):
        notifier.ready("up")
        notifier.reloading()
        notifier.status("fine")
        notifier.watchdog()
        notifier.stopping()
        notifier.close()


def test_without_a_socket_nobody_watches(notify: Notify) -> None:
    assert notify({"WATCHDOG_USEC": "1000000"}).watchdog_interval is None


def test_a_manager_that_has_gone_stops_nothing(tmp_path: Path, notify: Notify) -> None:
    listening = Listening(str(tmp_path / "notify"))
    notifier = notify(listening.variables)
    listening.close()
    notifier.status("nobody is there")
    (tmp_path / "notify").unlink()
    notifier.ready()
    again = Listening(str(tmp_path / "notify"))  # as systemd is after daemon-reexec
    notifier.status("fine")
    assert again.heard() == [["READY=1", "STATUS=fine"]]
    again.close()


def test_a_full_queue_holds_nobody_up_and_loses_no_state(manager: Listening, notify: Notify) -> None:
    notifier = notify(manager.variables)
    for _ in range(10_000):  # far more than net.unix.max_dgram_qlen, and than a socket's send buffer
        notifier.status("busy")
    notifier.reloading()
    notifier.ready("up again")
    stuffed = manager.heard()
    assert 0 < len(stuffed) < 10_000
    assert all(message == ["STATUS=busy"] for message in stuffed)
    notifier.status("fine")
    notifier.status("still fine")
    assert manager.heard() == [["READY=1", "STATUS=fine"], ["STATUS=still fine"]]


def test_no_process_that_is_started_holds_the_socket(manager: Listening, notify: Notify) -> None:
    before = open_sockets()
    notifier = notify(manager.variables)
    (own,) = open_sockets() - before
    assert not os.get_inheritable(own)
    notifier.close()
    notifier.close()
    assert open_sockets() == before


def open_sockets() -> set[int]:
    """The descriptors of this process that are sockets."""
    links = {int(name): Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
    return {number for number, link in links.items() if link.is_socket()}
