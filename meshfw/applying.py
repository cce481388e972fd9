"""Applying: what everybody does who makes a kernel hold a ruleset, and what he leaves for the next one.

The order is always the same, and each step has its function here::

    shop = Workshop(arguments)
    declared = shop.rules()                                  # what can fail without the lock fails before it
    with writing(shop, timeout=10) as backend:               # lock, open, refuse while ours stand elsewhere
        applied = put(shop, backend, declared, reason=APPLY)  # fit to the host, reconcile, remember, record

Whoever reconciles in his own way (on trial, on a backend that stays open) fits the rules himself (``shop.fitted``), and
calls :func:`noted` with the report. The verbs are whole functions: :func:`apply_declared`, :func:`apply_planned`,
:func:`roll_back`, :func:`restore`. What is recorded is the ruleset as declared, so that another host, or this one with
IPv6, holds more of it. The history is a convenience: where it can't be written, what was applied stays applied, and
``shop.warnings`` says what can't be gone back to.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from meshfw import reconcile
from meshfw.backend import Backend, Outcome, Report
from meshfw.backends.instance import namespace_identity, only_writer
from meshfw.errors import MeshfwError, StateError
from meshfw.history import Entry, History
from meshfw.model import Ruleset
from meshfw.plan import Plan
from meshfw.planned import Planned, parse_planned
from meshfw.reconcile import Agree
from meshfw.safety.moving import require_whole
from meshfw.safety.pending import Pending
from meshfw.safety.settling import after_restart, require_settled
from meshfw.safety.trial import guarded_apply
from meshfw.snapshot import Snapshot
from meshfw.states import State, digest, snapshot_digest
from meshfw.workshop import Workshop

BEFORE: Final = "stood before the first apply"
"""The reason of the state that is what a first apply found."""
APPLY: Final = "apply"
"""The reason of what a person applied."""
CLEAN: Final = "clean"
"""The reason of the empty state: nothing is wanted."""
_LARGEST: Final = 1 << 28


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and the number of the state in the history; 0 where it isn't in it.

    ``pending`` is the change that waits to be confirmed: it isn't in the history before it is.
    """

    report: Report
    number: int = 0
    pending: Pending | None = None


@contextmanager
def writing(shop: Workshop, *, timeout: float) -> Iterator[Backend]:
    """The backend, open for a block in which no other meshfw writes; ``timeout`` is how long to wait for that.

    Raises:
        LockError: another meshfw keeps writing.
        PendingError: a change waits to be confirmed. MigrationError: a move to another backend is half done.
        BackendError: rules of ours stand in another backend, or may.
    """
    with only_writer(shop.site, timeout=timeout):
        require_settled(shop.site, shop.warnings)
        require_whole(shop, alone=True)
        with shop.backend() as backend:
            refusal = shop.elsewhere(backend)
            if refusal is not None:
                raise refusal
            shop.warn_unread(backend)
            yield backend


def put(
    shop: Workshop,
    backend: Backend,
    declared: Ruleset,
    *,
    reason: str,
    agree: Agree | None = None,
    confirm: float | None = None,
) -> Applied:
    """Make the kernel hold what fits it of a ruleset, remember the backend, and record the state; within ``writing``.

    With ``confirm`` it's recorded when it's confirmed, within so many seconds, or else undone.

    Raises:
        MeshfwError: as ``shop.fitted`` and :func:`meshfw.safety.trial.guarded_apply`; nothing was recorded.
    """
    fitted = shop.fitted(declared, backend)
    tried = guarded_apply(shop, backend, fitted, declared=declared, agree=agree, confirm=confirm)
    if tried.pending is not None:
        shop.remember(backend)
        return Applied(report=tried.report, pending=tried.pending)
    return Applied(report=tried.report, number=noted(shop, backend, declared, tried.report, reason=reason))


