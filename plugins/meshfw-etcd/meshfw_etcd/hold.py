"""The hold on a roll-out: only who wrote its state last may write on, whatever he writes with it.

Each write is one transaction that compares the revision of the state, so somebody who was taken for dead and goes on
all the same writes nothing any more. No clock and no lease decides about that.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from meshfw_etcd.client import Client
from meshfw_etcd.documents import read, write
from meshfw_etcd.errors import ConflictError, UncertainError
from meshfw_etcd.keys import Keys
from meshfw_etcd.messages import Get, Operation, Pair, Put, Unchanged
from meshfw_etcd.patience import patiently
from meshfw_etcd.releases import Rollout

BEAT: Final = 2.0
"""Seconds after which whoever has the hold says that he is alive."""


class Hold:
    """The hold on the roll-out whose ``state`` was written at a ``revision`` of the store (0: none was).

    It is taken by the first :meth:`write`. ``patience`` is how many seconds the store may be away.
    """

    def __init__(self, client: Client, keys: Keys, state: Rollout, *, revision: int, patience: float) -> None:
        self._client = client
        self._keys = keys
        self._revision = revision
        self._patience = patience
        self._owner = secrets.token_hex(8)
        self._beaten = 0.0
        self.state = state

    def write(self, then: Sequence[Operation] = (), *, checks: Sequence[Unchanged] = (), **changes: Any) -> bool:
        """Change the state, and do with it what goes with it; False, and nothing done, where a check doesn't hold.

        Raises:
            ConflictError: somebody else has taken the hold, or took the roll-out's place.
        """
        own = {"owner": self._owner, "by": myself(), "step": self.state.step + 1, "beat": time.time()}
        state = msgspec.structs.replace(self.state, **{**changes, **own})
        value = write(state)
        operations = [Put(self._keys.rollout, value), *then]
        while True:
            try:
                done = patiently(lambda: self._try(checks, operations, value), patience=self._patience)
            except UncertainError:
                # The state that stands tells whether it took place: no two of our writes are the same.
                pair = patiently(lambda: self._client.get(self._keys.rollout), patience=self._patience)
                if pair is not None and pair.value == value:
                    done = pair.mod_revision
                elif (pair.mod_revision if pair is not None else 0) == self._revision:
                    continue
                else:
                    raise self._lost(pair) from None
            if done:
                self._revision, self.state, self._beaten = done, state, time.monotonic()
            return bool(done)

    def beat(self) -> None:
        """Say that its holder is alive, where that is due."""
        if time.monotonic() - self._beaten >= BEAT:
            self.write()

    def _try(self, checks: Sequence[Unchanged], operations: Sequence[Operation], value: bytes) -> int:
        """The revision that it was done at; 0 where one of the checks didn't hold."""
        own = Unchanged(self._keys.rollout, self._revision)
        decided = self._client.txn([own, *checks], operations, otherwise=[Get(self._keys.rollout)])
        if decided.succeeded:
            return decided.revision
        pair = decided.found[0][0] if decided.found and decided.found[0] else None
        if pair is not None and pair.value == value:  # an earlier try whose answer was lost came through late
            return pair.mod_revision
        if (pair.mod_revision if pair is not None else 0) != self._revision:
            raise self._lost(pair)
        return 0

    def _lost(self, pair: Pair | None) -> ConflictError:
        if pair is None:
            return ConflictError("the state of the roll-out was deleted")
        other = read(pair.value, Rollout, key=self._keys.rollout)
        return ConflictError(f"{other.by} has taken over: release {other.release} is {other.phase}")


def myself() -> str:
    """Who this process is, as others are told."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, pid {os.getpid()}"
