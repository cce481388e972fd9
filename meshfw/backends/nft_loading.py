"""A large plan in transactions of bounded size: new chains are loaded where nothing leads to them, then switched over.

Until the last transaction no packet meets anything new, so a failure or a kill in between leaves the firewall as it
was: what was loaded is taken away again after a failure, and after a kill the next run finds it and goes on. The last
one, which makes the dispatchers, puts in the jumps and takes away what goes, is small and all or nothing, as ever.

It bounds the memory that libnftables and the kernel take at a time, and what has to fit into the socket's send buffer,
which an unprivileged user's namespace can't raise beyond net.core.wmem_max.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshfw.backend import Transaction
from meshfw.backends.layout import MARK, nft_set
from meshfw.backends.nft_text import Renderer, chain_name, set_block, transaction_text
from meshfw.errors import BackendError, ConcurrentChangeError, KernelError
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.languages.nft import FAMILIES
from meshfw.model import ChainKey, Family, Goto, Jump, Rule
from meshfw.plan import ListChange, Plan
from meshfw.snapshot import ListKey

RULES_MAX: Final = 5000
"""Rules of new chains in one transaction; a plan that makes no more is carried out at once."""
_RULE_BYTES, _CHARACTER_BYTES = 300, 16
"""What a rule takes in a message at most: a fixed part, and so much for each character of its text."""


def transaction_texts(
    plan: Plan, render: Renderer, *, owner: str, present: frozenset[Family], buffer: int
) -> tuple[str, ...]:
    """A plan's transactions in order: one, unless the chains that nothing leads to yet get more than so many rules.

    ``present`` are the families whose table stands, ``buffer`` is the size of the send buffer in bytes.
    """
    chains = _loadable(plan)
    costs = [_cost(str(render(change.key, rule))) for change in chains for rule in _missing(change)]
    if len(costs) <= RULES_MAX and sum(costs) <= buffer:
        text = transaction_text(plan, render, owner=owner, present=present)
        return (text,) if text else ()
    families = frozenset(change.key.family for change in chains)
    declared = "".join(
        _declared(family, chains, plan, owner=owner, present=family in present)
        for family in Family
        if family in families
    )
    loaded = {change.key for change in chains}
    rest = msgspec.structs.replace(
        plan,
        lists=tuple(change for change in plan.lists if change.key not in loaded),
        sets=tuple(change for change in plan.sets if change.old is not None or change.key[0] not in families),
    )
    last = transaction_text(rest, render, owner=owner, present=present | families)
    parts = _parts(chains, render, owner=owner, buffer=buffer)
    return tuple(text for text in (declared, *parts, last) if text)


def undo_text(plan: Plan, *, owner: str, present: frozenset[Family]) -> str:
    """What takes away again whatever all transactions of a plan but the last have made.

    A chain that was loaded in part by an earlier run stays, with more of what it shall hold.
    """
    chains = _loadable(plan)
    return "".join(
        _undone(family, chains, plan, owner=owner, present=family in present)
        for family in sorted({change.key.family for change in chains})
    )


def _loadable(plan: Plan) -> list[ListChange]:
    """The chains that get their rules while nothing leads to them."""
    chains = [change for change in plan.lists if _is_apart(change, plan)]
    if all(change.old is None for change in chains):
        return chains
    reached = _reached(plan)
    return [change for change in chains if change.old is None or change.key not in reached]


def _is_apart(change: ListChange, plan: Plan) -> bool:
    """Whether a change does nothing but make a chain, or add to the end of one that was loaded in part."""
    if not isinstance(change.key, ChainKey) or change.new is None or change.key.family in plan.rebuilt:
        return False
    return change.old is None or change.ends[0] == len(change.old.rules)


def _missing(change: ListChange) -> tuple[Rule, ...]:
    return change.rules if change.old is None else change.rules[len(change.old.rules) :]


def _reached(plan: Plan) -> frozenset[ListKey]:
    """The lists that packets reach as the rules stand now."""
    held: dict[ListKey, tuple[Rule | None, ...]] = {
        change.key: () if change.old is None else change.old.meanings for change in plan.lists
    }
    for chain in plan.desired.chains:
        held.setdefault(chain.key, chain.rules)
    for dispatcher in plan.desired.dispatchers():
        held.setdefault(dispatcher.key, dispatcher.rules)
    todo: list[ListKey] = [key for key in held if not isinstance(key, ChainKey)]
    found: set[ListKey] = set()
    while todo:
        key = todo.pop()
        if key in found:
            continue
        found.add(key)
        for rule in held.get(key, ()):
            if rule is None:  # it could lead anywhere
                return frozenset(held)
            if isinstance(rule.target, Jump | Goto):
                todo.append(ChainKey(key.family, key.table, rule.target.chain))
    return frozenset(found)


def _cost(text: str) -> int:
    return _RULE_BYTES + _CHARACTER_BYTES * len(text)


def _declared(family: Family, chains: Iterable[ListChange], plan: Plan, *, owner: str, present: bool) -> str:
    """The table, its new sets and its new chains, empty: what the rules name; nothing where all of that stands.

    A transaction that changes nothing isn't counted by the kernel, and each of ours must be, or another's is taken for
    it.
    """
    lines = [] if present else [f'\tcomment "{MARK}"\n']
    for change in plan.sets:
        if change.key[0] is family and change.old is None and change.new is not None:
            lines.extend(set_block(change.new))
    names = [chain_name(change.key) for change in chains if change.key.family is family and change.old is None]
    lines.extend(f"\tchain {name} {{\n\t}}\n" for name in names)
    return "".join((f"table {FAMILIES[family]} {owner} {{\n", *lines, "}\n")) if lines else ""


def _parts(chains: Iterable[ListChange], render: Renderer, *, owner: str, buffer: int) -> Iterator[str]:
    """Texts that each put so many rules at the ends of chains.

    Should somebody have taken the table away meanwhile, a part makes it again, and it says whose it is.
    """
    lines: list[str] = []
    count = size = 0
    for change in chains:
        table = f'table {FAMILIES[change.key.family]} {owner} {{\n\tcomment "{MARK}"\n'
        head = f"{table}\tchain {chain_name(change.key)} {{\n"
        opened = False
        for rule in _missing(change):
            text = str(render(change.key, rule))
            if count and (count == RULES_MAX or size + _cost(text) > buffer):
                yield "".join((*lines, _CLOSED if opened else ""))
                lines, count, size, opened = [], 0, 0, False
            if not opened:
                lines.append(head)
                opened = True
            lines.append(f"\t\t{text}\n")
            count += 1
            size += _cost(text)
        if opened:
            lines.append(_CLOSED)
    if lines:
        yield "".join(lines)


_CLOSED: Final = "\t}\n}\n"


def _undone(family: Family, chains: Iterable[ListChange], plan: Plan, *, owner: str, present: bool) -> str:
    table = f"{FAMILIES[family]} {owner}"
    if not present:
        return f"delete table {table}\n"
    names = [chain_name(change.key) for change in chains if change.key.family is family and change.old is None]
    sets = [nft_set(change.key[1]) for change in plan.sets if change.key[0] is family and change.old is None]
    lines = [f"flush chain {table} {name}\n" for name in names]
    lines += [f"delete chain {table} {name}\n" for name in names]
    return "".join((*lines, *(f"delete set {table} {name}\n" for name in sets)))


# --- running -----------------------------------------------------------------------------------------------


def run_steps(transaction: Transaction, nft: Libnftables, netlink: Nfnetlink, *, owner: str, before: int) -> None:
    """Run a transaction's steps one after another; what the first ones made is taken away when a later one fails.

    Raises:
        ConcurrentChangeError: somebody has written since the generation ``before``.
        BackendError: libnftables or the kernel refused a step.
    """
    several = len(transaction.steps) > 1
    tables = {(table.family, table.name) for table in netlink.tables()} if several else set()
    for done, step in enumerate(transaction.steps):
        try:
            nft.run(step.input, handles=False)
        except BaseException as error:
            undisturbed = netlink.generation() == before + done
            left = ""
            if several and (done or not isinstance(error, BackendError)):  # a signal comes after what it interrupts
                present = frozenset(family for family in Family if (FAMILIES[family], owner) in tables)
                left = _put_back(undo_text(transaction.plan, owner=owner, present=present), nft)
            if not isinstance(error, BackendError):
                raise
            if not undisturbed:
                raise ConcurrentChangeError(
                    f"somebody else wrote during the commit{left}", backend=transaction.backend
                ) from None
            raise _explained(error, left or "\nnothing was changed", transaction.backend) from None


def _put_back(text: str, nft: Libnftables) -> str:
    """Take away what was loaded; what an error has to say where that fails."""
    try:
        nft.run(text, handles=False)
    except BackendError:
        return "\nchains that were loaded are left; nothing leads to them, and the next run goes on from there"
    return ""


def _explained(error: BackendError, left: str, backend: str) -> BackendError:
    """The library's refusal as ours, with the state the kernel is in."""
    reason = f"{error.reason}{left}"
    if isinstance(error, KernelError):
        return KernelError(reason, errno=error.errno, backend=backend, remedy=error.remedy)
    return BackendError(reason, backend=backend, remedy=error.remedy)
