"""Backends around a backend: they pass everything on, and record, interrupt or falsify it on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from meshfw.backend import (
    Backend,
    Cache,
    Capabilities,
    Committed,
    Fingerprint,
    Narrowing,
    Observed,
    Provable,
    Step,
    Transaction,
    Unsupported,
    Watch,
)
from meshfw.model import Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.snapshot import ListKey

__all__ = ["Falsified", "Interrupted", "Recording", "Wrapped", "transaction_lines", "with_lines"]


class Wrapped:
    """A backend that hands every call to ``inner``, whose cache it shares; subclasses change one thing."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def api_version(self) -> int:
        """The inner backend's."""
        return self.inner.api_version

    @property
    def name(self) -> str:
        """The inner backend's."""
        return self.inner.name

    @property
    def capabilities(self) -> Capabilities:
        """The inner backend's."""
        return self.inner.capabilities

    @property
    def cache(self) -> Cache:
        """The inner backend's."""
        return self.inner.cache

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Passed on."""
        return self.inner.check(ruleset)

    def fingerprint(self) -> Fingerprint | None:
        """Passed on."""
        return self.inner.fingerprint()

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Passed on."""
        return self.inner.observe(keys)

    def compile(self, plan: Plan) -> Transaction:
        """Passed on."""
        return self.inner.compile(plan)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Passed on."""
        return self.inner.commit(transaction, based_on=based_on)

    def digest(self) -> str | None:
        """Passed on; None where the inner one has none."""
        return self.inner.digest() if isinstance(self.inner, Provable) else None

    def moved(self, since: Fingerprint) -> Collection[ListKey] | None:
        """Passed on; None where the inner one can't tell."""
        return self.inner.moved(since) if isinstance(self.inner, Narrowing) else None

    def watch(self) -> Watch | None:
        """Passed on."""
        return self.inner.watch()

    def close(self) -> None:
        """Passed on."""
        self.inner.close()


class Recording(Wrapped):
    """A backend that notes which of its members were called, in order: ``calls`` and ``transactions``."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: list[str] = []
        self.transactions: list[Transaction] = []

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Noted and passed on."""
        self.calls.append("check")
        return self.inner.check(ruleset)

    def fingerprint(self) -> Fingerprint | None:
        """Noted and passed on."""
        self.calls.append("fingerprint")
        return self.inner.fingerprint()

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Noted and passed on."""
        self.calls.append("observe" if keys is None else "observe some")
        return self.inner.observe(keys)

    def compile(self, plan: Plan) -> Transaction:
        """Noted and passed on."""
        self.calls.append("compile")
        return self.inner.compile(plan)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Noted and passed on."""
        self.calls.append("commit")
        self.transactions.append(transaction)
        return self.inner.commit(transaction, based_on=based_on)


class Interrupted(Wrapped):
    """A backend whose first commit is interrupted by what ``before`` and ``after`` do: write, or raise."""

    def __init__(
        self, inner: Backend, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None
    ) -> None:
        super().__init__(inner)
        self._before = before
        self._after = after

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Interrupted once, then passed on."""
        before, self._before = self._before, None
        after, self._after = self._after, None
        if before is not None:
            before()
        committed = self.inner.commit(transaction, based_on=based_on)
        if after is not None:
            after()
        return committed


class Falsified(Wrapped):
    """A backend that commits an edited transaction instead of the one it is given, ``times`` times (None: always)."""

    def __init__(self, inner: Backend, edit: Callable[[Transaction], Transaction], *, times: int | None = 1) -> None:
        super().__init__(inner)
        self._edit = edit
        self._left = times

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Edited, then passed on."""
        if self._left != 0:
            self._left = None if self._left is None else self._left - 1
            transaction = self._edit(transaction)
        return self.inner.commit(transaction, based_on=based_on)


def transaction_lines(transaction: Transaction) -> list[str]:
    """The lines of all its steps' input, in order."""
    return [line for step in transaction.steps for line in _lines(step.input)]


def with_lines(transaction: Transaction, keep: Callable[[int], bool], *, extra: str = "") -> Transaction:
    """The transaction with those lines that ``keep`` says yes to by their index, and ``extra`` behind the last."""
    index = 0
    steps: list[Step] = []
    for step in transaction.steps:
        lines = _lines(step.input)
        kept = [line for at, line in enumerate(lines, index) if keep(at)]
        index += len(lines)
        steps.append(msgspec.structs.replace(step, input="".join(kept)))
    if steps and extra:
        steps[-1] = msgspec.structs.replace(steps[-1], input=f"{steps[-1].input}{extra}\n")
    return msgspec.structs.replace(transaction, steps=tuple(steps))


def _lines(text: str) -> list[str]:
    """Its lines with their ends; a comment may hold what str.splitlines takes for one."""
    return [f"{line}\n" for line in text.split("\n") if line]
