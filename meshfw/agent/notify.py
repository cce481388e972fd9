"""What the agent tells its service manager over $NOTIFY_SOCKET (sd_notify(3)): ready, reloading, stopping, alive.

A service must run as well where nobody listens, so nothing here waits and nothing raises: without a socket each word is
dropped, and one for which there is no room just now goes with the next. Not for several threads at once.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_LONGEST_STATUS: Final = 1024  # bytes; systemd drops a message of more than PIPE_BUF (4096) whole
_SEND: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Notifier:
    """The way to the service manager: ``address`` is that of its datagram socket, None where nobody listens.

    ``watchdog_interval`` is after how many seconds :meth:`watchdog` should be called again, half of what the manager
    waits before it takes the service for stuck (sd_watchdog_enabled(3)); None where it doesn't watch.
    """

    def __init__(self, address: str | None, *, watchdog_interval: float | None = None) -> None:
        self._address = address
        self._socket = None if address is None else _datagrams()
        self.watchdog_interval = None if self._socket is None else watchdog_interval
        self._owed = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Notifier:
        """The notifier that $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID ask for; silent where they don't."""
        given = os.environ if environment is None else environment
        return cls(_address(given.get("NOTIFY_SOCKET", "")), watchdog_interval=_interval(given))

    def ready(self, status: str = "") -> None:
        """Say that the service is up, or that a reload is over."""
        self._send_state("READY=1", status)

    def reloading(self, status: str = "") -> None:
        """Say that the configuration is being read again; :meth:`ready` says when that's over."""
        self._send_state(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", status)

    def stopping(self, status: str = "") -> None:
        """Say that the service is about to end."""
        self._send_state("STOPPING=1", status)

    def status(self, text: str) -> None:
        """Show one line in ``systemctl status``."""
        self._send(_status(text))

    def watchdog(self) -> None:
        """Say that the service isn't stuck; nothing is sent where nobody watches."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Say no more; a second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.watchdog_interval = None

    def _send_state(self, state: str, status: str) -> None:
        """Send a state, which is owed until it's delivered or another one has come: READY lost is a service killed."""
        self._owed = state
        if self._send(_status(status) if status else ""):
            self._owed = ""

    def _send(self, text: str) -> bool:
        """Whether a message, behind a state that is owed still, has reached the manager's queue."""
        message = "\n".join(part for part in (self._owed, text) if part)
        if self._socket is None or self._address is None:
            self._owed = ""
            return False
        try:
            self._socket.sendto(message.encode(), _SEND, self._address)
        except OSError:  # no room just now, or nobody there any more
            return False
        self._owed = ""
        return True


def _datagrams() -> socket.socket | None:
    """A socket to send from, or None where there can be none.

    One for all messages: an abstract address is that of a network namespace, which the sender's thread may leave.
    """
    with suppress(OSError):
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    return None


def _address(named: str) -> str | None:
    """The address of a socket by its path, or of an abstract one by its name with an @; None for what is neither."""
    if "\0" in named or len(named) < 2:
        return None
    return f"\0{named[1:]}" if named.startswith("@") else named if named.startswith("/") else None


def _interval(environment: Mapping[str, str]) -> float | None:
    """Half of what the manager waits for a sign of life, in seconds; None where it waits for none of this process."""
    waits, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (waits.isascii() and waits.isdigit() and len(waits) <= 20 and int(waits)):
        return None
    return None if process and process != str(os.getpid()) else int(waits) / 2e6


def _status(text: str) -> str:
    """The STATUS= line of a text, which is one line of UTF-8 and short enough for the manager."""
    line = " ".join(text.split()).encode("utf-8", "replace")[:_LONGEST_STATUS]
    return f"STATUS={line.decode('utf-8', 'ignore')}"
