"""Broken backends that write what they shouldn't, or in a way in which they shouldn't."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from meshfw.backend import Committed, Fingerprint, Observed, Step, Transaction
from meshfw.backends.memory import MemoryBackend
from meshfw.errors import BackendError, ConcurrentChangeError
from meshfw.model import Dispatcher, Family, Policy, Rule, Ruleset, SetKey
from meshfw.plan import ListChange, Plan, diff
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot
from meshfw.testing.wrapping import Wrapped

replace = msgspec.structs.replace


class Mutated(Wrapped):
    """A wrapped memory backend."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self.kernel = inner.kernel


def edited(plan: Plan, edit: Callable[[ListChange], ListChange | None]) -> Plan:
    """A plan with every change of a list edited; None leaves one out."""
    changes = (edit(change) for change in plan.lists)
    return replace(plan, lists=tuple(change for change in changes if change is not None))


def with_rules(change: ListChange, rules: tuple[Rule, ...]) -> ListChange:
    """The change as it would be if these were the rules wanted."""
    assert change.new is not None
    new = replace(change.new, rules=rules)
    return ListChange(change.key, change.old, new, (-1,) * len(rules), (-1,) * len(rules))


class LosesTheLastRule(Mutated):
    """Leaves out the last rule of a chain with more than two, and counts its own omission as done."""

    def compile(self, plan: Plan) -> Transaction:
        """Without the last rules."""

        def edit(change: ListChange) -> ListChange:
            return change if len(change.rules) < 3 else with_rules(change, change.rules[:-1])

        return replace(self.inner.compile(edited(plan, edit)), plan=plan)


class ReversesTwoRules(Mutated):
    """Writes the first two rules of a chain the wrong way round, and reads its own writing back turned round."""

    _turned: Collection[ListKey] = ()

    def compile(self, plan: Plan) -> Transaction:
        """With two rules reversed."""
        self._turned = {change.key for change in plan.lists if len(change.rules) > 1}

        def edit(change: ListChange) -> ListChange:
            one, two, *rest = change.rules if len(change.rules) > 1 else (*change.rules, *[Rule()] * 2)
            return change if change.key not in self._turned else with_rules(change, (two, one, *rest))

        return self.inner.compile(edited(plan, edit))

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """With the two turned back, by the instance that turned them."""
        return seen(self.inner.observe(keys), self._turn)

    def _turn(self, held: ObservedList) -> ObservedList:
        if held.key not in self._turned or len(held.rules) < 2:
            return held
        one, two, *rest = held.rules
        return replace(held, rules=(two, one, *rest))


def seen(observed: Observed, edit: Callable[[ObservedList], ObservedList | None]) -> Observed:
    """An observation with every list edited; None leaves one out."""
    lists = {key: edit(held) for key, held in observed.snapshot.lists.items()}
    kept = {key: held for key, held in lists.items() if held is not None}
    return replace(observed, snapshot=replace(observed.snapshot, lists=kept))


class ForgetsDeletes(Mutated):
    """Never deletes a chain, and doesn't look for those that it should have deleted."""

    _gone: Collection[ListKey] = ()

    def compile(self, plan: Plan) -> Transaction:
        """Without the chains that go."""
        self._gone = {change.key for change in plan.lists if change.new is None}
        return replace(self.inner.compile(edited(plan, lambda change: change if change.new else None)), plan=plan)

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Without them, where lists are asked for by name."""
        observed = self.inner.observe(keys)
        return observed if keys is None else seen(observed, lambda held: None if held.key in self._gone else held)


class IgnoresIPv6(Mutated):
    """Writes IPv4 alone, and reads IPv6 as whatever was asked for last."""

    _wanted = Ruleset()

    def compile(self, plan: Plan) -> Transaction:
        """Without the other family."""
        self._wanted = plan.desired
        sets = tuple(change for change in plan.sets if change.key[0] is Family.IPV4)
        return self.inner.compile(replace(edited(plan, _ipv4), sets=sets, rebuilt={}))

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """With the other family as if it were there."""
        observed = self.inner.observe(keys)
        wanted = diff(Snapshot(), self._wanted)
        lists: dict[ListKey, ObservedList] = dict(observed.snapshot.lists)
        for change in wanted.lists:
            if change.key.family is Family.IPV6 and (keys is None or change.key in keys):
                lists[change.key] = pretended(change)
        sets = dict(observed.snapshot.sets)
        sets |= {change.key: change.new for change in wanted.sets if change.new and change.key[0] is Family.IPV6}
        return replace(observed, snapshot=Snapshot(lists, sets))


def _ipv4(change: ListChange) -> ListChange | None:
    return change if change.key.family is Family.IPV4 else None


def pretended(change: ListChange) -> ObservedList:
    """What a list would be read as after a change, if all went well."""
    policies = frozenset({change.new.policy}) if isinstance(change.new, Dispatcher) else frozenset[Policy]()
    return ObservedList(change.key, tuple(ObservedRule(rule) for rule in change.rules), policies)


class LeavesTheElements(Mutated):
    """Never takes an element out of a set, and says so to nobody."""

    def compile(self, plan: Plan) -> Transaction:
        """Without the elements that go."""
        sets = tuple(replace(change, removed=()) for change in plan.sets)
        return replace(self.inner.compile(replace(plan, sets=sets)), plan=plan)


class VaguePolicies(Mutated):
    """Never changes a policy, and takes any for any."""

    def compile(self, plan: Plan) -> Transaction:
        """Without the lines that set a policy."""
        made = self.inner.compile(plan)
        steps = tuple(replace(step, input=step.input.replace(" DROP [0:0]", " ACCEPT [0:0]")) for step in made.steps)
        return replace(made, steps=steps)

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """With every policy at once."""
        return seen(self.inner.observe(keys), _any_policy)


def _any_policy(held: ObservedList) -> ObservedList:
    return replace(held, policies=held.policies and frozenset(Policy))


class ResetsCounters(Mutated):
    """Writes whole chains again, with counters that begin at zero."""

    def compile(self, plan: Plan) -> Transaction:
        """With every rule new."""

        def edit(change: ListChange) -> ListChange:
            return change if change.new is None else with_rules(change, change.rules)

        return self.inner.compile(edited(plan, edit))


class LeavesAChain(Mutated):
    """Keeps an empty chain for the next time when everything goes, and never shows it."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """With a chain left in the end."""
        committed = self.inner.commit(transaction, based_on=based_on)
        if transaction.plan.desired or ":meshfw:spare" in self.kernel.text(Family.IPV4):
            return committed
        self.kernel.write(Family.IPV4, f"{self.kernel.text(Family.IPV4)}*security\n:meshfw:spare - [0:0]\nCOMMIT\n")
        return replace(committed, fingerprint=self.fingerprint())

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Without that chain."""
        return seen(self.inner.observe(keys), lambda held: None if "spare" in str(held.key) else held)


