"""A snapshot: what a kernel holds of one owner's firewall, in the model's terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshfw.errors import ModelError
from meshfw.model import (
    Attachment,
    Chain,
    ChainKey,
    Dispatcher,
    DispatcherKey,
    Family,
    Goto,
    Jump,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetKey,
    set_references,
)

ListKey = ChainKey | DispatcherKey
"""What names an ordered list of rules in a kernel."""


class ObservedRule(msgspec.Struct, frozen=True, gc=False):
    """A rule as it stands in the kernel.

    ``rule`` is None for one that no typed rule means: it equals nothing and is shown as ``text``. ``text`` is the
    backend's own writing of the rule, empty where it didn't learn it; ``handle`` is the backend's name for it.
    """

    rule: Rule | None
    text: str = ""
    packets: int = 0
    bytes: int = 0
    handle: int = 0


class ObservedList(msgspec.Struct, frozen=True, gc=False):
    """A chain or dispatcher as it stands in the kernel.

    ``policies`` are those a dispatcher's may be taken for (a backend that can't tell ``return`` from ``accept`` names
    both). ``declared`` is the model's value it is known to equal, for comparison by identity. ``faults`` say what else
    is not as it should be around its rules, such as a jump to it that is missing; ``backing`` is the backend's own note
    of how it stands there, which nobody else reads.
    """

    key: ListKey
    rules: tuple[ObservedRule, ...] = ()
    policies: frozenset[Policy] = frozenset()
    declared: Chain | Dispatcher | None = None
    faults: tuple[str, ...] = ()
    backing: Any = None

    @property
    def meanings(self) -> tuple[Rule | None, ...]:
        """What its rules mean, one by one; None for a rule that no typed one means."""
        return tuple([held.rule for held in self.rules]) if self.declared is None else self.declared.rules


class Meaning(msgspec.Struct, frozen=True):
    """The ruleset that a snapshot means; ``notes`` name what stands there and no ruleset can say."""

    ruleset: Ruleset
    notes: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """Everything of one owner that a kernel holds.

    ``broken`` names families whose tables are in a state that edits can't mend (switched off, or holding objects
    that aren't meshfw's under its name), with the reason: the backend rebuilds them. ``strangers`` are lists that
    somebody else made under a name of the owner's, with where they stand: nobody touches them.
    """

    lists: Mapping[ListKey, ObservedList] = {}
    sets: Mapping[SetKey, Set] = {}
    broken: Mapping[Family, str] = {}
    strangers: Mapping[ListKey, str] = {}

    def __bool__(self) -> bool:
        return bool(self.lists or self.sets or self.broken)

    @property
    def rules(self) -> int:
        """How many rules stand in chains, dispatchers left out."""
        return sum(len(held.rules) for key, held in self.lists.items() if isinstance(key, ChainKey))

    def ruleset(self) -> Ruleset:
        """The ruleset that it means: the one to which no change leads, where nothing is broken or strange."""
        return self.meaning().ruleset

    def meaning(self) -> Meaning:
        """The ruleset that it means, and what of it no ruleset can say.

        Each rule of a dispatcher becomes an attachment, ranked by its position. A policy that the backend can't tell
        from ``return`` is read as that one.
        """
        return _Reading(self).meaning()

    def updated(self, part: Snapshot, keys: Iterable[ListKey | SetKey]) -> Snapshot:
        """This snapshot with the named lists and sets as ``part`` saw them; one that ``part`` lacks is gone."""
        keys = tuple(keys)
        lists: dict[Any, ObservedList] = dict(self.lists)
        sets = dict(self.sets)
        for key in keys:
            if isinstance(key, tuple):
                _replace(sets, key, part.sets.get(key))
            else:
                _replace(lists, key, part.lists.get(key))
        seen = set(keys)
        strangers = {key: where for key, where in self.strangers.items() if key not in seen}
        return Snapshot(lists, sets, part.broken, {**strangers, **part.strangers})

    def adopted(self, ruleset: Ruleset) -> Snapshot:
        """This snapshot, known to mean the ruleset, with the ruleset's own values: compared by identity from now on."""
        lists: dict[ListKey, ObservedList] = dict(self.lists)
        wanted: list[Chain | Dispatcher] = [*ruleset.chains, *ruleset.dispatchers()]
        for new in wanted:
            held = lists[new.key]
            if held.declared is not new:
                lists[new.key] = msgspec.structs.replace(held, rules=_same_rules(held.rules, new.rules), declared=new)
        sets = {(entry.family, entry.name): entry for entry in ruleset.sets}
        return Snapshot(lists, sets, self.broken, self.strangers)


