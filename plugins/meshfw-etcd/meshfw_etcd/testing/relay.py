"""A relay for tests between a client and a store: to be cut, or to fall silent with every connection still open."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from typing import Final

_CHUNK: Final = 1 << 16
_PULSE: Final = 0.02
"""Seconds between two looks at what it's told to do."""


class Relay:
    """A port that leads to another one, for a block: ``with Relay(server.endpoint) as relay``; http alone."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition("//")[2].rpartition(":")
        self._target = (host, int(port))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._open, self._silent, self._over = True, False, False
        self._rounds = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self._door.close()

    def cut(self) -> None:
        """End every connection, and make no other."""
        self._open = False
        self._heed()

    def hush(self) -> None:
        """Carry nothing any more, with every connection still open."""
        self._silent = True
        self._heed()

    def mend(self) -> None:
        """Carry everything again, to new connections too."""
        self._open, self._silent = True, False

    def _heed(self) -> None:
        """Wait until what was said is done."""
        end = self._rounds + 2
        while self._rounds < end and self._thread.is_alive():
            time.sleep(_PULSE / 4)

    def _run(self) -> None:
        while not self._over:
            self._rounds += 1
            if not self._open:
                self._end(*self._pairs)
            watched = [] if self._silent else [self._door, *self._pairs]
            ready = select.select(watched, [], [], _PULSE)[0]
            for plug in ready:
                if plug is self._door:
                    self._accept()
                elif plug in self._pairs:
                    self._carry(plug)
        self._end(*self._pairs)

    def _accept(self) -> None:
        near, _ = self._door.accept()
        try:
            if not self._open:
                raise ConnectionRefusedError
            far = socket.create_connection(self._target, timeout=1)
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}

    def _carry(self, plug: socket.socket) -> None:
        try:
            content = plug.recv(_CHUNK)
            self._pairs[plug].sendall(content)
        except OSError:
            content = b""
        if not content:
            self._end(plug)

    def _end(self, *plugs: socket.socket) -> None:
        for plug in plugs:
            other = self._pairs.pop(plug, None)
            if other is not None:
                self._pairs.pop(other, None)
                for end in (plug, other):
                    with suppress(OSError):
                        end.close()
