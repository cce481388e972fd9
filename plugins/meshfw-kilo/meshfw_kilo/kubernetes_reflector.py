"""One resource of the API kept up to date: list, watch from there, resume where it broke off, list again when it must.

What a server may do at any moment, and what follows:

- the watch ends, breaks off or falls silent: it is resumed from the last version heard; nothing is forgotten;
- 410, as an answer or as an ERROR event: the history is gone, so all is listed again;
- anything that can't be read: it may have told of a change, so all is listed again;
- refusals and failures: again after a pause that grows, with jitter, and no sooner than the server asks for.

An object goes only when the server says so: by a DELETED event, or by a complete list without it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from meshfw_kilo.kubernetes_access import KubernetesError, UntrustedError
from meshfw_kilo.kubernetes_http import Closed, MalformedError, RefusedError, refused

PAGE: Final = 500
"""Objects of one page of a list."""
IDLE: Final = 150.0
"""Seconds without a word after which a watch counts as dead: a server that has nothing to tell sends a bookmark
about every minute."""
LASTS: Final = (300, 600)
"""Seconds that a watch is asked for, at least and at most: spread, so that a fleet doesn't come back at once."""
ABSENT_RETRY: Final = 60.0
"""Seconds after which a resource that the server doesn't have is asked for again, at most."""
_SHORT: Final = 5.0
"""Seconds; a watch that ends sooner without an event has failed."""
_CONFIRMATIONS: Final = 3
"""Answers in a row that a server doesn't have a resource, or won't go on with a watch, before it is believed: one that
is starting says the like."""

_log = logging.getLogger("meshfw.kilo")


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind of object and where the API has it; an ``optional`` one may be unknown to the server."""

    kind: str
    version: str
    path: str
    optional: bool = False
    keep: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    """What of an object is kept: ``metadata.name`` among it."""

    @property
    def plural(self) -> str:
        """The name as in a rule of RBAC."""
        return self.path.rsplit("/", 1)[1]


class Sink(Protocol):
    """Where a reflector puts what it hears; called from the reflector's thread."""

    def replaced(self, resource: Resource, objects: dict[str, dict[str, Any]]) -> None:
        """These are all objects of now, by name."""
        ...

    def changed(self, resource: Resource, name: str, kept: dict[str, Any] | None) -> None:
        """An object is new or another; None: it is gone."""
        ...

    def opened(self, resource: Resource) -> None:
        """The server has agreed to tell of changes: it's there, though it hasn't told of any yet."""
        ...

    def alive(self, resource: Resource) -> None:
        """The server has just told what there is, and all of it is taken."""
        ...

    def failed(self, resource: Resource, error: KubernetesError, *, times: int, final: bool) -> None:
        """It didn't work, so often in a row; ``final``: nor will it before somebody mends something."""
        ...


class Pauses:
    """Exponential back-off with full jitter: each pause is random between 0 and a limit that doubles, up to the cap."""

    def __init__(self, *, first: float = 0.5, cap: float = 30.0, chance: Callable[[], float] = random.random) -> None:
        self._first = first
        self._cap = cap
        self._chance = chance
        self.failures = 0

    def reset(self) -> None:
        """It went well."""
        self.failures = 0

    def next(self, *, least: float = 0.0) -> float:
        """The seconds to wait after another failure; ``least`` is what the server asked for, up to ten minutes."""
        limit = min(self._cap, self._first * 2.0 ** min(self.failures, 32))
        self.failures += 1
        asked = min(least, 600.0)
        return asked + self._chance() * limit


class Reads(Protocol):
    """What a reflector needs of a client."""

    @property
    def server(self) -> str:
        """The server's URL."""
        ...

    def get(self, path: str, query: Mapping[str, str]) -> Any:
        """An answer."""
        ...

    def watch(self, path: str, query: Mapping[str, str], *, idle: float, opened: Callable[[], None]) -> Iterator[Any]:
        """The events of an answer that goes on."""
        ...