def _same_rules(held: tuple[ObservedRule, ...], rules: tuple[Rule, ...]) -> tuple[ObservedRule, ...]:
    return tuple(
        old if old.rule is rule else ObservedRule(rule, old.text, old.packets, old.bytes, old.handle)
        for old, rule in zip(held, rules, strict=True)
    )


def _replace(held: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value


# --- the ruleset of a snapshot -----------------------------------------------------------------------------


class _Reading:
    """A snapshot being read as a ruleset; what can't be part of one is left out and noted."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._notes = [f"the {family} tables are broken: {reason}" for family, reason in snapshot.broken.items()]

    def meaning(self) -> Meaning:
        held = self._snapshot.lists.values()
        chains = tuple(self._chain(item.key, item) for item in held if isinstance(item.key, ChainKey))
        attachments = tuple(
            attachment
            for item in held
            if isinstance(item.key, DispatcherKey)
            for attachment in self._attachments(item.key, item)
        )
        for item in held:
            self._notes += [f"{item.key}: {fault}" for fault in item.faults]
        try:
            ruleset = Ruleset(chains=chains, sets=tuple(self._snapshot.sets.values()), attachments=attachments)
        except ModelError as error:  # no kernel takes such a thing from anybody; but then, no ruleset either
            return Meaning(Ruleset(), (*self._notes, f"what stands there makes no ruleset: {error}"))
        return Meaning(ruleset, tuple(self._notes))

    def _chain(self, key: ChainKey, held: ObservedList) -> Chain:
        rules = []
        for index, entry in enumerate(held.rules, 1):
            rule = self._typed(key, index, entry)
            if rule is None:
                continue
            try:
                Chain(family=key.family, table=key.table, name=key.name, rules=(rule,))
            except ModelError as error:
                self._leave_out(key, index, error.reason)
            else:
                rules.append(rule)
        return Chain(family=key.family, table=key.table, name=key.name, rules=tuple(rules))

    def _attachments(self, key: DispatcherKey, held: ObservedList) -> list[Attachment]:
        policy = Policy.RETURN if len(held.policies) != 1 else next(iter(held.policies))
        found = []
        for index, entry in enumerate(held.rules, 1):
            rule = self._typed(key, index, entry)
            if rule is None:
                continue
            if not isinstance(rule.target, Jump):
                self._leave_out(key, index, "it leads into no chain")
                continue
            when = msgspec.structs.replace(rule, target=None)
            try:
                attachment = Attachment(
                    family=key.family,
                    table=key.table,
                    hook=key.hook,
                    place=key.place,
                    chain=rule.target.chain,
                    rank=index,
                    policy=policy if when == Rule() else Policy.RETURN,
                    when=when,
                )
            except ModelError as error:
                self._leave_out(key, index, error.reason)
            else:
                found.append(attachment)
        if policy is not Policy.RETURN and all(item.policy is Policy.RETURN for item in found):
            self._notes.append(f"{key}: nothing that leads into a chain for every packet states its policy {policy}")
        return found

    def _typed(self, key: ListKey, index: int, entry: ObservedRule) -> Rule | None:
        """The rule, where it is one and all that it names is there."""
        rule = entry.rule
        if rule is None:
            self._leave_out(key, index, f"it is no rule of meshfw: {entry.text}")
            return None
        target = rule.target
        if isinstance(target, Jump | Goto):
            chain = ChainKey(key.family, key.table, target.chain)
            if chain not in self._snapshot.lists:
                self._leave_out(key, index, f"{target.label}: there is no such chain of ours")
                return None
        for reference, _ in set_references(rule):
            if (key.family, reference.name) not in self._snapshot.sets:
                self._leave_out(key, index, f"there is no set {reference.name}")
                return None
        return rule

    def _leave_out(self, key: ListKey, index: int, reason: str) -> None:
        self._notes.append(f"{key}, rule {index} is left out: {reason}")
