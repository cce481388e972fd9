"""Chains of rules, their attachments to hooks, and the dispatchers where attachments meet."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from meshfw.errors import FamilyError, ModelError
from meshfw.model.kinds import HOOKS, Family, Hook, Place, Policy, Table
from meshfw.model.placement import table_problem
from meshfw.model.rule import Jump, Rule

NAME_MAX: Final = 128
_NAME: Final = re.compile(r"[!-~]+\Z")
_RESERVED: Final = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})


def name_problem(name: str, *, longest: int = NAME_MAX) -> str | None:
    """Why a chain or set can't bear the name, on any backend; None where it can."""
    if not name or len(name) > longest:
        return f"name {name!r} has {len(name)} characters; 1 to {longest} are allowed"
    if not _NAME.match(name):
        return f"name {name!r} holds a space or a character outside printable ASCII"
    if name[0] in "-!@" or set(name) & set("\"'\\;{}#"):
        return f"name {name!r}: it can't begin with - ! @ or hold quotes, backslash, braces, ; or #"
    if name in _RESERVED:
        return f"name {name!r} is a target of iptables"
    return None


class ChainKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """What names a chain: family, table and name together."""

    family: Family
    table: Table
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Chain(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An ordered list of rules in one table of one family."""

    family: Family
    table: Table
    name: str
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        why = name_problem(self.name)
        if why:
            raise ModelError(f"chain {why}")
        for index, rule in enumerate(self.rules, 1):
            why = rule.problem(self.family) or table_problem(rule, self.table)
            if why:
                kind = FamilyError if rule.other_family(self.family) else ModelError
                raise kind(why, where=f"{self.key}, rule {index}", rule=index)

    @property
    def key(self) -> ChainKey:
        """Family, table and name."""
        return ChainKey(self.family, self.table, self.name)


class Attachment(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A chain's connection to a hook.

    Attachments of one hook and place are met in the order of ``rank``, then of chain name. ``policy`` is what that
    hook and place do with packets that no attached chain decided; ``when`` (a rule without target) narrows the jump.
    """

    family: Family
    table: Table
    hook: Hook
    chain: str
    place: Place = Place.FIRST
    rank: int = 0
    policy: Policy = Policy.RETURN
    when: Rule = Rule()

    def __post_init__(self) -> None:
        where = f"attachment of {self.chain} to {self.family} {self.table} {self.hook}"
        if self.hook not in HOOKS[self.table]:
            known = ", ".join(hook for hook in Hook if hook in HOOKS[self.table])
            raise ModelError(f"table {self.table} has no hook {self.hook}; it has {known}", where=where)
        if self.when.target is not None:
            raise ModelError("its conditions can't have a target", where=where)
        if self.table is Table.NAT and self.policy is Policy.DROP:
            raise ModelError("table nat can't drop: it sees a connection's first packet only", where=where)
        why = self.when.problem(self.family)
        if why:
            raise ModelError(why, where=where)
        if self.when != _ALWAYS and self.policy is not Policy.RETURN:
            raise ModelError("with conditions it can't state a policy: other packets would meet it too", where=where)

    @property
    def dispatcher(self) -> DispatcherKey:
        """Family, table, hook and place."""
        return DispatcherKey(self.family, self.table, self.hook, self.place)

    @property
    def rule(self) -> Rule:
        """The dispatcher's rule: the conditions and a jump to the chain."""
        return msgspec.structs.replace(self.when, target=Jump(self.chain))


_ALWAYS: Final = Rule()


class DispatcherKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """What names a dispatcher: the place on a hook where all attachments of one owner meet."""

    family: Family
    table: Table
    hook: Hook
    place: Place

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.hook}/{self.place}"


class Dispatcher(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The rules that lead from one hook and place into attached chains, and the policy behind them."""

    key: DispatcherKey
    policy: Policy
    rules: tuple[Rule, ...]
