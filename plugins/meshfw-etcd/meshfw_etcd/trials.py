"""The trials of a release in the keys of nodes, given and taken back in batches, each with the state that tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import add, sub
from typing import Final

import msgspec

from meshfw_etcd.client import Client
from meshfw_etcd.documents import Node, Trial, read, write
from meshfw_etcd.errors import ConflictError, DocumentError
from meshfw_etcd.hold import Hold
from meshfw_etcd.keys import Keys
from meshfw_etcd.messages import Get, Pair, Put, Unchanged
from meshfw_etcd.patience import patiently

_BATCH: Final = 100
"""Nodes of a transaction at most: etcd takes 128 operations (``--max-txn-ops``)."""
_BYTES: Final = 1_000_000
"""Bytes of a transaction: etcd takes 1.5 MiB (``--max-request-bytes``)."""
_TRIES: Final = 10
"""How often a batch is read and written anew when somebody else writes its keys."""


class Trials:
    """The trials of the release that a roll-out is about; ``problems`` are keys that couldn't be read."""

    def __init__(self, client: Client, keys: Keys, hold: Hold, *, patience: float) -> None:
        self._client = client
        self._keys = keys
        self._hold = hold
        self._patience = patience
        self.problems: list[str] = []

    def give(self, trial: Trial, nodes: Sequence[str]) -> None:
        """Have the first nodes of the route, which these are, try the release.

        Raises:
            DocumentError: a node's key holds something else. ConflictError: somebody has taken over.
        """
        while (at := self._hold.state.reached) < len(nodes):
            self._change(nodes[at : at + _BATCH], trial, partial(add, at))

    def take_back(self) -> None:
        """Have all nodes leave the trial, the last one that got it first; what they own themselves stays."""
        while end := self._hold.state.reached:
            batch = self._hold.state.route.order[max(0, end - _BATCH) : end]
            self._change(batch[::-1], None, partial(sub, end))

    def _change(self, nodes: Sequence[str], trial: Trial | None, reached: Callable[[int], int]) -> None:
        """Change the first of the nodes, as many as one transaction takes; ``reached`` is what that makes of them."""
        for _ in range(_TRIES):
            puts: list[Put] = []
            checks: list[Unchanged] = []
            size = done = 0
            for name, pair in zip(nodes, self._read(nodes), strict=True):
                key = self._keys.node(name)
                new = self._changed(key, pair, trial)
                value = write(new) if new is not None else b""
                if puts and size + len(value) > _BYTES:
                    break
                done, size = done + 1, size + len(value)
                if new is not None:
                    puts.append(Put(key, value))
                    checks.append(Unchanged(key, pair.mod_revision if pair is not None else 0))
            if self._hold.write(puts, checks=checks, reached=reached(done)):
                return
        raise ConflictError(f"somebody keeps writing the keys of nodes such as {nodes[0]}")

    def _changed(self, key: str, pair: Pair | None, trial: Trial | None) -> Node | None:
        """What a node's key is to hold; None where it may stay as it is."""
        try:
            node = Node() if pair is None else read(pair.value, Node, key=key)
        except DocumentError as error:
            if trial is not None:
                raise
            self.problems.append(str(error))
            return None
        if trial is None and (node.trial is None or node.trial.release != self._hold.state.release):
            return None
        return msgspec.structs.replace(node, trial=trial)

    def _read(self, nodes: Sequence[str]) -> list[Pair | None]:
        gets = [Get(self._keys.node(name)) for name in nodes]
        found = patiently(lambda: self._client.txn([], gets), patience=self._patience).found
        return [pairs[0] if pairs else None for pairs in found]
