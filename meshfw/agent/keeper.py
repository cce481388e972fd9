"""A backend kept open and the repairs made through it: under the lock, proven, and cross-checked by a second reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Final

import msgspec

from meshfw import reconcile
from meshfw.agent.past import AGENT
from meshfw.applying import noted
from meshfw.backend import Backend, Outcome, Report, Watch
from meshfw.backends.instance import namespace_identity, only_writer
from meshfw.model import Ruleset
from meshfw.plan import Plan
from meshfw.proofs import Proof
from meshfw.safety.moving import require_whole
from meshfw.safety.pending import Pending, at, on_trial, register_of
from meshfw.safety.settling import after_restart, find_pending, settle
from meshfw.safety.trial import guarded_apply
from meshfw.states import parse_state
from meshfw.workshop import Workshop

LOCK_TIMEOUT: Final = 10.0
"""Seconds that a repair waits for another meshfw that writes."""


class Keeping(msgspec.Struct, frozen=True):
    """A ruleset to keep: as declared, and the part of it that the host and the backend can hold."""

    declared: Ruleset
    fitted: Ruleset


class Repair(msgspec.Struct, frozen=True):
    """What one reconcile did, and how many seconds it took."""

    report: Report
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether it wrote."""
        return self.report.outcome is Outcome.CHANGED


class Keeper:
    """The backend that a workshop chose, open until it's closed; ``commits`` counts the transactions made through it.

    Raises:
        MeshfwError: it can't be used here, rules of ours stand in another backend, or are being moved to one.
    """

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.commits = 0
        self._other: Proof | None = None
        self._begun = False  # whether it was alone once
        self._stack = ExitStack()
        self._identity = namespace_identity(shop.site.netns)
        try:
            require_whole(shop)
            self.backend: Backend = self._stack.enter_context(shop.backend())
            refusal = shop.elsewhere(self.backend)
            if refusal is not None:
                raise refusal
            self.watch: Watch | None = self.backend.watch()
        except BaseException:
            self._stack.close()
            shop.look_again()
            raise

    def close(self) -> None:
        """Close the backend; the rules stay."""
        self._stack.close()

    def moved(self) -> bool:
        """Whether the network namespace's name now means another one, or none."""
        return namespace_identity(self.shop.site.netns) != self._identity

    def keeping(self, declared: Ruleset) -> Keeping:
        """What of the declared rules is to be kept here.

        Raises:
            ConfigError, UnsupportedError: the host or the backend can't hold them.
        """
        fitted = self.shop.fitted(declared, self.backend)
        reconcile.checked(self.backend, fitted)
        return Keeping(declared, fitted)

    def idle(self, kept: Keeping) -> Report | None:
        """The report of a kernel that is known to hold the ruleset still, None of any other.

        Asks for the fingerprint, reads and locks nothing.
        """
        return reconcile.idle(self.backend, kept.fitted)

    def plan(self, kept: Keeping) -> Plan:
        """What a repair would change now."""
        return reconcile.plan(self.backend, kept.fitted)

    # --- writing ---

    @contextmanager
    def alone(self, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
        """A block in which no other meshfw writes for this owner; LockError when one does for so many seconds."""
        with only_writer(self.shop.site, timeout=timeout):
            if not self._begun:
                require_whole(self.shop, alone=True)
                self._begun = True
            yield

    def on_trial(self) -> bool:
        """Whether somebody's change may be on trial; asks the file system alone."""
        return on_trial(self.shop.site)

    def pending(self) -> Pending | None:
        """The change on trial, read without the lock: whoever tries one may hold that while his probes are asked."""
        return find_pending(register_of(self.shop.site), self.shop.warnings)

    def tried(self, pending: Pending) -> Ruleset:
        """The declared rules of a change on trial; StateError where they can't be read."""
        return parse_state(pending.after.encode(), self.shop.language, owner=pending.owner).ruleset

    def settle(self) -> Pending | None:
        """Undo a change on trial whose time is over; the one whose time isn't. In a block of :meth:`alone`."""
        return settle(self.shop.site, self.shop.warnings)

    def after_restart(self) -> None:
        """Take note of changes on trial that a restart of the machine ended. In a block of :meth:`alone`."""
        after_restart(self.shop.site, self.shop.warnings)

    def apply(self, kept: Keeping, *, record: bool, meanwhile: Callable[[], object]) -> Repair:
        """Put in place what is newly wanted: undone where the probes fail after it. In a block of :meth:`alone`.

        Raises:
            RolledBackError: a probe that worked before failed after the change, which was undone.
            MeshfwError: as :func:`meshfw.reconcile.apply`.
        """
        begun = perf_counter()
        report = guarded_apply(self.shop, self.backend, kept.fitted, declared=kept.declared, meanwhile=meanwhile).report
        self.commits += report.commits
        if record:
            noted(self.shop, self.backend, kept.declared, report, reason=AGENT)
        else:
            self.shop.remember(self.backend)
        return Repair(report, perf_counter() - begun)

    def overruled(self, kept: Keeping) -> bool:
        """Whether another meshfw has put other rules in place, which stand; told once of each.

        Its proof says so where no state can be kept. In a block of :meth:`alone`.
        """

        def wanted() -> Ruleset:
            return reconcile.checked(self.backend, kept.fitted)[0]

        before, self._other = self._other, self.shop.proofs(self.backend).other(self.backend, wanted)
        return self._other is not None and self._other != before

    def repair(self, kept: Keeping) -> Repair:
        """Put back what somebody has changed. In a block of :meth:`alone`."""
        begun = perf_counter()
        report = reconcile.apply(self.backend, kept.fitted)
        self.commits += report.commits
        return Repair(report, perf_counter() - begun)

    def clean(self) -> str:
        """Take all of ours away; why not, where a change is on trial. In a block of :meth:`alone`."""
        pending = self.settle()
        if pending is not None:  # its guard would bring back what stood before
            return f"a change is on trial until {at(pending.until)}"
        reconcile.apply(self.backend, Ruleset())
        return ""

    # --- cross-checking ---

    def cross_check(self, kept: Keeping, *, lines: Callable[[Plan], tuple[str, ...]]) -> tuple[str, ...] | None:
        """What a second reader, who knows nothing yet and asks the tools, finds amiss where the first finds nothing.

        None where somebody wrote meanwhile, so that nobody can say who is right.
        """
        if not self.backend.capabilities.kernel or self.idle(kept) is None:
            return None
        with self.shop.backend() as other:
            found = lines(reconcile.plan(other, kept.fitted))
        return found if self.idle(kept) is not None else None
