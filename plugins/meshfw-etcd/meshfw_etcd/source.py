"""The source ``etcd``: the rules that a store has for this node, followed, kept for worse days, and acknowledged."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Final

import msgspec

from meshfw import Changes, Declaration, MeshfwError, Report, Ruleset, StateError
from meshfw_etcd.bell import Bell
from meshfw_etcd.clerk import Clerk
from meshfw_etcd.client import Client
from meshfw_etcd.documents import Ack
from meshfw_etcd.errors import DocumentError, EtcdError
from meshfw_etcd.follower import Follower, Heard
from meshfw_etcd.kept import Cache, Cached
from meshfw_etcd.options import Options
from meshfw_etcd.published import Chosen, Place, Published, chosen, listed, ruleset_of, shrinks
from meshfw_etcd.pulse import Pulse

_PATIENCE: Final = 2.0
"""Seconds that closing waits for the last acknowledgement."""
_SPARE: Final = 1.0
"""Seconds beyond the time limit of each endpoint for the follower's first word."""
_LONGEST: Final = 2000
"""Characters of a reason that are sent."""
_BEATS: Final = 4
"""Heartbeats without one after which an agent is taken for dead: they vary by half, and one may be lost."""


class _Given(msgspec.Struct, frozen=True):
    """What a load gave: the documents, what they chose, and the ruleset it makes."""

    published: Published
    chosen: Chosen
    ruleset: Ruleset