class TidiesUpForOthers(Mutated):
    """Removes rules of others that it takes for useless."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """And an edit of what isn't ours."""
        committed = self.inner.commit(transaction, based_on=based_on)
        lines = self.kernel.text(Family.IPV4).splitlines(keepends=True)
        kept = [line for line in lines if "-A DOCKER" not in line]
        if kept == lines:
            return committed
        self.kernel.write(Family.IPV4, "".join(kept))
        return replace(committed, fingerprint=self.fingerprint())


class PushesAhead(Mutated):
    """Moves its own chains before those of every other owner, whenever it looks."""

    def fingerprint(self) -> Fingerprint | None:
        """After a push."""
        text = self.kernel.text(Family.IPV4)
        if ":neighbour" in text and ":meshfw" in text:
            self.kernel.write(Family.IPV4, text)
        return self.inner.fingerprint()


class WritesAgain(Mutated):
    """Writes what is there once more whenever it reads everything."""

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """After a write."""
        if keys is None:
            self.kernel.write(Family.IPV4, self.kernel.text(Family.IPV4))
        return self.inner.observe(keys)


class CommitsInHalves(Mutated):
    """Commits one family after the other, and leaves the first where the second fails."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Step by step."""
        committed = Committed(based_on, exclusive=True)
        for step in transaction.steps or (Step(("memory-restore", "ipv4")),):
            committed = self.inner.commit(replace(transaction, steps=(step,)), based_on=committed.fingerprint)
        return committed


class RetriesBlindly(Mutated):
    """Runs a failed transaction's first family once more before the next one."""

    _failed: Step | None = None

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """After what had failed."""
        failed, self._failed = self._failed, None
        if failed is not None:
            again = self.inner.commit(replace(transaction, steps=(failed,)), based_on=None)
            return self.inner.commit(transaction, based_on=again.fingerprint)
        try:
            return self.inner.commit(transaction, based_on=based_on)
        except ConcurrentChangeError:
            raise
        except BackendError:
            self._failed = transaction.steps[0] if transaction.steps else None
            raise


class RunsThePlan(Mutated):
    """Prints one thing and runs another: what it commits is made of the plan, not of the text that was shown."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Of the plan."""
        return self.inner.commit(self.inner.compile(transaction.plan), based_on=based_on)


class TrustsItself(Mutated):
    """Proves a commit by what it sent: the lists that it touched are read as they were planned."""

    _sent: Transaction | None = None

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Noted."""
        self._sent = transaction
        return self.inner.commit(transaction, based_on=based_on)

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """As planned, where lists are asked for by name."""
        observed = self.inner.observe(keys)
        if keys is None or self._sent is None:
            return observed
        planned = {change.key: pretended(change) for change in self._sent.plan.lists if change.new is not None}
        sets = {change.key: change.new for change in self._sent.plan.sets if change.new is not None}
        return replace(observed, snapshot=Snapshot(planned, sets))


class SwallowsErrors(Mutated):
    """Says that a commit which failed has worked."""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Always well."""
        try:
            return self.inner.commit(transaction, based_on=based_on)
        except BackendError:
            return Committed(self.fingerprint(), exclusive=True)


class TakesTwoSteps(Mutated):
    """Makes sets in one commit and leaves the rest for the next."""

    def compile(self, plan: Plan) -> Transaction:
        """The sets, if there are any."""
        coming = tuple(change for change in plan.sets if change.new is not None and change.old is None)
        return self.inner.compile(replace(plan, sets=coming, lists=()) if coming and not plan.rebuilt else plan)
