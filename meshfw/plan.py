"""A plan: the smallest ordered edits that lead from a snapshot to a ruleset, as data, text and JSON.

Rules are compared by meaning. Within a chain the rules that may stay are a longest common subsequence, found
as a longest increasing subsequence of the positions of equal rules, so the number of edits is the least there is.
How a backend carries the edits out (in place, or by rewriting part of a chain) is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec

from meshfw.alignment import align, longest_run, shared_ends
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
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot


class ListChange(msgspec.Struct, frozen=True):
    """The edits of one chain or dispatcher.

    ``new`` is what it shall be, None where it goes; ``old`` what it is, None where it is made. For each rule of ``new``
    ``kept`` has the index of the old rule that stays in its place, or -1, and ``source`` the index of the equal
    old rule whose counters belong to it, or -1. ``ends`` is how many rules at least stay at the head and at the tail,
    so that nobody need look at thousands of them for one that changes.
    """

    key: ListKey
    old: ObservedList | None
    new: Chain | Dispatcher | None
    kept: tuple[int, ...] = ()
    source: tuple[int, ...] = ()
    ends: tuple[int, int] = (0, 0)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules it shall have."""
        return self.new.rules if self.new is not None else ()

    @property
    def policy(self) -> Policy | None:
        """The policy that a dispatcher shall get; None where it stays or there is none."""
        if not isinstance(self.new, Dispatcher) or (self.old and self.new.policy in self.old.policies):
            return None
        return self.new.policy

    @property
    def dropped(self) -> tuple[int, ...]:
        """The indices of old rules that don't stay in place."""
        return _dropped(len(self.old.rules) if self.old is not None else 0, self.kept, self.ends)

    @property
    def written(self) -> tuple[int, ...]:
        """The indices of new rules that don't stay in place: new ones, and those that move."""
        return _written(self.kept, self.ends)

    @property
    def run(self) -> tuple[int, int]:
        """Start and end of the run of new rules that a backend which writes at head and tail only leaves alone."""
        return longest_run(self.kept, [rule.stateful for rule in self.rules])

    def moves(self, *, in_place: bool) -> bool:
        """Whether a rule that stays or moves is written again and must take its counters along.

        One that moves is; one that stays is where a backend can't edit ``in_place``, but at head and tail only.
        """
        if in_place:
            return any(self.source[index] >= 0 for index in self.written)
        start, end = self.run
        return any(source >= 0 for source in (*self.source[:start], *self.source[end:]))


class SetChange(msgspec.Struct, frozen=True):
    """The edits of one set."""

    key: SetKey
    old: Set | None
    new: Set | None
    added: tuple[tuple[int, int], ...] = ()
    removed: tuple[tuple[int, int], ...] = ()


class Edit(msgspec.Struct, frozen=True):
    """One line of a plan: ``+`` added, ``~`` changed or moved, ``-`` removed; positions count from 1."""

    symbol: str
    where: str
    position: int | None = None
    text: str = ""
    before: str = ""
    moved_from: int | None = None

    def __str__(self) -> str:
        place = f"{self.where} {self.position}" if self.position else self.where
        if self.moved_from:
            return f"{self.symbol} {place}: {self.text}   (from {self.moved_from})"
        if self.before:
            return f"{self.symbol} {place}: {self.before} => {self.text}"
        return f"{self.symbol} {place}: {self.text}" if self.text else f"{self.symbol} {place}"


Formatter = Callable[[Rule, Family], str]