def noted(shop: Workshop, backend: Backend, declared: Ruleset, report: Report, *, reason: str) -> int:
    """Note what was applied: the backend that auto took, and the state, before the first one what stood there.

    The number of the state; 0 where none was recorded. Nothing is where nothing was even read, by an earlier process
    either.
    """
    if report.outcome is Outcome.IDLE and report.cache != reconcile.KEPT:
        return 0
    if declared:
        shop.remember(backend)
    if not backend.capabilities.kernel:  # what no packet meets isn't to come back
        return 0
    if shop.history.why_not:
        _tell(shop.notes, f"not kept for a rollback: {shop.history.why_not}")
        return 0
    try:
        return _recorded(shop, backend, declared, report, reason=reason)
    except StateError as error:
        # Whoever can't write there works without, and has heard of it when something changed.
        changed = report.outcome is Outcome.CHANGED
        _tell(shop.warnings if changed else shop.notes, f"not kept for a rollback: {error}")
        return 0


def _recorded(shop: Workshop, backend: Backend, declared: Ruleset, report: Report, *, reason: str) -> int:
    history = shop.history
    if history.newest() is None:
        if report.outcome is Outcome.CHANGED:
            meaning = report.plan.before.meaning()
            history.record(state_of(shop, backend, meaning.ruleset, BEFORE))
            shop.warnings += [f"a rollback would not bring back: {note}" for note in meaning.notes]
        elif not declared:
            return 0
    return history.record(state_of(shop, backend, declared, reason))


def _tell(told: list[str], text: str) -> None:
    if text not in told:
        told.append(text)


def state_of(shop: Workshop, backend: Backend, ruleset: Ruleset, reason: str) -> State:
    """A ruleset that a backend of the workshop holds from now on, as a state to be kept."""
    site = shop.site
    return State(
        owner=site.owner,
        backend=backend.name,
        netns=site.netns,
        ruleset=ruleset,
        time=time.time(),
        reason=reason,
    )


# --- the verbs ---------------------------------------------------------------------------------------------


def apply_declared(shop: Workshop, *, timeout: float, confirm: float | None = None) -> Applied:
    """Make the kernel hold what the sources declare; a rollback's hold is over, with ``confirm`` when it's confirmed.

    Raises:
        MeshfwError: as :func:`writing`, :func:`put`, or a source.
    """
    with _declared(shop) as (wanted, tell):
        with writing(shop, timeout=timeout) as backend:
            applied = put(shop, backend, wanted, reason=APPLY, confirm=confirm)
            if applied.pending is None:
                release(shop)
        tell(applied)
    return applied


@contextmanager
def _declared(shop: Workshop) -> Iterator[tuple[Ruleset, Callable[[Applied], None]]]:
    """What the sources declare, and how to tell them what was done; where the block raises, they are told that."""
    with shop.sources() as sources:

        def tell(applied: Applied) -> None:
            if applied.pending is None:
                shop.warnings.extend(sources.applied(applied.report))

        try:
            yield shop.loaded(sources), tell
        except (MeshfwError, OSError) as error:
            sources.refused(str(error))
            raise


def release(shop: Workshop) -> None:
    """End a rollback's hold, if there is one."""
    try:
        shop.history.release()
    except StateError as error:
        _tell(shop.warnings, f"the rollback's hold stays: {error}")


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """A rollback that was done: to which state, from which one, and whether the agent now holds it."""

    applied: Applied
    to: Entry
    source: Entry
    held: bool = True


def roll_back(shop: Workshop, number: int | None = None, *, timeout: float) -> RolledBack:
    """Make the kernel hold a recorded state again (None: the one before the newest), and have the agent hold it.

    It is recorded as a state of its own, so a rollback can be rolled back. Sources aren't read.

    Raises:
        StateError: there is no such state, or none is kept here.
        MeshfwError: as :func:`writing` and :func:`put`; the hold is what it was.
    """
    history = shop.history
    if history.why_not:
        raise StateError(f"there is nothing to go back to: {history.why_not}")
    with writing(shop, timeout=timeout) as backend:
        newest = history.newest()
        if newest is None:
            raise StateError("there is nothing to go back to", remedy=f"no state is kept in {history.directory}")
        target = _target(history, newest, number)
        state = history.load(target.number)
        if not state.ruleset:
            shop.warnings.append(f"state {target.number} has no rules: nothing of {shop.config.owner}'s will stand")
        old = history.held()
        against = old.against if old is not None else newest.summary.digest
        declared = digest(state.ruleset) == against
        if not declared:
            # Before the first write: an agent that hears of it must not take it for drift.
            history.hold(target.number, against=against)
        try:
            applied = put(shop, backend, state.ruleset, reason=f"rollback to {target.number}")
        except BaseException:
            history.release() if old is None else history.hold(old.number, against=old.against)
            raise
        if declared:
            release(shop)
        elif applied.number:
            history.hold(applied.number, against=against)
    return RolledBack(applied=applied, to=target, source=newest, held=not declared)


