"""A snapshot: what a kernel holds of one owner's firewall, in the model's terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshfw.model import (
    Chain,
    ChainKey,
    Dispatcher,
    DispatcherKey,
    Family,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetKey,
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