class Reflector:
    """Keeps a sink up to date with one resource, until ``pause``, which waits some seconds, returns True."""

    def __init__(
        self,
        client: Reads,
        resource: Resource,
        sink: Sink,
        *,
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        idle: float = IDLE,
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._pause = pause
        self._clock = clock
        self._chance = chance
        self._idle = idle
        self._pauses = Pauses(chance=chance)
        self._version: str | None = None
        self._missing = 0
        self._unresumed = 0
        self._next = 0.0

    def run(self) -> None:
        """Go on until told to end."""
        while not self._pause(self._next):
            try:
                self._next = self._round()
            except Closed:
                return
            except KubernetesError as error:
                self._next = self._failure(error)
            except Exception as error:  # noqa: BLE001 - a surprise in one answer must not end the thread that hears all
                self._version = None
                self._next = self._failure(MalformedError(f"{error!r}", server=self._client.server))

    def _round(self) -> float:
        """List where needed, then watch until it ends; the seconds to wait before the next."""
        if self._version is None:
            self._version = self._listed()
            if self._version is None:
                return ABSENT_RETRY * (0.5 + self._chance() / 2)
        begun, heard = self._clock(), False
        for event in self._events(self._version):
            heard = True
            self._take(event)
        if heard or self._clock() - begun >= _SHORT:
            self._progress()
            return 0.0
        raise KubernetesError("it ends the watch at once", server=self._client.server)

    def _progress(self) -> None:
        self._pauses.reset()
        self._unresumed = 0

    def _failure(self, error: KubernetesError) -> float:
        """What follows from a failure; the seconds to wait."""
        refusal = error if isinstance(error, RefusedError) else None
        gone = refusal is not None and refusal.code == 410
        if gone or isinstance(error, MalformedError):
            self._version = None
        elif refusal is not None and refusal.code != 429:
            self._unresumed += 1
            # A version that this server never had, as after its store was put back from a backup, is refused for ever.
            if self._unresumed >= _CONFIRMATIONS or refusal.code in (400, 404):
                self._version = None
                self._unresumed = 0
        pause = self._pauses.next(least=refusal.retry_after if refusal is not None else 0.0)
        if not gone or self._pauses.failures > 1:
            self._sink.failed(self._resource, error, times=self._pauses.failures, final=self._final(error))
        return pause

    def _final(self, error: KubernetesError) -> bool:
        if isinstance(error, RefusedError):
            unknown = error.code == 404 and self._resource.optional
            return error.code < 500 and error.code not in (408, 410, 429) and not unknown
        return isinstance(error, UntrustedError)

    # --- list ---

    def _listed(self) -> str | None:
        """Hand over all objects; the version to watch from, None where the server doesn't have the resource."""
        try:
            objects, version = self._pages()
        except RefusedError as error:
            if error.code != 404 or not self._resource.optional:
                raise
            self._missing += 1
            if self._missing < _CONFIRMATIONS:
                raise
            objects, version = {}, None
            if self._missing == _CONFIRMATIONS:
                _log.warning("%s has no %s: taken as none, and asked for again", error.server, self._resource.path)
        else:
            self._missing = 0
        self._sink.replaced(self._resource, objects)
        self._sink.alive(self._resource)
        return version

    def _pages(self) -> tuple[dict[str, dict[str, Any]], str]:
        objects: dict[str, dict[str, Any]] = {}
        query = {"limit": str(PAGE)}
        while True:
            try:
                page = self._client.get(self._resource.path, query)
            except RefusedError as error:
                if error.code != 410 or "continue" not in query:
                    raise
                objects, query = {}, {}  # the rest of it is gone: all at once, which can't go half-way through
                continue
            items, about = self._page(page)
            for item in items:
                kept = self._kept(item)
                objects[kept["metadata"]["name"]] = kept
            following = about.get("continue")
            if not following:
                return objects, _version(about, self._client.server)
            query = {"limit": str(PAGE), "continue": str(following)}

    def _page(self, page: Any) -> tuple[list[Any], Mapping[str, Any]]:
        if isinstance(page, Mapping):
            items, about = page.get("items"), page.get("metadata")
            if (items is None or isinstance(items, list)) and isinstance(about, Mapping):
                return items or [], about
        raise MalformedError(f"what came is no list of {self._resource.plural}", server=self._client.server)

    def _kept(self, item: Any) -> dict[str, Any]:
        if isinstance(item, Mapping) and isinstance(item.get("metadata"), Mapping):
            name = item["metadata"].get("name")
            if isinstance(name, str) and name:
                kept = {"apiVersion": self._resource.version, "kind": self._resource.kind}  # a list's items lack them
                return kept | self._resource.keep(item)
        raise MalformedError(f"what came is no object of {self._resource.plural}", server=self._client.server)

    # --- watch ---

    def _events(self, version: str) -> Iterator[Any]:
        least, most = LASTS
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(least + self._chance() * (most - least))),
        }

        def opened() -> None:
            self._sink.opened(self._resource)

        return self._client.watch(self._resource.path, query, idle=self._idle, opened=opened)

    def _take(self, event: Any) -> None:
        if not isinstance(event, Mapping) or not isinstance(event.get("object"), Mapping):
            raise MalformedError("what came is no event", server=self._client.server)
        kind, item = event.get("type"), event["object"]
        if kind == "ERROR":
            raise refused(item, server=self._client.server)
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            kept = self._kept(item)
            version = _version(item["metadata"], self._client.server)
            self._sink.changed(self._resource, kept["metadata"]["name"], None if kind == "DELETED" else kept)
        elif kind == "BOOKMARK":
            version = _version(item.get("metadata"), self._client.server)
        else:
            raise MalformedError(f"an event of unknown type {kind!r:.40}", server=self._client.server)
        self._version = version
        self._progress()
        self._sink.alive(self._resource)


def _version(about: Any, server: str) -> str:
    version = about.get("resourceVersion") if isinstance(about, Mapping) else None
    if not isinstance(version, str) or not version:
        raise MalformedError("what came has no resourceVersion", server=server)
    return version