class EtcdSource:
    """The rules that a store has for one node.

    ``load`` asks the store once; from ``changes`` on a thread follows it. While it can't be asked the rules stay what
    they were, at a start those of the cache, and :meth:`doubts` tells since when.
    """

    def __init__(self, declaration: Declaration) -> None:
        self._options = Options.taken(declaration)
        self._language = declaration.language
        self._cache = Cache(self._options.cache, self._place)
        self._pulse = Pulse(self._place.keys.pulse(self._place.node), lasts=self._lasts)
        self._bell: Bell | None = None
        self._follower: Follower | None = None
        self._clerk = Clerk(
            self._options.access,
            self._place.keys.ack(self._place.node),
            check=self._check,
            rhythm=self._options.heartbeat,
        )
        self._asked: Ack | None = None
        self._given: _Given | None = None
        self._last: _Given | None = None
        self._stands: _Given | None = None
        self._doubts: list[str] = []
        self._uncached = ""

    @property
    def _place(self) -> Place:
        return self._options.place

    @property
    def _lasts(self) -> int:
        """Seconds that the sign of life stays without a heartbeat."""
        return _BEATS * self._options.heartbeat

    @property
    def name(self) -> str:
        """The node's place in the store."""
        return f"etcd {self._place.own}"

    @property
    def release(self) -> int:
        """The release that the last :meth:`load` gave or refused; 0 where there was none to tell of."""
        return self._asked.release if self._asked is not None else 0

    # --- what is wanted ---

    def load(self) -> Ruleset:
        """The common release or the node's trial, and the node's own rules.

        Raises:
            UnpublishedError: there is no common release. DocumentError, ConfigError, ParseError, ModelError: what is
                published can't be used. EtcdError: nobody can be asked, and nothing is kept.
        """
        self._given, self._asked, self._doubts = None, None, []
        published = self._published()
        self._asked = Ack(release=0, revision=published.written, state="failed")
        taken = chosen(published, self._place)
        self._asked = _ack(taken)
        self._given = self._last = self._made(published, taken)
        return self._given.ruleset

    def _published(self) -> Published:
        heard = self._ask()
        if heard.published is not None:
            if heard.trouble:
                self._doubts.append(f"no news since {_at(heard.contact)}: {heard.trouble}")
            return heard.published
        cached = self._cached()
        if cached is None:
            raise EtcdError(f"{heard.trouble}; and no rules are kept in {self._cache.path}")
        self._doubts.append(f"the rules are those applied here at {_at(cached.time)}, since {heard.trouble}")
        return cached.published

    def _ask(self) -> Heard:
        """What the follower has heard, or an answer to a question of our own."""
        access = self._options.access
        if self._follower is not None:
            heard = self._follower.first(access.timeout * len(access.endpoints) + _SPARE)
            return (
                heard if heard.published or heard.trouble else msgspec.structs.replace(heard, trouble="no answer yet")
            )
        try:
            with Client(access) as client:
                return Heard(listed(client, self._place), contact=time.time())
        except EtcdError as error:
            return Heard(trouble=str(error))

    def _cached(self) -> Cached | None:
        try:
            return self._cache.read()
        except StateError as error:
            self._doubts.append(f"the kept rules are passed over: {error}")
            return None

    def _made(self, published: Published, taken: Chosen) -> _Given:
        if self._last is not None and taken == self._last.chosen:
            return self._last  # the very object, which costs nobody a comparison
        ruleset = ruleset_of(taken, self._place, language=self._language)
        before = self._before()
        refusal = "" if taken.forced or before is None else shrinks(before, ruleset, limit=self._options.shrink_limit)
        if refusal:
            raise DocumentError(refusal, key=self._place.common, expected="more rules, or a release pushed with force")
        return _Given(published, taken, ruleset)

    def _before(self) -> Ruleset | None:
        """The rules that were applied last, here or by an earlier process; None where nobody knows."""
        if self._stands is None:
            with suppress(MeshfwError):
                cached = self._cache.read()
                if cached is not None:
                    taken = chosen(cached.published, self._place)
                    ruleset = ruleset_of(taken, self._place, language=self._language)
                    self._stands = _Given(cached.published, taken, ruleset)
        return self._stands.ruleset if self._stands is not None else None

    def doubts(self) -> list[str]:
        """How old the rules are, where nobody can be asked; and that they can't be kept."""
        return [f"{self.name}: {text}" for text in (*self._doubts, self._uncached) if text]

    # --- word of changes ---

    def changes(self) -> Changes:
        """Word of what is published, and of whether it can be asked for, from now on."""
        if self._bell is None:
            self._bell = Bell()
            self._follower = Follower(self._options.access, self._place, ring=self._heard, listed_anew=self._repeat)
            self._clerk.begin()
        return self._bell

    def _heard(self) -> None:
        if self._bell is not None:
            self._bell.ring()
        self._clerk.hurry()

    def _repeat(self) -> None:
        self._pulse.lose()
        self._clerk.repeat()

    def _check(self, client: Client) -> None:
        if self._follower is not None:
            self._follower.check(client)
            self._pulse.beat(client)

    # --- what became of it ---

    def applied(self, report: Report) -> None:
        """Acknowledge what was given, and keep it for a start without the store."""
        given = self._given
        if given is None:
            return
        if given is not self._stands:
            self._stands = given
            try:
                self._cache.write(given.published)
                self._uncached = ""
            except StateError as error:
                self._uncached = f"the rules can't be kept for a start without the store: {error}"
        self._send(msgspec.structs.replace(_ack(given.chosen), holds=given.chosen.release))

    def refused(self, reason: str) -> None:
        """Say that what was given isn't in place."""
        if self._asked is not None:
            self._before()
            holds = self._stands.chosen.release if self._stands is not None else 0
            self._send(msgspec.structs.replace(self._asked, state="failed", error=reason[:_LONGEST], holds=holds))

    def _send(self, ack: Ack) -> None:
        pulse = self._lasts if self._follower is not None else 0
        self._clerk.send(msgspec.structs.replace(ack, pulse=pulse))

    def close(self) -> None:
        """End the threads, and send what is to be said if the store can be asked."""
        if self._follower is not None:
            self._follower.close()
        why_not = self._clerk.close(_PATIENCE)
        if why_not:
            log = logging.getLogger("meshfw.etcd")
            log.warning("%s: what became of the rules couldn't be acknowledged: %s", self.name, why_not)
        if self._bell is not None:
            self._bell.close()


def _ack(taken: Chosen) -> Ack:
    return Ack(
        release=taken.release,
        node_release=taken.own_release,
        revision=taken.written,
        state="applied",
        digest=taken.digest,
    )


def _at(moment: float) -> str:
    """A moment in seconds since the epoch, as a person reads it."""
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
