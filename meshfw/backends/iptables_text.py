"""A plan as text for iptables-restore: one block for each table, edits by position in own chains, by value elsewhere.

Lists are edited where they stand: a rule that stays isn't touched, so that its counters go on. Built-in chains belong
to everybody: a jump of ours is put at their head or tail and taken out by what it says, never by its number. The kernel
takes each table's block as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from meshfw.backends.layout import LEFT_OVER, TableKey, iptables_chain, iptables_marker, table_of
from meshfw.languages.iptables import quote_opaque
from meshfw.model import HOOKS, Dispatcher, DispatcherKey, Family, Hook, Place, Policy, Rule, Table
from meshfw.plan import ListChange, Plan
from meshfw.snapshot import ListKey

Renderer = Callable[[ListKey, Rule], str]
"""The text of a rule of a list, as iptables-save prints it."""

_POLICY_TEXT: Final[Mapping[Policy, str]] = {Policy.ACCEPT: "-j ACCEPT", Policy.DROP: "-j DROP"}


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a list stands in the kernel, beyond its rules; positions count from 1.

    ``marker`` and ``policy`` are the positions of its marker and of its policy's rule, 0 where there is none. ``jumps``
    has the number of bare jumps to it from each built-in chain, ``hidden`` the handles of those that iptables doesn't
    find, ``placed`` whether the one at its place is there.
    ``lines`` are its rules as iptables prints them, with counters: what it takes to make the chain again; ``length`` is
    their number with those that iptables can't print, and ``bodies`` their bytes.
    """

    chain: str
    length: int = 0
    marker: int = 0
    policy: int = 0
    jumps: Mapping[Hook, int] = {}
    hidden: Mapping[Hook, tuple[int, ...]] = {}
    placed: bool = False
    lines: tuple[str, ...] = ()
    bodies: tuple[bytes, ...] = ()

    def is_of(self, chains: Mapping[str, Sequence[tuple[bytes, int, int, object]]]) -> bool:
        """Whether the chain holds the very same rules among these, whatever they have counted."""
        rules = chains.get(self.chain)
        return (
            rules is not None
            and len(rules) == len(self.bodies)
            and all(rule[0] == body for rule, body in zip(rules, self.bodies, strict=True))
        )


def marker_text(owner: str, key: ListKey) -> str:
    """The marker as iptables-save prints it."""
    return comment_text(iptables_marker(owner, key))


def comment_text(comment: str) -> str:
    """A rule that is nothing but a comment as iptables-save prints it."""
    return f"-m comment --comment {quote_opaque(comment)}"


def tables_of(plan: Plan) -> tuple[TableKey, ...]:
    """The tables that a plan changes, in the order in which they're written."""
    found = {table_of(change.key) for change in plan.lists}
    return tuple((family, table) for family in Family for table in Table if (family, table) in found)


def changes_of(plan: Plan, key: TableKey) -> list[ListChange]:
    """What a plan changes in one table."""
    return [change for change in plan.lists if table_of(change.key) == key]


def family_text(plan: Plan, family: Family, *, render: Renderer, owner: str) -> str:
    """What iptables-restore gets for one family: its tables, then questions for what they now hold; "" for nothing."""
    blocks, questions = [], []
    for key in tables_of(plan):
        if key[0] is family:
            changes = changes_of(plan, key)
            blocks.append(_block(key[1], table_lines(changes, render=render, owner=owner)))
            asked = [chain for table, chain in asked_chains(plan, family, owner=owner) if table == key]
            if asked:
                questions.append(question_text(key[1], asked))
    return "".join((*blocks, *questions))


def asked_chains(plan: Plan, family: Family, *, owner: str) -> list[tuple[TableKey, str]]:
    """The chains whose rules a commit has printed, in that order."""
    return [
        (key, chain_of(owner, change))
        for key in tables_of(plan)
        if key[0] is family
        for change in changes_of(plan, key)
        if change.new is not None
    ]


def question_text(table: Table, chains: Iterable[str]) -> str:
    """The block that has the rules of some chains printed."""
    return _block(table, (f"-S {chain}" for chain in chains))


