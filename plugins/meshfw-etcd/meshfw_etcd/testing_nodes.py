"""Nodes for tests of roll-outs: they read, watch and acknowledge on a real store, and apply nothing to any kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from meshfw_etcd.client import Access, Client
from meshfw_etcd.documents import Ack, Common, Node, Trial, digest, read, write
from meshfw_etcd.errors import EtcdError
from meshfw_etcd.keys import Keys
from meshfw_etcd.messages import Get, Pair
from meshfw_etcd.stream import Watching

Opinion = Callable[[str, int, str], str | None]
"""What a node (its name) makes of a release (its number and text): "" well, an error, or None for no word at all."""


def content(*_: object) -> str | None:
    """The opinion of a node that takes whatever it gets."""
    return ""


class TestNode(threading.Thread):
    """A node that holds the release it's given if its ``opinion`` has nothing against it; runs until it is stopped."""

    __test__ = False  # it's no test, whatever pytest makes of its name

    def __init__(self, access: Access, keys: Keys, name: str, *, opinion: Opinion = content) -> None:
        super().__init__(name=name, daemon=True)
        self._client = Client(access)
        self._keys = keys
        self._opinion = opinion
        self._watching: Watching | None = None
        self._stopped = threading.Event()
        self.holds = 0
        self.seen: list[int] = []
        """The releases that it was ever given, in order."""

    def run(self) -> None:
        """Follow the store until it's stopped; a store that is away is asked again."""
        while not self._stopped.is_set():
            try:
                self._watching = self._client.watch(self._look())
                for batch in self._watching:
                    if batch.changes:
                        self._look()
            except EtcdError:
                time.sleep(0.05)
        self._client.close()

    def stop(self) -> None:
        """End it, and wait for that."""
        self._stopped.set()
        while self.is_alive():
            if self._watching is not None:
                self._watching.close()
            self.join(0.1)

    def _look(self) -> dict[str, int]:
        """Take what there is, acknowledge it, and say from which revision on to watch which keys."""
        keys = (self._keys.common, self._keys.node(self.name))
        decided = self._client.txn([], [Get(key) for key in keys])
        given = _given(decided.found[0], decided.found[1], keys)
        if given is not None:
            if not self.seen or self.seen[-1] != given.release:
                self.seen.append(given.release)
            self._answer(given, decided.revision)
        return dict.fromkeys(keys, decided.revision + 1)

    def _answer(self, given: Common | Trial, revision: int) -> None:
        said = self._opinion(self.name, given.release, given.rules)
        if said is None:
            return
        if not said:
            self.holds = given.release
        ack = Ack(
            release=given.release,
            revision=revision,
            state="failed" if said else "applied",
            error=said,
            digest=digest(given.rules),
            holds=self.holds,
            time=time.time(),
        )
        self._client.put(self._keys.ack(self.name), write(ack))


def _given(common: Iterable[Pair], node: Iterable[Pair], keys: tuple[str, str]) -> Common | Trial | None:
    """The release that a node is to hold."""
    standing = next((read(pair.value, Common, key=keys[0]) for pair in common), None)
    own = next((read(pair.value, Node, key=keys[1]) for pair in node), Node())
    if own.trial is not None and (standing is None or own.trial.release > standing.release):
        return own.trial
    return standing


class TestFleet:
    """Some nodes that run for a block: ``with TestFleet(access, keys, names) as fleet``."""

    __test__ = False

    def __init__(self, access: Access, keys: Keys, names: Iterable[str], *, opinion: Opinion = content) -> None:
        self.nodes = {name: TestNode(access, keys, name, opinion=opinion) for name in names}

    def __enter__(self) -> TestFleet:
        for node in self.nodes.values():
            node.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.stop()