class Plan(msgspec.Struct, frozen=True):
    """The ordered changes from what a kernel holds to what is wanted; false when there are none."""

    lists: tuple[ListChange, ...] = ()
    sets: tuple[SetChange, ...] = ()
    rebuilt: Mapping[Family, str] = {}
    desired: Ruleset = Ruleset()

    def __bool__(self) -> bool:
        return bool(self.lists or self.sets or self.rebuilt)

    @property
    def keys(self) -> tuple[ListKey | SetKey, ...]:
        """The lists and sets it touches."""
        return (*(change.key for change in self.lists), *(change.key for change in self.sets))

    def moves(self, *, in_place: bool) -> tuple[ListKey, ...]:
        """The lists with rules that are written again, so that their counters must be fresh."""
        return tuple(change.key for change in self.lists if change.old is not None and change.moves(in_place=in_place))

    @property
    def before(self) -> Snapshot:
        """The snapshot that it leads from, as far as it tells: what isn't changed is what was wanted."""
        lists: dict[ListKey, ObservedList] = {
            chain.key: ObservedList(chain.key, tuple(map(ObservedRule, chain.rules))) for chain in self.desired.chains
        }
        for new in self.desired.dispatchers():
            lists[new.key] = ObservedList(new.key, tuple(map(ObservedRule, new.rules)), frozenset({new.policy}))
        sets = {(entry.family, entry.name): entry for entry in self.desired.sets}
        for change in self.lists:
            _put_back(lists, change.key, change.old)
        for set_change in self.sets:
            _put_back(sets, set_change.key, set_change.old)
        return Snapshot(lists, sets, self.rebuilt)

    def edits(self, formatter: Formatter) -> Iterator[Edit]:
        """The lines of the plan; ``formatter`` prints a rule of a family."""
        for family, reason in self.rebuilt.items():
            yield Edit("~", f"{family} tables", text=f"built anew: {reason}")
        for set_change in self.sets:
            yield from _set_edits(set_change)
        for change in self.lists:
            seen = _visible(change) if change.key.family in self.rebuilt else change
            yield from _list_edits(seen, partial(_of_family, formatter, change.key.family))

    def text(self, formatter: Formatter) -> str:
        """The plan for people, one line an edit."""
        return "".join(f"{edit}\n" for edit in self.edits(formatter))

    def data(self, formatter: Formatter) -> list[dict[str, Any]]:
        """The plan for programs: one JSON object an edit."""
        names = {"+": "add", "~": "change", "-": "remove"}
        return [
            {
                "action": names[edit.symbol],
                **{k: v for k, v in msgspec.structs.asdict(edit).items() if k != "symbol" and v},
            }
            for edit in self.edits(formatter)
        ]


def _put_back(held: dict[Any, Any], key: Any, old: Any) -> None:
    if old is None:
        held.pop(key, None)
    else:
        held[key] = old


# --- diff --------------------------------------------------------------------------------------------------


def diff(observed: Snapshot, desired: Ruleset) -> Plan:
    """The plan from a snapshot to a ruleset; chains that are known to be the very same value cost nothing."""
    broken = {**observed.broken, **_replaced_sets(observed, desired)}
    wanted: dict[ListKey, Chain | Dispatcher] = {chain.key: chain for chain in desired.chains}
    wanted.update((dispatcher.key, dispatcher) for dispatcher in desired.dispatchers())
    lists = []
    for key, new in wanted.items():
        old = observed.lists.get(key)
        if old is not None and old.declared is new and key.family not in broken:
            continue
        change = _change(key, old, new, rebuilt=key.family in broken)
        if change is not None:
            lists.append(change)
    lists.extend(
        ListChange(key, old, None)
        for key, old in observed.lists.items()
        if key not in wanted and key.family not in broken
    )
    return Plan(tuple(lists), tuple(_set_changes(observed, desired, broken)), broken, desired)


def _replaced_sets(observed: Snapshot, desired: Ruleset) -> dict[Family, str]:
    """The families with a set of another kind than wanted: rules hold on to it, so nothing but a rebuild changes it."""
    found: dict[Family, str] = {}
    for new in desired.sets:
        old = observed.sets.get((new.family, new.name))
        if old is not None and (old.type, old.intervals) != (new.type, new.intervals):
            found[new.family] = f"set {new.name} becomes one of another kind"
    return found


def _change(key: ListKey, old: ObservedList | None, new: Chain | Dispatcher, *, rebuilt: bool) -> ListChange | None:
    count = len(new.rules)
    if old is None:
        return ListChange(key, None, new, (-1,) * count, (-1,) * count)
    ends = shared_ends(old.meanings, new.rules)
    kept = align(old.meanings, new.rules, ends=ends)
    source = _sources(old.rules, new.rules, kept, ends)
    if rebuilt:
        return ListChange(key, old, new, (-1,) * count, source)
    change = ListChange(key, old, new, kept, source, ends)
    same = len(old.rules) == count and -1 not in kept and change.policy is None and not old.faults
    return None if same else change


def _set_changes(observed: Snapshot, desired: Ruleset, broken: Collection[Family]) -> Iterator[SetChange]:
    wanted = {(entry.family, entry.name): entry for entry in desired.sets}
    for key, new in wanted.items():
        old = observed.sets.get(key) if key[0] not in broken else None
        if old is None:
            yield SetChange(key, None, new, added=new.elements)
        elif old is not new and old != new:
            before, after = set(old.elements), set(new.elements)
            yield SetChange(key, old, new, tuple(sorted(after - before)), tuple(sorted(before - after)))
    for key, old in observed.sets.items():
        if key not in wanted and key[0] not in broken:
            yield SetChange(key, old, None)


def _sources(
    old: Sequence[ObservedRule], new: Sequence[Rule], kept: tuple[int, ...], ends: tuple[int, int]
) -> tuple[int, ...]:
    """For each new rule the old rule whose counters are its own: the one kept, or an equal one that moves."""
    free: dict[Any, list[int]] = {}
    for index in _dropped(len(old), kept, ends):
        rule = old[index].rule
        if rule is not None:
            free.setdefault(rule.key(), []).append(index)
    if not free:
        return kept
    found = list(kept)
    for index in _written(kept, ends):
        found[index] = _take(free, new[index])
    return tuple(found)


