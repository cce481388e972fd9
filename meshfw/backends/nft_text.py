"""A plan as one nft transaction: the text that libnftables gets, for both families together.

nft 1.0.6 puts a rule at the end or at the head of a chain, and deletes one by handle, at a cost that doesn't grow with
the ruleset; for a place in the middle it would load every rule of every table. So the longest run of rules that may
stay is left alone, and what belongs before and behind it is written at the head and at the tail. Rules that are
written again take their counters along; a limit can't take its bucket, so rules with state are kept in the run where
one run holds them all, and a note says so where not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from meshfw.backends.layout import MARK, base_chain, nft_chain, nft_dispatcher, nft_set
from meshfw.languages.nft import FAMILIES, NftText
from meshfw.model import ChainKey, Dispatcher, DispatcherKey, ElementType, Family, Policy, Rule, Set
from meshfw.plan import ListChange, Plan, SetChange
from meshfw.snapshot import ListKey

Renderer = Callable[[ListKey, Rule], NftText]
"""The text of one rule of one list."""

POLICY_WORDS: Final = {Policy.ACCEPT: "accept", Policy.RETURN: "accept", Policy.DROP: "drop"}
"""nft's policy of a base chain for each of the model's."""


def chain_name(key: ListKey) -> str:
    """The nft chain of a list."""
    return nft_dispatcher(key) if isinstance(key, DispatcherKey) else nft_chain(key.table, key.name)


def set_type(entry: Set) -> str:
    """The nft type of a set's elements (nft(8), DATA TYPES)."""
    if entry.type is ElementType.PORT:
        return "inet_service"
    return "ipv4_addr" if entry.family is Family.IPV4 else "ipv6_addr"


def transaction_text(plan: Plan, render: Renderer, *, owner: str, present: frozenset[Family]) -> str:
    """The whole transaction.

    ``present`` are the families whose table stands already. A family that wants nothing any more loses its table.
    """
    parts: list[str] = []
    for family in Family:
        table = f"{FAMILIES[family]} {owner}"
        wanted = family in plan.desired.families
        if not wanted:
            if family in present:
                parts.append(f"delete table {table}\n")
            continue
        lists = [change for change in plan.lists if change.key.family is family]
        sets = [change for change in plan.sets if change.key[0] is family]
        rebuilt = family in plan.rebuilt
        if lists or sets or rebuilt:
            stands = family in present
            parts.extend(_family_text(table, lists, sets, render, rebuilt=rebuilt and stands, present=stands))
    return "".join(parts)


def _family_text(
    table: str,
    lists: Sequence[ListChange],
    sets: Sequence[SetChange],
    render: Renderer,
    *,
    rebuilt: bool,
    present: bool,
) -> Iterator[str]:
    edits = [_ListText(table, change, render, fresh=rebuilt) for change in lists]
    if rebuilt:
        yield f"delete table {table}\n"
    yield from chain.from_iterable(edit.removals() for edit in edits)
    yield from chain.from_iterable(element_lines(table, change) for change in sets)
    yield f"table {table} {{\n"
    if not present or rebuilt:
        yield f'\tcomment "{MARK}"\n'
    yield from chain.from_iterable(set_block(change.new) for change in sets if change.old is None and change.new)
    yield from chain.from_iterable(edit.block() for edit in edits)
    yield "}\n"
    yield from chain.from_iterable(edit.insertions() for edit in edits)
    gone = sorted((edit for edit in edits if edit.gone), key=lambda edit: isinstance(edit.key, ChainKey))
    for edit in gone:
        yield f"delete chain {table} {edit.name}\n"
    for change in sets:
        if change.new is None:
            yield f"delete set {table} {nft_set(change.key[1])}\n"


# --- sets --------------------------------------------------------------------------------------------------


def element_lines(table: str, change: SetChange) -> Iterator[str]:
    """The lines that take elements out of a set and put others in."""
    if change.old is None or change.new is None:
        return
    name = nft_set(change.key[1])
    for verb, elements in (("delete", change.removed), ("add", change.added)):
        if elements:
            yield f"{verb} element {table} {name} {{ {_elements(change.new, elements)} }}\n"


