"""The follower: a thread that knows what the store has for one node, and rings when that may have changed.

It lists both documents at one revision and watches them from the next one on, in one stream. A stream that ends is
begun again where each key's was, and a history that's gone by then means listing again; nothing of that is ever read as
a deletion. What changes of the node's own document is read together with the common one, since the messages of two
watches may come in any order and a trial that ends must not uncover an older release.

A stream may be dead without a word: who holds it can ask :meth:`Follower.check` on a connection of his own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from meshfw import MeshfwError
from meshfw_etcd.backoff import Backoff
from meshfw_etcd.client import Access, Client
from meshfw_etcd.errors import CompactedError, EtcdError, WatchEndedError
from meshfw_etcd.messages import Batch, Get
from meshfw_etcd.published import Place, Published, listed
from meshfw_etcd.stream import Watching

_JOIN: Final = 1.0
"""Seconds that closing waits for the thread."""
_LIVED: Final = 5.0
"""Seconds after which a stream that ends was a good one, so that the pauses begin anew."""


class Heard(msgspec.Struct, frozen=True):
    """What is known of the store: the documents (None: never heard), why it can't be asked now, and since when.

    ``contact`` is when it last answered, in seconds since the epoch, 0.0 where it never did.
    """

    published: Published | None = None
    trouble: str = ""
    contact: float = 0.0


class Follower:
    """What the store has for a node, kept up to date by a thread until it's closed.

    ``ring`` is called when :attr:`heard` may have changed, ``listed_anew`` when the store may be another one or have
    forgotten what was written; both from the thread.
    """

    def __init__(
        self, access: Access, place: Place, *, ring: Callable[[], None], listed_anew: Callable[[], None] = lambda: None
    ) -> None:
        self._access = access
        self._place = place
        self._ring = ring
        self._listed_anew = listed_anew
        self._heard = Heard()
        self._lock = threading.Lock()
        self._first = threading.Event()
        self._stopped = threading.Event()
        self._watching: Watching | None = None
        self._next: dict[str, int] = {}
        self._anew = threading.Event()
        self._anew.set()
        self._thread = threading.Thread(target=self._run, name="meshfw-etcd follower", daemon=True)
        self._thread.start()

    @property
    def heard(self) -> Heard:
        """What is known now."""
        return self._heard

    def first(self, timeout: float) -> Heard:
        """What is known when the store has first answered, or failed to; or after so many seconds."""
        self._first.wait(timeout)
        return self._heard

    def close(self) -> None:
        """End the thread; it isn't waited for if it waits for the network."""
        self._stopped.set()
        self._break_off()
        self._thread.join(_JOIN)

    def check(self, client: Client) -> None:
        """Ask the store, through another client, whether anything was missed, and begin the stream anew if so.

        Raises:
            EtcdError: it doesn't answer; the stream is begun anew in that case too, with any endpoint.
        """
        published = self._heard.published
        if published is None:
            return
        try:
            keys = (Get(self._place.common, bare=True), Get(self._place.own, bare=True))
            answer = client.txn([], keys)
        except EtcdError:
            self._break_off()
            raise
        revisions = tuple(pairs[0].mod_revision if pairs else 0 for pairs in answer.found)
        known = tuple(pair.mod_revision if pair else 0 for pair in (published.common, published.own))
        if revisions != known or answer.revision < published.revision:  # missed, or not the store that it was
            self._anew.set()
            self._break_off()
        else:
            self._note(contact=time.time())

    def _break_off(self) -> None:
        with self._lock:
            if self._watching is not None:
                self._watching.close()

    # --- the thread ---

    def _run(self) -> None:
        backoff = Backoff()
        with Client(self._access) as client:
            while not self._stopped.is_set():
                begun = time.monotonic()
                try:
                    self._follow(client)
                except CompactedError:
                    self._anew.set()
                except WatchEndedError:  # no trouble yet: that is known when it can't be begun again
                    pass
                except Exception as error:  # noqa: BLE001 - a thread that ends unheard would leave old rules for ever
                    self._tell(trouble=str(error) if isinstance(error, MeshfwError) else repr(error))
                if time.monotonic() - begun > _LIVED:
                    backoff.reset()
                self._stopped.wait(backoff.pause())

    def _follow(self, client: Client) -> None:
        if self._anew.is_set():
            self._list(client)
            self._anew.clear()
            self._listed_anew()
        watching = client.watch(self._next)
        with self._lock:
            self._watching = watching
            if self._stopped.is_set() or self._anew.is_set():
                watching.close()
        try:
            for batch in watching:
                if batch.opened:
                    self._tell(trouble="", contact=time.time())
                self._hear(batch, client)
        finally:
            watching.close()
            with self._lock:
                self._watching = None

    def _list(self, client: Client) -> None:
        published = listed(client, self._place)
        self._next = dict.fromkeys((self._place.common, self._place.own), published.revision + 1)
        self._tell(published=published, trouble="", contact=time.time())

    def _hear(self, batch: Batch, client: Client) -> None:
        """Take one message of the watch of one key; what was read meanwhile is older news."""
        key = (self._place.common, self._place.own)[batch.watch]
        published, behind = self._heard.published, self._next.get(key, 0)
        news = [change for change in batch.changes if change.pair.mod_revision >= behind]
        if not news:
            if not batch.changes and not batch.opened:
                self._next[key] = max(behind, batch.revision + 1)
            return
        if key == self._place.own or published is None:
            self._list(client)
            return
        last = news[-1]
        self._next[key] = last.pair.mod_revision + 1
        common = None if last.deleted else last.pair
        revision = max(published.revision, last.pair.mod_revision)
        self._tell(published=Published(common, published.own, revision), contact=time.time())

    # --- what is known ---

    def _note(self, *, contact: float) -> None:
        with self._lock:
            self._heard = msgspec.structs.replace(self._heard, contact=contact)

    def _tell(self, **changes: object) -> None:
        """Know something, and ring where that is new."""
        with self._lock:
            before, self._heard = self._heard, msgspec.structs.replace(self._heard, **changes)
        self._first.set()
        if (before.published, before.trouble) != (self._heard.published, self._heard.trouble):
            self._ring()
