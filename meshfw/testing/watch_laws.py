"""The law book, fifth part: what holds of events, where a backend has them."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from functools import partial
from typing import Final

from meshfw.backend import Event, Watch
from meshfw.reconcile import apply
from meshfw.testing.edits import edited, first
from meshfw.testing.lab import Case, Lab, law
from meshfw.testing.wrapping import Interrupted

_SECONDS: Final = 1.0
"""How long an event may take."""
_QUIET: Final = 20
"""Milliseconds in which nothing is to come."""


def _needs_watch(lab: Lab) -> str | None:
    return None if lab.has_watch else "the backend has no events here"


def readable(watch: Watch, milliseconds: int) -> bool:
    """Whether the watch's descriptor is readable, or becomes so in time."""
    poller = select.poll()
    poller.register(watch.fileno(), select.POLLIN)
    return bool(poller.poll(milliseconds))


def told(watch: Watch, *, within: float = _SECONDS) -> list[Event]:
    """The events up to the first that is near and not our own; those that came where none does."""
    events: list[Event] = []
    deadline = time.monotonic() + within
    while not any(foreign(event) for event in events) and time.monotonic() < deadline:
        if readable(watch, _QUIET):
            events += watch.events()
    return events


def foreign(event: Event) -> bool:
    """Whether an event asks for a look: it's near, and not our own."""
    return event.near and not event.own


@law(_needs_watch)
def watch_tells_of_foreign_writes(lab: Lab, case: Case) -> None:
    """A write by another instance to what is ours makes the watch readable, once; our reading doesn't."""
    backend = lab.backend()
    apply(backend, case.one)
    watch = backend.watch()
    assert watch is not None
    assert backend.watch() is watch, "a backend has one watch"
    watch.events()
    backend.observe()
    assert not readable(watch, _QUIET), "reading is no event"
    lab.changed(case.other)
    assert any(foreign(event) for event in told(watch)), "a foreign write to what is ours made no event that says so"
    watch.events()
    assert not readable(watch, _QUIET), "readable after all events were taken"


@law(_needs_watch)
def own_commits_are_own(lab: Lab, case: Case) -> None:
    """A commit of the backend's own never looks like somebody else's, and a foreign one beside it never like ours."""
    target = edited(case.one, "edit a rule in place", first)
    assert target is not None
    with lab.instance() as backend:
        watch = backend.watch()
        assert watch is not None
        for ruleset in (case.one, case.other, case.one):
            apply(backend, ruleset)
            wrong = [event for event in told(watch, within=_QUIET / 1000) if foreign(event)]
            assert not wrong, f"our own commit is told of as somebody else's: {wrong}"
        interrupted = Interrupted(backend, after=partial(lab.changed, case.other))
        apply(interrupted, target)
        events = [*told(watch), *watch.events()]
        assert any(foreign(event) for event in events), "somebody wrote right after our commit, and no event says so"


@law(_needs_watch)
def closing_ends_the_watch(lab: Lab, _case: Case) -> None:
    """With the backend its watch is closed: the descriptor is given back, and asking for events stays harmless."""
    with lab.instance() as backend:
        watch = backend.watch()
        assert watch is not None
        descriptor = watch.fileno()
        file = os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino
    assert watch.fileno() == -1, "a closed watch still has a descriptor"
    assert watch.events() == ()
    if "anon_inode" not in file[0]:  # those are all one file
        with suppress(OSError):
            assert os.fstat(descriptor).st_ino != file[1], "the descriptor is still open"


@law(_needs_watch)
def watching_spawns_nothing(lab: Lab, case: Case) -> None:
    """Listening and taking events starts no process, whoever writes."""
    from meshfw.testing.counting import ProcessCounter

    with lab.instance() as backend:
        with ProcessCounter() as first_call:
            watch = backend.watch()
        assert watch is not None
        lab.changed(case.one)
        with ProcessCounter() as listening:
            told(watch)
        spent = first_call.count.forks + listening.count.forks
        assert spent == 0, f"watching started {spent} processes"


LAWS: Final = (
    watch_tells_of_foreign_writes,
    own_commits_are_own,
    closing_ends_the_watch,
    watching_spawns_nothing,
)
"""The fifth part of the book."""
