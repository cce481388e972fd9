"""The clerk: a thread that sends a node's acknowledgements, the latest alone, so that no reconcile waits for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from random import random

import msgspec

from meshfw import MeshfwError
from meshfw_etcd.backoff import Backoff
from meshfw_etcd.client import Access, Client
from meshfw_etcd.documents import Ack, write


class Clerk:
    """Whoever sends what a node says under a key; its thread begins with the first word, or with :meth:`begin`.

    Of several that wait the latest alone is sent, again and again until it arrives, and never one that equals the last
    that did. ``check`` is called about every ``rhythm`` seconds (0.0: never), with the client of the thread.
    """

    def __init__(
        self,
        access: Access,
        key: str,
        *,
        check: Callable[[Client], None] = lambda _: None,
        rhythm: float = 0.0,
    ) -> None:
        self._access = access
        self._key = key
        self._check = check
        self._rhythm = rhythm
        self._changed = threading.Condition()
        self._waiting: Ack | None = None
        self._sent: Ack | None = None
        self._failure = ""
        self._hurried = self._closing = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Have the thread run, also without a word to send."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="meshfw-etcd clerk", daemon=True)
            self._thread.start()

    def send(self, ack: Ack) -> None:
        """Have this said in place of what waits; it's dated when it's sent."""
        with self._changed:
            if ack == (self._waiting or self._sent):
                return
            self._waiting = ack
        self.hurry()
        self.begin()

    def repeat(self) -> None:
        """Have the last word sent again: the store may be another one."""
        with self._changed:
            self._waiting = self._waiting or self._sent
        self.hurry()

    def hurry(self) -> None:
        """Have what waits tried at once: the store answers again."""
        with self._changed:
            if self._waiting is not None:
                self._hurried = True
                self._changed.notify()

    def close(self, patience: float) -> str:
        """End the thread when what waits was tried once more, or after so many seconds; why it wasn't sent, if so."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(patience)
        with self._changed:
            return "" if self._waiting is None else self._failure or f"no answer in {patience:g} s"

    # --- the thread ---

    def _run(self) -> None:
        backoff, check_at, try_at = Backoff(), self._next_check(), inf
        with Client(self._access) as client:
            closing = False
            while not closing:
                ack, closing = self._await(min(check_at, try_at))
                try_at = inf
                try:
                    if ack is not None:
                        self._deliver(client, ack)
                    if time.monotonic() >= check_at:
                        check_at = self._next_check()
                        self._check(client)
                    backoff.reset()
                except Exception as error:  # noqa: BLE001 - a thread that ends unheard would leave everything unsaid
                    self._failure = str(error) if isinstance(error, MeshfwError) else repr(error)
                    try_at = time.monotonic() + backoff.pause()

    def _next_check(self) -> float:
        return time.monotonic() + self._rhythm * (0.5 + random()) if self._rhythm else inf  # noqa: S311 - no secret

    def _await(self, until: float) -> tuple[Ack | None, bool]:
        """What waits when there is something to do, and whether that is the last."""
        with self._changed:
            left = None if until == inf else max(0.0, until - time.monotonic())
            self._changed.wait_for(lambda: self._hurried or self._closing, left)
            self._hurried = False
            return self._waiting, self._closing

    def _deliver(self, client: Client, ack: Ack) -> None:
        client.put(self._key, write(msgspec.structs.replace(ack, time=time.time())))
        with self._changed:
            self._sent = ack
            if self._waiting is ack:
                self._waiting = None