def _block(table: Table, lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in (f"*{table}", *lines, "COMMIT"))


def chain_of(owner: str, change: ListChange) -> str:
    """The chain that a change is of."""
    return change.old.backing.chain if change.old is not None else iptables_chain(owner, change.key)


def table_lines(changes: Sequence[ListChange], *, render: Renderer, owner: str) -> Iterator[str]:
    """The edits of one table, in the words of iptables-restore's ``--noflush``, that carry out what changes in it."""
    gone = [chain_of(owner, change) for change in changes if change.new is None]
    # Not ":CHAIN", which would empty one that somebody made meanwhile.
    yield from (f"-N {chain_of(owner, change)}" for change in changes if change.old is None)
    for change in changes:
        if change.new is not None:
            yield from _list_lines(change, chain_of(owner, change), render=render, owner=owner)
    for change in changes:
        if _is_jumped_to(change.key):
            yield from _jump_lines(change, chain_of(owner, change))
    yield from (f"-F {chain}" for chain in gone)
    held = {chain_of(owner, change) for change in changes if change.old is not None and change.old.backing.hidden}
    yield from (f"-X {chain}" for chain in gone if chain not in held)


# --- one list ----------------------------------------------------------------------------------------------


def _list_lines(change: ListChange, chain: str, *, render: Renderer, owner: str) -> Iterator[str]:
    """The edits that make a list's chain what it shall be: its marker, its rules, and a dispatcher's policy."""
    items = [*_wanted(change, render=render, owner=owner)]
    length = change.old.backing.length if change.old is not None else 0
    yield from edit_lines(chain, length, items)


def _wanted(change: ListChange, *, render: Renderer, owner: str) -> Iterator[tuple[int, str]]:
    """What the chain shall hold: for each rule its position now, or 0 and its text."""
    old = change.old
    standing: Standing = old.backing if old is not None else Standing("")
    yield (1, "") if standing.marker == 1 else (0, marker_text(owner, change.key))
    for rule, kept, source in zip(change.rules, change.kept, change.source, strict=True):
        if kept >= 0 and old is not None:
            yield old.rules[kept].handle, ""
            continue
        text = render(change.key, rule)
        if source >= 0 and old is not None and old.rules[source].packets:
            moved = old.rules[source]
            text = f"-c {moved.packets} {moved.bytes} {text}".rstrip()
        yield 0, text
    if isinstance(change.new, Dispatcher) and change.new.policy in _POLICY_TEXT:
        stays = standing.policy and change.policy is None
        yield (standing.policy, "") if stays else (0, _POLICY_TEXT[change.new.policy])


def edit_lines(chain: str, length: int, items: Sequence[tuple[int, str]]) -> Iterator[str]:
    """The fewest edits by position that make a chain of ``length`` rules hold the items.

    An item is ``(position, "")`` for a rule that stays, in ascending order, or ``(0, text)`` for a new one. The edits
    go from the end to the beginning, so that each position is still that of the untouched chain, and none names a rule
    that an edit before it has made: on such a one iptables-nft 1.8.9 ends with a segmentation fault.
    """
    kept = [index for index, (position, _) in enumerate(items) if position]
    bounds = [(-1, 0), *((index, items[index][0]) for index in kept), (len(items), length + 1)]
    for (before, low), (after, high) in reversed([*pairwise(bounds)]):
        if after - before > 1 or high - low > 1:
            texts = [text for _, text in items[before + 1 : after]]
            yield from _gap_lines(chain, texts, range(low + 1, high), at_end=high > length)


def _gap_lines(chain: str, texts: Sequence[str], old: range, *, at_end: bool) -> Iterator[str]:
    """The edits between two rules that stay: old ones are replaced one for one, the others go or come."""
    replaced = min(len(texts), len(old))
    yield from (f"-D {chain} {position}" for position in reversed(old[replaced:]))
    new = texts[replaced:]
    if at_end:
        yield from (f"-A {chain} {text}".rstrip() for text in new)
    else:
        yield from (f"-I {chain} {at} {text}".rstrip() for at, text in enumerate(new, old.start + replaced))
    yield from (f"-R {chain} {at} {text}".rstrip() for at, text in zip(old[:replaced], texts, strict=False))


