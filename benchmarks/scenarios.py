"""The scenarios, as a table: what the kernel holds, what changed, and what is then wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from meshfw.model import DROP, Chain, Family, Network, Rule, Ruleset, Set, Table

Edit = Callable[[Ruleset], Ruleset]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One situation in which a ruleset is applied.

    ``synced``: the mesh ruleset was applied before by the same backend instance; else the namespace is empty and the
    instance new. ``outside`` is what somebody else, a second instance, then makes of it. ``wanted`` is the ruleset
    whose apply is measured, made from the mesh ruleset. ``writes`` is the number of families that the apply changes,
    ``reads`` that of those whose rules may have to be read as text before, because somebody else wrote them.
    Where one apply is too short, up to ``loops`` make one sample.
    """

    name: str
    title: str
    writes: int
    reads: int = 0
    synced: bool = True
    outside: Edit | None = None
    wanted: Edit
    loops: int = 1

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.writes

    def processes(self, per_family: int) -> int:
        """The most that a backend may spend which takes so many for each family that it reads, or writes."""
        return per_family * (self.reads + self.writes)


# --- edits ---------------------------------------------------------------------------------------------------

_NEW_RULE: Final = Rule(source=Network.parse("198.51.100.7"), target=DROP)
_NEW_ELEMENT: Final = "10.3.0.1"


def _same(ruleset: Ruleset) -> Ruleset:
    return ruleset


def edited_chain(ruleset: Ruleset) -> Chain:
    """The chain that the scenarios edit: the longest of IPv4's table filter."""
    chains = [chain for chain in ruleset.chains if (chain.family, chain.table) == (Family.IPV4, Table.FILTER)]
    return max(chains, key=lambda chain: len(chain.rules))


def _with_rules(ruleset: Ruleset, edit: Callable[[list[Rule], int], None]) -> Ruleset:
    """The ruleset with an edit of that chain, which gets its rules and their middle."""
    edited = edited_chain(ruleset)
    rules = list(edited.rules)
    edit(rules, len(rules) // 2)
    chain = msgspec.structs.replace(edited, rules=tuple(rules))
    chains = tuple(chain if old is edited else old for old in ruleset.chains)
    return msgspec.structs.replace(ruleset, chains=chains)


def _appended(ruleset: Ruleset) -> Ruleset:
    return _with_rules(ruleset, lambda rules, _: rules.append(_NEW_RULE))


def _inserted(ruleset: Ruleset) -> Ruleset:
    return _with_rules(ruleset, lambda rules, middle: rules.insert(middle, _NEW_RULE))


def _deleted(ruleset: Ruleset) -> Ruleset:
    return _with_rules(ruleset, lambda rules, middle: rules.__delitem__(middle))


def _swapped(ruleset: Ruleset) -> Ruleset:
    def swap(rules: list[Rule], middle: int) -> None:
        rules[middle - 1], rules[middle] = rules[middle], rules[middle - 1]

    return _with_rules(ruleset, swap)


def _one_element(ruleset: Ruleset) -> Ruleset:
    old = next(entry for entry in ruleset.sets if entry.family is Family.IPV4)
    texts = [old.text(low, high) for low, high in old.elements]
    new = Set.of(old.family, old.name, [*texts, _NEW_ELEMENT], type=old.type)
    return msgspec.structs.replace(ruleset, sets=tuple(new if entry is old else entry for entry in ruleset.sets))


def _nothing(_ruleset: Ruleset) -> Ruleset:
    return Ruleset()


SCENARIOS: Final = (
    Scenario(name="first", title="first sync", writes=2, synced=False, wanted=_same),
    Scenario(name="idle", title="idle", writes=0, wanted=_same, loops=1000),
    Scenario(name="end", title="one rule at the end", writes=1, wanted=_appended),
    Scenario(name="middle", title="one rule in the middle", writes=1, wanted=_inserted),
    Scenario(name="delete", title="one rule deleted", writes=1, wanted=_deleted),
    Scenario(
        name="repair", title="one rule deleted behind our back", writes=1, reads=1, outside=_deleted, wanted=_same
    ),
    Scenario(name="order", title="two rules swapped", writes=1, wanted=_swapped),
    Scenario(name="element", title="one set element", writes=1, wanted=_one_element),
    Scenario(name="clean", title="clean", writes=2, wanted=_nothing),
)
"""All scenarios, in the order in which they are shown; an empty kernel, as before a first sync, needs no reading."""
BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}
ONE_CHANGE: Final = tuple(scenario.name for scenario in SCENARIOS if (scenario.writes, scenario.reads) == (1, 0))
"""The scenarios in which one thing of one family changes, and nobody else wrote."""