def _target(history: History, newest: Entry, number: int | None) -> Entry:
    if number is None:
        before = history.before(newest.number)
        while before is not None and before.summary.digest == newest.summary.digest:  # the same, in another backend
            before = history.before(before.number)
        if before is None:
            raise StateError(f"there is no state before {newest.number}, the newest", source=history.directory)
        return before
    found = next((entry for entry in history.entries() if entry.number == number), None)
    if found is None:
        history.load(number)  # says why
        raise StateError(f"state {number} went away", source=history.directory)
    return found


def restore(shop: Workshop, *, timeout: float, stood: bool = False) -> Applied | None:
    """Make the kernel hold the held or the last good state, without asking any source; None where nothing is wanted.

    ``stood`` says that it stood there: what the backend, whose options may not be known, has against it is a warning.

    Raises:
        MeshfwError: as :func:`writing` and :func:`put`.
    """
    with only_writer(shop.site, timeout=timeout):
        after_restart(shop.site, shop.warnings)
    state = to_restore(shop.history)
    if state is None:
        return None
    shop.prefer(state.backend)
    with writing(shop, timeout=timeout) as backend:
        report = reconcile.apply(backend, shop.fitted(state.ruleset, backend), stood=stood)
        shop.remember(backend)
    return Applied(report=report)


def to_restore(history: History) -> State | None:
    """The state that a host gets back when it starts; None where nothing is wanted, or nothing is known."""
    held = history.held()
    if held is not None:
        try:
            state = history.load(held.number)
        except StateError as error:
            history.notes.append(f"the held state is passed over: {error}")
        else:
            return state if state.ruleset else None
    return history.last()


# --- plans that were reviewed ------------------------------------------------------------------------------


def planned(
    shop: Workshop, backend: Backend, declared: Ruleset, *, snapshot: Snapshot, plan: Plan, transaction: str = ""
) -> Planned:
    """What a plan's document says: a plan for a declared ruleset, made on a snapshot."""
    site = shop.site
    return Planned(
        owner=site.owner,
        backend=backend.name,
        netns=site.netns,
        namespace=str(namespace_identity(site.netns)),
        time=time.time(),
        wanted=digest(declared),
        kernel=snapshot_digest(snapshot),
        changes=tuple(map(str, plan.edits(shop.formatter))),
        transaction=transaction,
    )


def read_planned(path: str) -> Planned:
    """The plan of a file.

    Raises:
        StateError: with the file's name, where it can't be read, is damaged or is no such plan.
    """
    try:
        with open(path, "rb", opener=_not_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StateError("it's no regular file", source=path, remedy="'meshfw plan --out FILE' makes one")
            document = file.read(_LARGEST)
    except OSError as error:
        raise StateError(f"can't be read: {error.strerror or error}", source=os.fspath(path)) from error
    try:
        return parse_planned(document)
    except StateError as error:
        raise StateError(error.reason, source=path) from None


def _not_waiting(path: str, flags: int) -> int:
    """The descriptor of a file, which may be a pipe that nobody ever writes to (open(2))."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def apply_planned(shop: Workshop, path: str, *, timeout: float, confirm: float | None = None) -> Applied:
    """Carry out the plan of a file, exactly that one; else as :func:`apply_declared`.

    Raises:
        StateError: the file is damaged, or what it was made for has moved: nothing was changed.
    """
    reviewed = read_planned(path)
    with _declared(shop) as (wanted, tell):
        with writing(shop, timeout=timeout) as backend:

            def agree(snapshot: Snapshot, plan: Plan) -> None:
                moved = reviewed.moved(planned(shop, backend, wanted, snapshot=snapshot, plan=plan))
                if moved:
                    raise StateError(moved, source=path, remedy="nothing was changed; plan again, and review that")

            applied = put(shop, backend, wanted, reason=APPLY, agree=agree, confirm=confirm)
            if applied.pending is None:
                release(shop)
        tell(applied)
    return applied