def _elements(entry: Set, elements: Iterable[tuple[int, int]]) -> str:
    return ", ".join(entry.text(low, high) for low, high in elements)


def set_block(entry: Set) -> Iterator[str]:
    """The declaration of a set with its elements."""
    yield f"\tset {nft_set(entry.name)} {{\n\t\ttype {set_type(entry)}\n"
    if entry.intervals:
        yield "\t\tflags interval\n"
    if entry.elements:
        yield f"\t\telements = {{ {_elements(entry, entry.elements)} }}\n"
    yield "\t}\n"


# --- chains and dispatchers --------------------------------------------------------------------------------


class _ListText:
    """The lines that edit one chain or dispatcher."""

    def __init__(self, table: str, change: ListChange, render: Renderer, *, fresh: bool) -> None:
        self.key = change.key
        self.name = chain_name(change.key)
        self.gone = change.new is None
        self._table = table
        self._change = change
        self._render = render
        self._fresh = fresh or change.old is None
        self._start, self._end = (0, 0) if self._fresh else change.run

    def removals(self) -> Iterator[str]:
        """Whatever doesn't stay where it is, by handle; all of it at once where nothing stays."""
        if self._fresh or self._change.old is None:
            return
        rules = self._change.old.rules
        staying = set(self._change.kept[self._start : self._end])
        if not staying:
            if rules:
                yield f"flush chain {self._table} {self.name}\n"
            return
        for index, held in enumerate(rules):
            if index not in staying:
                yield f"delete rule {self._table} {self.name} handle {held.handle}\n"

    def block(self) -> Iterator[str]:
        """The chain itself where it is new, its policy, and the rules behind those that stay."""
        if self.gone:
            return
        lines = [self._line(index) for index in range(self._end, len(self._change.rules))]
        new = self._change.new
        header = isinstance(new, Dispatcher) and (self._fresh or self._change.policy is not None)
        if not lines and not header and not self._fresh:
            return
        yield f"\tchain {self.name} {{\n"
        if header and isinstance(new, Dispatcher):
            yield f"\t\t{base_chain(new.key)} policy {POLICY_WORDS[new.policy]};\n"
        yield from (f"\t\t{line}\n" for line in lines)
        yield "\t}\n"

    def insertions(self) -> Iterator[str]:
        """The rules before those that stay, the last one first, since each goes to the head."""
        for index in reversed(range(self._start)):
            yield f"insert rule {self._table} {self.name} {self._line(index)}\n"

    def _line(self, index: int) -> str:
        change = self._change
        text = self._render(self.key, change.rules[index])
        source = change.source[index]
        if source < 0 or change.old is None:
            return str(text)
        held = change.old.rules[source]
        return text.counting_from(held.packets, held.bytes) if held.packets else str(text)


def restart_notes(plan: Plan) -> tuple[str, ...]:
    """The lists in which a rule with state is written again, and starts to count anew."""
    notes = []
    for change in plan.lists:
        start, end = (0, 0) if change.key.family in plan.rebuilt else change.run
        again = [
            index
            for index, rule in enumerate(change.rules)
            if rule.stateful and change.source[index] >= 0 and not start <= index < end
        ]
        if again:
            notes.append(restart_note(change.key, again))
    return tuple(notes)


def restart_note(key: ListKey, again: Iterable[int]) -> str:
    """That rules of a list, by their indices, start to count anew."""
    rules = ", ".join(str(index + 1) for index in again)
    return f"{key}: rule {rules} is written again, and its limit starts anew"


def rule_texts(plan: Plan, render: Renderer) -> Mapping[ListKey, tuple[str, ...]]:
    """For each changed list, the text of every rule it will hold; one that stays keeps the text it was listed with."""
    found: dict[ListKey, tuple[str, ...]] = {}
    for change in plan.lists:
        old = change.old.rules if change.old is not None else ()
        found[change.key] = tuple(
            (old[kept].text if kept >= 0 else "") or str(render(change.key, rule))
            for rule, kept in zip(change.rules, change.kept, strict=True)
        )
    return found
