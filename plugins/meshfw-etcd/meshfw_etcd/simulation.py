"""Simulated nodes on a real store: each is the real source, threads and cache and all, without a kernel behind it.

An ``opinion`` stands for what an agent does with the rules that it got. One thread polls the sources of all nodes of a
crew, as each agent's own does on its host.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, cast

from meshfw import Declaration, Language, MeshfwError, Outcome, Report, Ruleset
from meshfw_etcd.bell import Bell
from meshfw_etcd.client import Access
from meshfw_etcd.keys import Keys
from meshfw_etcd.source import EtcdSource

Opinion = Callable[[str, int, Ruleset], str | None]
"""What a node, by name, makes of a release, by number and rules: "" it holds, an error, or None for no word at all."""
_REPORT: Final = Report(outcome=Outcome.CHANGED, backend="simulated", cache="miss")


def content(*_: object) -> str | None:
    """The opinion of a node that takes whatever it gets."""
    return ""


class SimulatedNode:
    """A node: ``holds`` is the release that it last took, ``seen`` all that it was ever given, in order.

    ``times`` has when it had parsed and taken each, ``rung`` when its source last had news, both of time.monotonic, and
    ``rules`` what it keeps in place.
    """

    def __init__(self, source: EtcdSource, name: str, opinion: Opinion) -> None:
        self.name = name
        self.source = source
        self.bell = cast("Bell", source.changes())
        self.rung = 0.0
        self.holds = 0
        self.rules: Ruleset | None = None
        self.seen: list[int] = []
        self.times: dict[int, float] = {}
        self._opinion = opinion
        ring = self.bell.ring

        def noted() -> None:
            self.rung = time.monotonic()
            ring()

        self.bell.ring = noted  # type: ignore[method-assign]  # so the moment is the follower's, not this loop's

    def look(self) -> None:
        """Take what there is, as an agent does when its source rings."""
        self.bell.drain()
        try:
            rules = self.source.load()
        except MeshfwError as error:
            self._see(self.source.release)
            self.source.refused(str(error))
            return
        release = self.source.release
        self._see(release)
        said = self._opinion(self.name, release, rules)
        if said:
            self.source.refused(said)
        elif said is not None:
            self.holds, self.rules = release, rules
            self.times.setdefault(release, time.monotonic())
            self.source.applied(_REPORT)

    def _see(self, release: int) -> None:
        if release and (not self.seen or self.seen[-1] != release):
            self.seen.append(release)


class Crew:
    """Nodes that follow a store for a block: ``with Crew(access, keys, names, language=..., directory=...) as crew``.

    ``directory`` is where they keep their caches. Other options are the source's.
    """

    def __init__(
        self,
        access: Access,
        keys: Keys,
        names: Iterable[str],
        *,
        language: Language,
        directory: str | os.PathLike[str],
        opinion: Opinion = content,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self._table = {"endpoints": list(access.endpoints), "prefix": keys.prefix, **(options or {})}
        self._language = language
        self._directory = os.fspath(directory)
        self._opinion = opinion
        self._names = tuple(names)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crew", daemon=True)
        self.nodes: dict[str, SimulatedNode] = {}

    def __enter__(self) -> Crew:
        for name in self._names:
            cache = os.path.join(self._directory, f"{name}.json")
            declaration = Declaration(
                options={**self._table, "node": name, "cache": cache}, language=self._language, path=name
            )
            self.nodes[name] = SimulatedNode(EtcdSource(declaration), name, self._opinion)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for node in self.nodes.values():
            node.source.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for node in self.nodes.values():
                selector.register(node.bell.fileno(), selectors.EVENT_READ, node)
            while not self._stopped.is_set():
                for key, _ in selector.select(0.05):
                    with suppress(MeshfwError):
                        key.data.look()