def _dropped(count: int, kept: tuple[int, ...], ends: tuple[int, int]) -> tuple[int, ...]:
    start, end = ends
    return tuple(sorted(set(range(start, count - end)).difference(kept[start : len(kept) - end])))


def _written(kept: tuple[int, ...], ends: tuple[int, int]) -> tuple[int, ...]:
    start, end = ends
    middle = kept[start : len(kept) - end]
    found: list[int] = []
    for _ in range(middle.count(-1)):
        found.append(kept.index(-1, found[-1] + 1 if found else start))
    return tuple(found)


def _take(free: dict[Any, list[int]], rule: Rule) -> int:
    indices = free.get(rule.key())
    return indices.pop(0) if indices else -1


# --- the lines of a plan -----------------------------------------------------------------------------------


def _of_family(formatter: Formatter, family: Family, rule: Rule) -> str:
    return formatter(rule, family)


def _set_edits(change: SetChange) -> Iterator[Edit]:
    where = f"{change.key[0]} set {change.key[1]}"
    if change.new is None:
        yield Edit("-", where)
        return
    if change.old is None:
        kind = f"{change.new.type} {'intervals' if change.new.intervals else 'elements'}"
        yield Edit("+", where, text=kind)
    for low, high in change.removed:
        yield Edit("-", where, text=change.new.text(low, high))
    for low, high in change.added:
        yield Edit("+", where, text=change.new.text(low, high))


def _list_edits(change: ListChange, formatter: Callable[[Rule], str]) -> Iterator[Edit]:
    where = str(change.key)
    if change.new is None:
        yield Edit("-", where)
        return
    if change.old is None:
        yield Edit("+", where, text=f"policy {change.policy}" if change.policy else "")
    elif change.policy is not None:
        before = "/".join(sorted(change.old.policies))
        yield Edit("~", where, text=f"policy {change.policy}", before=f"policy {before}")
    if change.old is not None:
        yield from (Edit("~", where, text=f"mended: {fault}") for fault in change.old.faults)
    yield from _rule_edits(change, where, formatter)


def _visible(change: ListChange) -> ListChange:
    """The change of a rebuilt list as a person cares for it: rules that come back in their place are no edits."""
    old = change.old
    if old is None:
        return change
    ends = shared_ends(old.meanings, change.rules)
    kept = align(old.meanings, change.rules, ends=ends)
    return ListChange(change.key, old, change.new, kept, _sources(old.rules, change.rules, kept, ends), ends)


def _rule_edits(change: ListChange, where: str, formatter: Callable[[Rule], str]) -> Iterator[Edit]:
    """The lines of one list in the order of its new rules; a rule dropped where another comes is one change."""
    moved = {source for kept, source in zip(change.kept, change.source, strict=True) if kept < 0 <= source}
    gone = [index for index in change.dropped if index not in moved]
    next_gone = 0
    last_kept = -1
    kept_after = _next_kept(change.kept)
    for position, (rule, kept, source) in enumerate(zip(change.rules, change.kept, change.source, strict=True)):
        if kept >= 0:
            while next_gone < len(gone) and gone[next_gone] < kept:
                yield _removed(change, gone[next_gone], where, formatter)
                next_gone += 1
            last_kept = kept
        elif source >= 0:
            yield Edit("~", where, position + 1, formatter(rule), moved_from=source + 1)
        elif next_gone < len(gone) and last_kept < gone[next_gone] < kept_after[position]:
            before = _observed_text(change, gone[next_gone], formatter)
            yield Edit("~", where, position + 1, formatter(rule), before=before)
            next_gone += 1
        else:
            yield Edit("+", where, position + 1, formatter(rule))
    for index in gone[next_gone:]:
        yield _removed(change, index, where, formatter)


def _next_kept(kept: Sequence[int]) -> list[int]:
    """For each position the old index of the next rule that stays."""
    found = []
    nearest = 1 << 62
    for index in reversed(kept):
        nearest = index if index >= 0 else nearest
        found.append(nearest)
    return found[::-1]


def _removed(change: ListChange, index: int, where: str, formatter: Callable[[Rule], str]) -> Edit:
    return Edit("-", where, index + 1, _observed_text(change, index, formatter))


def _observed_text(change: ListChange, index: int, formatter: Callable[[Rule], str]) -> str:
    held = cast("ObservedList", change.old).rules[index]  # only an old list has rules to drop
    return formatter(held.rule) if held.rule is not None else f"{held.text} (not a rule of meshfw)"


__all__ = ["ChainKey", "DispatcherKey", "Edit", "ListChange", "Plan", "SetChange", "diff"]
