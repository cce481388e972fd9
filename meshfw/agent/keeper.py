"""A backend kept open and the repairs made through it: under the lock, proven, and cross-checked by a second reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Final

import msgspec

from meshfw import reconcile
from meshfw.backend import Backend, Outcome, Report, Watch
from meshfw.backends.instance import namespace_identity, only_writer
from meshfw.model import Ruleset
from meshfw.plan import Plan
from meshfw.workshop import Workshop

LOCK_TIMEOUT: Final = 10.0
"""Seconds that a repair waits for another meshfw that writes."""


class Repair(msgspec.Struct, frozen=True):
    """What one reconcile did, and how many seconds it took."""

    report: Report
    seconds: float


class Keeper:
    """The backend that a workshop chose, open until it's closed.

    Raises:
        MeshfwError: it can't be used here, or rules of ours stand in another backend.
    """

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.commits = 0
        self._stack = ExitStack()
        self._identity = namespace_identity(shop.site.netns)
        self.backend: Backend = self._stack.enter_context(shop.backend())
        try:
            refusal = shop.elsewhere(self.backend)
            if refusal is not None:
                raise refusal
            self.watch: Watch | None = self.backend.watch()
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Close the backend; the rules stay."""
        self._stack.close()

    def moved(self) -> bool:
        """Whether the network namespace's name now means another one, or none."""
        return namespace_identity(self.shop.site.netns) != self._identity

    def fitted(self, declared: Ruleset) -> Ruleset:
        """The part of the declared rules that the host and the backend can hold."""
        return self.shop.fitted(declared, self.backend)

    def idle(self, ruleset: Ruleset) -> bool:
        """Whether the kernel is known to hold the ruleset still: asks for the fingerprint, reads and locks nothing."""
        return reconcile.idle(self.backend, ruleset) is not None

    def plan(self, ruleset: Ruleset) -> Plan:
        """What a repair would change now."""
        return reconcile.plan(self.backend, ruleset)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which no other meshfw writes for this owner."""
        with only_writer(self.shop.site, timeout=LOCK_TIMEOUT):
            yield

    def repair(self, ruleset: Ruleset) -> Repair:
        """Make the kernel hold the ruleset; to be called in a block of :meth:`alone`."""
        begun = perf_counter()
        report = reconcile.apply(self.backend, ruleset)
        self.commits += report.commits
        if ruleset != Ruleset():
            self.shop.remember(self.backend)
        return Repair(report, perf_counter() - begun)

    def cross_check(self, ruleset: Ruleset, *, lines: Callable[[Plan], tuple[str, ...]]) -> tuple[str, ...]:
        """What a second reader, who knows nothing yet and asks the tools, finds amiss where the first finds nothing.

        Empty where they agree, and where somebody wrote meanwhile, so that nobody can say who is right.
        """
        if not self.idle(ruleset):
            return ()
        with self.shop.backend() as other:
            found = lines(reconcile.plan(other, ruleset))
        return found if self.idle(ruleset) else ()


def changed(report: Report) -> bool:
    """Whether a reconcile wrote."""
    return report.outcome is Outcome.CHANGED
