"""Where a rule can stand: the tables and hooks that its target and matches allow, and the interfaces a hook knows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from meshfw.model.kinds import Hook, Table
from meshfw.model.rule import Rule

_NO_INPUT: Final = frozenset({Hook.OUTPUT, Hook.POSTROUTING})
_NO_OUTPUT: Final = frozenset({Hook.INPUT, Hook.PREROUTING})


def table_problem(rule: Rule, table: Table) -> str | None:
    """Why a rule's target or one of its matches can't stand in the table; None where they can."""
    target = rule.target
    if target is not None and target.tables is not None and table not in target.tables:
        return _no_table(target.label, target.tables, table)
    for match in rule.matches:
        if match.tables is not None and table not in match.tables:
            return _no_table(f"match {type(match).__name__.lower()}", match.tables, table)
    return None


def _no_table(label: str, tables: frozenset[Table], table: Table) -> str:
    return f"{label} is allowed in table {', '.join(sorted(tables))} only, not in {table}"


def hook_problem(rule: Rule, hooks: Collection[Hook]) -> str | None:
    """Why a rule can't meet packets of these hooks; None where it can."""
    if rule.target is not None:
        allowed = rule.target.allowed_hooks()
        if allowed is not None and not allowed.issuperset(hooks):
            return _not_allowed(rule.target.label, allowed, hooks)
    for match in rule.matches:
        allowed = match.allowed_hooks()
        if allowed is not None and not allowed.issuperset(hooks):
            return _not_allowed(f"match {type(match).__name__.lower()}", allowed, hooks)
    return None


def _not_allowed(label: str, allowed: frozenset[Hook], hooks: Collection[Hook]) -> str:
    wrong = ", ".join(sorted(set(hooks) - allowed))
    names = ", ".join(hook for hook in Hook if hook in allowed)
    return f"{label} is allowed on {names} only, and packets come here from {wrong}"


def interface_problem(rule: Rule, hook: Hook) -> str | None:
    """Which interface of a rule packets never have on a hook, as iptables has it for built-in chains."""
    if rule.in_interface is not None and hook in _NO_INPUT:
        return f"a packet on {hook} has no input interface"
    if rule.out_interface is not None and hook in _NO_OUTPUT:
        return f"a packet on {hook} has no output interface"
    return None
