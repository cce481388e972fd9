"""A change on trial: made only when it can be undone, and undone when what has to answer after it doesn't.

The order is what makes it safe. Before the first write: the probes that work now are found, the state that stands is
written to disk, and a guard that can put it back is ready. So whatever ends us from here on, the old rules come back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from meshfw import reconcile
from meshfw.backend import Backend, Report
from meshfw.backends.remembered import lasting_netns
from meshfw.errors import BackendError, MeshfwError, RolledBackError, StateError
from meshfw.model import Ruleset
from meshfw.probe import Probe
from meshfw.reconcile import Agree
from meshfw.safety.pending import Pending, Register, at, clock, register_of
from meshfw.safety.settling import put_back, settled
from meshfw.snapshot import Snapshot
from meshfw.states import State, digest, format_state
from meshfw.workshop import Workshop

if TYPE_CHECKING:
    from meshfw.safety.probing import Failure

_SPARE: Final = 30.0
"""Seconds beyond those of its probes after which a change that nobody has to confirm is overdue."""
_BUILT_IN: Final = frozenset({"rules", "iptables-save"})
"""Kinds of source that bring no words of their own."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and the change that now waits to be confirmed; None where none does."""

    report: Report
    pending: Pending | None = None


def guarded_apply(
    shop: Workshop,
    backend: Backend,
    ruleset: Ruleset,
    *,
    declared: Ruleset | None = None,
    confirm: float | None = None,
    agree: Agree | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Tried:
    """As ``reconcile.apply``, and undone unless the configuration's probes succeed; the instance lock is the caller's.

    With ``confirm`` what was changed then waits that many seconds for :func:`meshfw.safety.settling.confirm`, and is
    undone by a guard of its own. ``declared`` is what the sources say, where the host can't hold all of it. Where
    nothing has to be changed there is no probe, no record and no guard. ``meanwhile`` is called while probes are asked.

    Raises:
        RolledBackError: a probe that worked before failed after the change, which was undone.
        StateError, BackendError: it couldn't be made sure that the change can be undone; nothing was changed.
        MeshfwError: as ``reconcile.apply`` does; what it had done is undone.
    """
    proofs = shop.proofs(backend)
    if confirm is None and not shop.config.safety.probes:
        return Tried(report=reconcile.apply(backend, ruleset, agree=agree, proofs=proofs))
    trial = _Trial(shop, backend, ruleset if declared is None else declared, confirm=confirm, meanwhile=meanwhile)
    try:
        report = reconcile.apply(backend, ruleset, agree=agree, before=trial.begin, proofs=proofs)
        trial.probe()
    except BaseException as error:
        trial.end_badly(error)
        raise
    if confirm is None:
        trial.end_well()
    warnings = (*report.warnings, *trial.warnings)
    return Tried(report=msgspec.structs.replace(report, warnings=warnings), pending=trial.pending)


class _Trial:
    """One change; ``pending`` is its record as long as one stands."""

    def __init__(
        self,
        shop: Workshop,
        backend: Backend,
        declared: Ruleset,
        *,
        confirm: float | None,
        meanwhile: Callable[[], object],
    ) -> None:
        self.warnings: list[str] = []
        self.pending: Pending | None = None
        self._shop = shop
        self._backend = backend
        self._declared = declared
        self._confirm = confirm
        self._meanwhile = meanwhile
        self._probes: tuple[Probe, ...] = ()
        self._old = Ruleset()
        self._register: Register = register_of(shop.site)

    def begin(self, snapshot: Snapshot) -> None:
        """Make sure that what stands can come back."""
        meaning = snapshot.meaning()
        self._old = meaning.ruleset
        self.warnings += [f"undoing this change would not bring back: {note}" for note in meaning.notes]
        self._probes = self._working()
        if self._confirm is None and not self._probes:
            return
        pending = self._record()
        self._register.write(pending)
        self.pending = pending
        if self._confirm is not None:
            from meshfw.safety.guard import arm

            try:
                arm(pending)
            except BaseException:
                self.end_well()
                raise

    def _working(self) -> tuple[Probe, ...]:
        """The probes that succeed now: one that fails already says nothing about the change."""
        failed = self._failures(self._shop.config.safety.probes)
        self.warnings += [f"not asked after the change, since it fails before it already: {item}" for item in failed]
        bad = {item.probe for item in failed}
        return tuple(probe for probe in self._shop.config.safety.probes if probe not in bad)

    def _failures(self, probes: tuple[Probe, ...]) -> tuple[Failure, ...]:
        if not probes:
            return ()
        from meshfw.safety.probing import failures  # with sockets and threads, which an idle apply doesn't load

        return failures(self._shop.config.safety, probes, self._shop.site.netns, meanwhile=self._meanwhile)

    def _record(self) -> Pending:
        site, config, now = self._shop.site, self._shop.config, time.time()
        seconds = config.safety.longest + (_SPARE if self._confirm is None else self._confirm)
        return Pending(
            token=secrets.token_hex(8),
            owner=site.owner,
            backend=self._backend.name,
            netns=lasting_netns(site.netns),
            boot=self._register.boot,
            begun=now,
            until=now + seconds,
            deadline=clock() + seconds,
            trial=digest(self._declared),
            before=self._document(self._old, now, "stood before a change on trial"),
            after=self._document(self._declared, now, "confirmed"),
            plugins=config.plugins,
            sources=tuple(table.type for table in config.sources if table.type not in _BUILT_IN),
            options=config.options,
            keep=config.history.keep,
        )

    def _document(self, ruleset: Ruleset, now: float, reason: str) -> str:
        site = self._shop.site
        state = State(
            owner=site.owner, backend=self._backend.name, netns=site.netns, ruleset=ruleset, time=now, reason=reason
        )
        return format_state(state, site.language).decode()

    def probe(self) -> None:
        """RolledBackError where a probe that worked before fails now."""
        failed = self._failures(self._probes) if self.pending is not None else ()
        if failed:
            raise RolledBackError([str(item) for item in failed])

    def end_well(self) -> None:
        """Nothing has to be undone."""
        if self.pending is not None:
            self._register.remove()
            self.pending = None

    def end_badly(self, error: BaseException) -> None:
        """Undo what was done; where that fails, say so, and leave it to the guard or the next command."""
        if self.pending is None:
            return
        try:
            put_back(self._backend, self._old)
            reason = "a probe failed" if isinstance(error, RolledBackError) else "it failed, or was interrupted"
            settled(self._register, self.pending, reason, language=self._shop.language)
        except MeshfwError as failed:
            again = "it is tried again by the next command, or by the agent"
            if self._confirm is None:
                self._hurry(self.pending)
            else:
                again = f"it is tried again at {at(self.pending.until)}"
            raise BackendError(f"{error}\n  and that couldn't be undone: {failed}", remedy=again) from error

    def _hurry(self, pending: Pending) -> None:
        """Have whoever comes next undo it, since no guard does: not only when its time would have been over."""
        with suppress(StateError):  # then it's overdue when it is
            self._register.write(msgspec.structs.replace(pending, until=time.time(), deadline=clock()))
