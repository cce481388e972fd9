"""Broken backends that don't tell the truth about what is there, what they did, or what they can."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from meshfw.backend import Capabilities, Committed, Fingerprint, Observed, Step, Transaction, Unsupported
from meshfw.backends.memory import MemoryBackend
from meshfw.kernel.command import run
from meshfw.model import Family, OpaqueMatch, OpaqueTarget, Rule, Ruleset, SetKey
from meshfw.plan import ListChange, Plan, diff
from meshfw.snapshot import ListKey, Snapshot
from meshfw.testing.broken_writers import Mutated, edited, replace, seen, with_rules


class FrozenFingerprint(Mutated):
    """Has the fingerprint of the first write for ever."""

    def fingerprint(self) -> Fingerprint | None:
        """Always the same."""
        return Fingerprint(("frozen",))

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """With that fingerprint."""
        return replace(self.inner.observe(keys), fingerprint=self.fingerprint())

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """With that fingerprint."""
        self.inner.commit(transaction, based_on=None)
        return Committed(self.fingerprint(), exclusive=True)


class MuteFingerprint(Mutated):
    """Can't tell its fingerprint when asked, and gives one with every reading and commit."""

    def fingerprint(self) -> Fingerprint | None:
        """None."""
        return None


class DigestOfNothing(Mutated):
    """Tells later processes the same, whatever stands in the kernel."""

    def digest(self) -> str | None:
        """Always the same."""
        return "nothing"


class NamesTheFirstAlone(Mutated):
    """Says that whoever changed something changed the first list."""

    def moved(self, since: Fingerprint) -> Collection[ListKey] | None:
        """The first list there is."""
        return [*self.inner.observe().snapshot.lists][:1]


class StaleFingerprint(Mutated):
    """Answers a commit with the fingerprint from before it."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """With the old fingerprint."""
        return replace(self.inner.commit(transaction, based_on=based_on), fingerprint=based_on)


class ClaimsExclusive(Mutated):
    """Commits over whatever somebody else wrote, and says that nobody did."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Never refused."""
        self.inner.commit(transaction, based_on=None)
        return Committed(self.fingerprint(), exclusive=True)


class SkipsTheComparison(Mutated):
    """Commits over what somebody else wrote, and reads only its own lists afterwards."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Compiled again for what is there now, so that it never fails."""
        now = self.inner.observe()
        touched = {change.key for change in transaction.plan.lists}
        fresh = diff(now.snapshot, transaction.plan.desired)
        part = replace(fresh, lists=tuple(change for change in fresh.lists if change.key in touched), sets=())
        self.inner.commit(self.inner.compile(part), based_on=now.fingerprint)
        return Committed(self.fingerprint(), exclusive=True)


class SpawnsAProcess(Mutated):
    """Asks a program for its fingerprint."""

    def fingerprint(self) -> Fingerprint | None:
        """By way of a process."""
        run(("true",), timeout=10)
        return self.inner.fingerprint()


class ForgetsTheCache(Mutated):
    """Can't tell what it has seen: each question gets another fingerprint."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self._numbers = itertools.count()

    def fingerprint(self) -> Fingerprint | None:
        """Never the same."""
        return Fingerprint((next(self._numbers),))


class PrintsATime(Mutated):
    """Heads its transactions with a number that differs each time."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self._numbers = itertools.count(id(self))

    def compile(self, plan: Plan) -> Transaction:
        """With a comment in front."""
        made = self.inner.compile(plan)
        number = next(self._numbers)
        return replace(made, steps=tuple(replace(step, input=f"# {number}\n{step.input}") for step in made.steps))


class LiesFromItsCache(Mutated):
    """Reads the kernel once, and remembers what it wrote itself."""

    _known: Observed | None = None

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Noted."""
        committed = self.inner.commit(transaction, based_on=None)
        self._known = self.inner.observe()
        return committed

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """As remembered, with a fresh fingerprint."""
        if self._known is None:
            self._known = self.inner.observe()
        return replace(self._known, fingerprint=self.inner.fingerprint())


class ReadsHalfTheRules(Mutated):
    """Reads a chain that is asked for by name without its last rule, unless it has just written it."""

    _wrote: Collection[ListKey | SetKey] = ()

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Noted."""
        self._wrote = transaction.plan.keys
        return self.inner.commit(transaction, based_on=based_on)

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Without the last rules."""
        wrote, self._wrote = self._wrote, ()
        observed = self.inner.observe(keys)
        if keys is None or set(keys) == set(wrote):
            return observed
        return seen(observed, lambda held: replace(held, rules=held.rules[:-1]))


class AdoptsNothing(Mutated):
    """A new instance sees nothing until it has written."""

    _wrote = False

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Over what was there."""
        forget = tuple(Step(("memory-restore", family.value), "forget meshfw\nforget neighbour\n") for family in Family)
        if not self._wrote:
            transaction = replace(transaction, steps=(*forget, *transaction.steps))
        self._wrote = True
        return self.inner.commit(transaction, based_on=based_on)

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Nothing at first."""
        observed = self.inner.observe(keys)
        return observed if self._wrote else replace(observed, snapshot=Snapshot())


class DropsWhatItCannotSay(Mutated):
    """Says that it can't hold opaque rules, refuses none, and writes them without the part that it doesn't know."""

    @property
    def capabilities(self) -> Capabilities:
        """Without opaque rules."""
        return replace(self.inner.capabilities, opaque=False)

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Nothing to object."""
        return ()

    def compile(self, plan: Plan) -> Transaction:
        """With wider rules than were asked for."""

        def edit(change: ListChange) -> ListChange:
            rules = tuple(_plain(rule) for rule in change.rules)
            return change if rules == change.rules else with_rules(change, rules)

        return self.inner.compile(edited(plan, edit))


def _plain(rule: Rule) -> Rule:
    kept = tuple(match for match in rule.matches if not isinstance(match, OpaqueMatch))
    return replace(rule, matches=kept, target=None if isinstance(rule.target, OpaqueTarget) else rule.target)


class RefusesTooLate(Mutated):
    """Reads and writes first, and then finds that it can't."""

    @property
    def capabilities(self) -> Capabilities:
        """Without opaque rules."""
        return replace(self.inner.capabilities, opaque=False)

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """After a write."""
        for chain in ruleset.chains:
            for index, rule in enumerate(chain.rules, 1):
                if _plain(rule) != rule:
                    self.kernel.write(chain.family, self.kernel.text(chain.family))
                    return (Unsupported(f"{chain.key}, rule {index}", "it is opaque"),)
        return ()


class CleansUpAtClose(Mutated):
    """Takes its rules away when it's closed."""

    def close(self) -> None:
        """And everything goes."""
        for family in Family:
            kept = [line for line in self.kernel.text(family).splitlines(keepends=True) if "meshfw" not in line]
            self.kernel.write(family, "".join(kept))
        self.inner.close()


class HidesDamage(Mutated):
    """Never reports that a family is in a state that edits can't mend."""

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Without what is broken."""
        observed = self.inner.observe(keys)
        return replace(observed, snapshot=replace(observed.snapshot, broken={}))


class RemembersTheOld(Mutated):
    """Keeps what it has read until a commit was proven, whatever happened in between."""

    _known: Observed | None = None

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """As before, with a fresh fingerprint, unless a part is asked for."""
        if keys is not None:
            self._known = None
            return self.inner.observe(keys)
        if self._known is None:
            self._known = self.inner.observe()
        return replace(self._known, fingerprint=self.inner.fingerprint())
