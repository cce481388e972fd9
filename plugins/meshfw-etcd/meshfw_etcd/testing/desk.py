"""A desk for tests: whoever publishes rules in a store, and the sources of a node that gets them."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshfw import Changes, Declaration, Language, Outcome, Plan, Report, Ruleset, builtin_extensions, parse_ruleset
from meshfw_etcd.client import Access, Client
from meshfw_etcd.documents import Ack, Common, Node, read, write
from meshfw_etcd.keys import Keys
from meshfw_etcd.source import EtcdSource

LANGUAGE: Final = Language.of(builtin_extensions())
KEYS: Final = Keys()
PATIENCE: Final = 30.0
"""Seconds in which what is waited for must have come; it mostly takes a fraction of one."""
_PAUSE: Final = 0.01


def rules(*lines: str, name: str = "a") -> str:
    """The text of one chain."""
    return f'[[chain]]\nname = "{name}"\nrules = {json.dumps(lines)}\n'


def made(*texts: str) -> Ruleset:
    """The ruleset of some texts."""
    return parse_ruleset("\n".join(texts), language=LANGUAGE)


def until(condition: Callable[[], object]) -> None:
    """Wait for something that has to come; AssertionError where it doesn't."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never came")
        time.sleep(_PAUSE)


def heard(changes: Changes) -> bool:
    """Wait for word of a change; AssertionError where none comes."""
    if not select.select([changes], [], [], PATIENCE)[0]:
        raise AssertionError("no word came")
    return changes.drain()


def applied(source: EtcdSource) -> None:
    """Tell a source that what it gave stands."""
    source.applied(Report(backend="memory", outcome=Outcome.CHANGED, plan=Plan(), commits=1, cache=""))


class Desk:
    """Whoever publishes for the node ``n``, and that node's sources; ``endpoint`` is what these ask."""

    def __init__(self, endpoint: str, directory: Path) -> None:
        self.directory = directory
        self.client = Client(Access(endpoints=(endpoint,)))
        self.endpoint = endpoint
        self._sources: list[EtcdSource] = []

    @property
    def cache(self) -> Path:
        """The file that the node keeps."""
        return self.directory / "cache" / "n"

    def source(self, **options: object) -> EtcdSource:
        """A source of the node; names of options with underscores."""
        os.makedirs(self.cache.parent, mode=0o700, exist_ok=True)
        given = {name.replace("_", "-"): value for name, value in options.items()}
        given = {"node": "n", "endpoints": [self.endpoint], "cache": str(self.cache), **given}
        source = EtcdSource(Declaration(options=given, language=LANGUAGE, file="meshfw.toml", path="source[1]"))
        self._sources.append(source)
        return source

    def publish(self, release: int, text: str, *, force: bool = False) -> None:
        """Have a text be the common release."""
        self.client.put(KEYS.common, write(Common.of(release, text, force=force)))

    def give(self, node: Node) -> None:
        """Give the node a document of its own."""
        self.client.put(KEYS.node("n"), write(node))

    def ack(self) -> Ack | None:
        """What the node has said last."""
        pair = self.client.get(KEYS.ack("n"))
        return read(pair.value, Ack, key=KEYS.ack("n")) if pair is not None else None

    def close(self) -> None:
        """End it all."""
        for source in self._sources:
            source.close()
        self.client.close()