# --- the jumps in built-in chains --------------------------------------------------------------------------


def _is_jumped_to(key: ListKey) -> bool:
    """Whether a jump to it from a built-in chain is ours; any other list is led to by rules of its own table alone."""
    return isinstance(key, DispatcherKey) or key.name.endswith(LEFT_OVER)


def _jump_lines(change: ListChange, chain: str) -> Iterator[str]:
    """The edits, by value, after which a dispatcher has its one jump and any other list none."""
    standing: Standing = change.old.backing if change.old is not None else Standing(chain)
    wanted = change.key if change.new is not None and isinstance(change.key, DispatcherKey) else None
    for hook in Hook:
        if hook not in HOOKS[change.key.table]:
            continue
        count = standing.jumps.get(hook, 0)
        here = wanted is not None and wanted.hook is hook
        if here and count == 1 and standing.placed:
            continue
        seen = count - len(standing.hidden.get(hook, ()))
        yield from (f"-D {hook.upper()} -j {chain}" for _ in range(seen))
        if here and wanted is not None:
            yield jump_line(wanted, chain)


def jump_line(key: DispatcherKey, chain: str) -> str:
    """The line that puts a dispatcher's jump into its built-in chain, at the place it is for."""
    return f"-{'I' if key.place is Place.FIRST else 'A'} {key.hook.upper()} -j {chain}"


def hidden_jumps(change: ListChange) -> Iterator[tuple[Hook, int]]:
    """The jumps to a list, by hook and handle, that have to go and that iptables doesn't find.

    They go behind the restore: until then a new jump stands beside the old one, or the chain that goes is empty.
    """
    if change.old is None:
        return
    standing: Standing = change.old.backing
    for hook, handles in standing.hidden.items():
        here = change.new is not None and isinstance(change.key, DispatcherKey) and change.key.hook is hook
        if not (here and standing.jumps.get(hook) == 1 and standing.placed):
            yield from ((hook, handle) for handle in handles)


# --- putting back ------------------------------------------------------------------------------------------


def undo_text(
    plan: Plan, key: TableKey, *, chains: Collection[str], jumps: Mapping[Hook, Sequence[str]], owner: str
) -> str:
    """The block that makes a table's lists what they were before the plan, from the chains and jumps it holds now."""
    return _block(key[1], undo_lines(changes_of(plan, key), chains=chains, jumps=jumps, owner=owner))


def undo_lines(
    changes: Sequence[ListChange], *, chains: Collection[str], jumps: Mapping[Hook, Sequence[str]], owner: str
) -> list[str]:
    """The edits of one table after which its lists are what they were, from the chains and jumps it holds now."""
    made = [chain for change in changes if change.old is None and (chain := chain_of(owner, change)) in chains]
    old: list[Standing] = [change.old.backing for change in changes if change.old is not None]
    lines = [f":{standing.chain} - [0:0]" for standing in old]
    for standing in old:
        lines.extend(f"-A {standing.chain} {line}".rstrip() for line in standing.lines)
    for change in changes:
        lines.extend(_undo_jumps(change, chain_of(owner, change), jumps))
    lines.extend(f"-F {chain}" for chain in made)
    lines.extend(f"-X {chain}" for chain in made)
    return lines


def _undo_jumps(change: ListChange, chain: str, now: Mapping[Hook, Sequence[str]]) -> Iterator[str]:
    """The edits after which the jumps to a list are as many as before; one that comes back stands at head or tail."""
    before: Mapping[Hook, int] = change.old.backing.jumps if change.old is not None else {}
    first = isinstance(change.key, DispatcherKey) and change.key.place is Place.FIRST
    for hook in Hook:
        more = before.get(hook, 0) - now.get(hook, ()).count(chain)
        yield from (f"-D {hook.upper()} -j {chain}" for _ in range(-more))
        yield from (f"-{'I' if first else 'A'} {hook.upper()} -j {chain}" for _ in range(more))
