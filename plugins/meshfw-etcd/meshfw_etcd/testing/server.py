"""A real etcd for tests: one member on ports of its own, its data in a directory, to be stopped and killed at will."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from meshfw_etcd.client import Access, Client
from meshfw_etcd.errors import EtcdError

_PATIENCE: Final = 60.0
"""Seconds for a server to answer: the machine may be busy."""
_PAUSE: Final = 0.02


class Server:
    """A member that runs for a block: ``with Server(directory) as server``.

    ``options`` are added to its command line; ``wrap`` is put before it, such as ``ip netns exec NAME``. ``host`` is
    where it listens, with TLS where ``scheme`` is https.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        options: Sequence[str] = (),
        wrap: Sequence[str] = (),
        host: str = "127.0.0.1",
        scheme: str = "http",
    ) -> None:
        client, peer = _free_ports(2)
        self.endpoint = f"{scheme}://{host}:{client}"
        inside = f"http://127.0.0.1:{peer}"
        self._log = os.path.join(directory, "etcd.log")
        self._command = [
            *wrap,
            shutil.which("etcd") or "etcd",
            *("--name", "one", "--data-dir", os.path.join(directory, "data"), "--unsafe-no-fsync"),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", inside, "--initial-advertise-peer-urls", inside),
            *("--initial-cluster", f"one={inside}", "--heartbeat-interval", "20", "--election-timeout", "100"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def access(self) -> Access:
        """How to reach it."""
        return Access(endpoints=(self.endpoint,))

    def start(self, *, ready: bool = True) -> None:
        """Run it, on the data it left; with ``ready`` wait until it answers, to whomever."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - it's what this is for
        if ready:
            self.await_answer()

    def await_answer(self) -> None:
        """Wait until it answers; AssertionError with its log where it ends or never does."""
        end = time.monotonic() + _PATIENCE
        place = self.endpoint.rpartition("//")[2].rpartition(":")
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            with suppress(OSError):
                socket.create_connection((place[0], int(place[2])), timeout=1).close()
                if self.endpoint.startswith("https") or self._answers():
                    return
            time.sleep(_PAUSE)
        with open(self._log, encoding="utf-8", errors="replace") as log:
            raise AssertionError(f"etcd doesn't answer: {log.read()[-2000:]}")

    def _answers(self) -> bool:
        client = Client(self.access)
        try:
            client.get("/")
        except EtcdError as error:
            return "user" in error.reason  # whoever asks for a name answers
        finally:
            client.close()
        return True

    def kill(self) -> None:
        """End it at once, as kill -9 does; its data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Have it answer nobody, with every connection still open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; taken together, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [plug.getsockname()[1] for plug in sockets]
    finally:
        for plug in sockets:
            plug.close()
