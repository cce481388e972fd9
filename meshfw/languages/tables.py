"""What a dump of iptables holds: tables of chains of rules, with policies, counters and lines, as frozen values."""

from __future__ import annotations

import msgspec

from meshfw.model import HOOKS, Family, Hook, Policy, Rule, Table


class DumpRule(msgspec.Struct, frozen=True, gc=False):
    """One ``-A`` line: the rule, its counters (packets, bytes), and the line it stood on (0: none)."""

    rule: Rule
    packets: int = 0
    bytes: int = 0
    line: int = 0


class DumpChain(msgspec.Struct, frozen=True, gc=False):
    """One chain of a dump; built-in chains have a policy, others None."""

    name: str
    policy: Policy | None = None
    rules: tuple[DumpRule, ...] = ()


class DumpTable(msgspec.Struct, frozen=True, gc=False):
    """One ``*table ... COMMIT`` block."""

    table: Table
    chains: tuple[DumpChain, ...] = ()


class DumpNote(msgspec.Struct, frozen=True, gc=False):
    """What a person may want to know of a line, as that it was passed over."""

    line: int
    text: str


class Dump(msgspec.Struct, frozen=True, gc=False):
    """What one iptables-save or ip6tables-save printed."""

    family: Family
    tables: tuple[DumpTable, ...] = ()
    notes: tuple[DumpNote, ...] = ()
    """What was passed over, such as a line of the other family."""


def hook_of(chain: str, table: Table) -> Hook | None:
    """The hook of a built-in chain's name in the table; None for any other chain."""
    lower = chain.lower()
    hook = Hook(lower) if chain.isupper() and lower in set(Hook) else None
    return hook if hook in HOOKS[table] else None
