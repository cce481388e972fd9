"""A ruleset: everything one owner wants, sorted by name and checked as a whole."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec
from msgspec.structs import astuple

from meshfw.errors import ModelError
from meshfw.model.address import SetRef
from meshfw.model.chain import Attachment, Chain, ChainKey, Dispatcher, DispatcherKey
from meshfw.model.kinds import Family, Hook, Not, Policy
from meshfw.model.placement import hook_problem, interface_problem
from meshfw.model.rule import Goto, Jump, Rule
from meshfw.model.sets import ElementType, Set, SetKey


class Ruleset(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """Everything one owner wants: chains, sets and attachments, sorted by name and checked as a whole."""

    chains: tuple[Chain, ...] = ()
    sets: tuple[Set, ...] = ()
    attachments: tuple[Attachment, ...] = ()

    def __post_init__(self) -> None:
        _fill(self, self.chains, sets=self.sets, attachments=self.attachments)
        _check(self)

    def without_sets(self, chains: Iterable[Chain], attachments: Iterable[Attachment]) -> Ruleset:
        """A ruleset of chains and attachments that say the same as these, but name no set.

        Not checked again: what holds of this one holds of it, and looking at 10,000 rules takes longer than a change.
        """
        made = copy.copy(self)
        _fill(made, chains, sets=(), attachments=attachments)
        return made

    def __bool__(self) -> bool:
        return bool(self.chains or self.sets)

    def chain(self, key: ChainKey) -> Chain | None:
        """The chain of that name; None where there is none."""
        return next((chain for chain in self.chains if chain.key == key), None)

    @property
    def families(self) -> frozenset[Family]:
        """The families it has chains or sets for."""
        return frozenset(item.family for items in (self.chains, self.sets) for item in items)

    def reach(self) -> Mapping[ChainKey, Collection[Hook]]:
        """The hooks from which packets can come to each chain; a chain that none leads to isn't in it."""
        chains = {chain.key: chain for chain in self.chains}
        return _reach(self, chains, {key: _led_to(chain) for key, chain in chains.items()})

    def dispatchers(self) -> tuple[Dispatcher, ...]:
        """The attachments grouped by hook and place, in order."""
        groups: dict[DispatcherKey, list[Attachment]] = {}
        for attachment in self.attachments:
            groups.setdefault(attachment.dispatcher, []).append(attachment)
        return tuple(
            Dispatcher(key=key, policy=_policy(key, group), rules=tuple(item.rule for item in group))
            for key, group in groups.items()
        )


def _fill(ruleset: Ruleset, chains: Iterable[Chain], *, sets: Iterable[Set], attachments: Iterable[Attachment]) -> None:
    """Give a ruleset that is being made its parts, in order."""
    force = msgspec.structs.force_setattr
    force(ruleset, "chains", tuple(sorted(chains, key=lambda chain: (chain.family, chain.table, chain.name))))
    force(ruleset, "sets", tuple(sorted(sets, key=lambda entry: (entry.family, entry.name))))
    force(ruleset, "attachments", tuple(sorted(attachments, key=lambda a: (a.dispatcher, a.rank, a.chain))))


def _policy(key: DispatcherKey, group: Iterable[Attachment]) -> Policy:
    stated = {item.policy for item in group} - {Policy.RETURN}
    if len(stated) > 1:
        raise ModelError("attachments state different policies; one hook and place has one", where=str(key))
    return stated.pop() if stated else Policy.RETURN


# --- checks over a whole ruleset ---------------------------------------------------------------------------


def _check(ruleset: Ruleset) -> None:
    chains = _unique((chain.key, chain) for chain in ruleset.chains)
    sets = _unique(((entry.family, entry.name), entry) for entry in ruleset.sets)
    jumps: dict[ChainKey, tuple[ChainKey, ...]] = {}
    for key, chain in chains.items():
        jumps[key] = _references(chain, chains, sets)
    _check_loops(jumps)
    reached = _reach(ruleset, chains, jumps)
    for key, hooks in reached.items():
        _check_hooks(chains[key], hooks)
    _check_interfaces(ruleset, chains)
    for attachment in _unique((repr(item), item) for item in ruleset.attachments).values():
        _check_sets(attachment.when, attachment.family, sets, f"attachment of {attachment.chain}")
    ruleset.dispatchers()


K = TypeVar("K")
V = TypeVar("V")


def _unique(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    found: dict[K, V] = {}
    for key, value in pairs:
        if key in found:
            name = " ".join(key) if isinstance(key, tuple) else str(key)
            raise ModelError(f"{type(value).__name__.lower()} {name} is declared twice")
        found[key] = value
    return found


def _references(chain: Chain, chains: Mapping[ChainKey, Chain], sets: Mapping[SetKey, Set]) -> tuple[ChainKey, ...]:
    """The chains it jumps or goes to, each once; every chain and set it names must exist."""
    found: dict[str, ChainKey] = {}
    for index, rule in enumerate(chain.rules, 1):
        target = rule.target
        if isinstance(target, Jump | Goto) and target.chain not in found:
            key = ChainKey(chain.family, chain.table, target.chain)
            if key not in chains:
                raise ModelError(
                    f"{target.label}: there is no such chain in {chain.family} {chain.table}",
                    where=f"{chain.key}, rule {index}",
                )
            found[target.chain] = key
        _check_sets(rule, chain.family, sets, chain.key, index)
    return tuple(found.values())


def set_references(rule: Rule) -> Iterator[tuple[SetRef, ElementType]]:
    """The sets a rule names and what each must hold."""
    for addresses in (rule.source, rule.destination):
        value = addresses.value if isinstance(addresses, Not) else addresses
        if type(value) is SetRef:
            yield value, ElementType.ADDRESS
    for match in rule.matches:
        for field in astuple(match):
            value = field.value if type(field) is Not else field
            if type(value) is SetRef:
                yield value, ElementType.PORT


def _led_to(chain: Chain) -> tuple[ChainKey, ...]:
    """The chains it jumps or goes to."""
    names = (rule.target.chain for rule in chain.rules if isinstance(rule.target, Jump | Goto))
    return tuple(ChainKey(chain.family, chain.table, name) for name in dict.fromkeys(names))


def _check_sets(
    rule: Rule, family: Family, sets: Mapping[SetKey, Set], place: object, index: int | None = None
) -> None:
    for reference, kind in set_references(rule):
        where = f"{place}, rule {index}" if index else str(place)
        entry = sets.get((family, reference.name))
        if entry is None:
            raise ModelError(f"there is no {family} set {reference.name}", where=where)
        if entry.type is not kind:
            raise ModelError(f"set {reference.name} holds {entry.type} elements, not {kind}", where=where)


def _check_loops(jumps: Mapping[ChainKey, tuple[ChainKey, ...]]) -> None:
    """Refuse chains that lead back to themselves, as the kernel would (ELOOP)."""
    done: set[ChainKey] = set()
    for start in jumps:
        path: dict[ChainKey, Iterator[ChainKey]] = {start: iter(jumps[start])} if start not in done else {}
        while path:
            here = next(reversed(path))
            step = next(path[here], None)
            if step is None:
                done.add(here)
                del path[here]
            elif step in path:
                names = [key.name for key in path]
                loop = " -> ".join([*names[names.index(step.name) :], step.name])
                raise ModelError(f"chains jump in a loop: {loop}", where=f"{step.family} {step.table}")
            elif step not in done:
                path[step] = iter(jumps[step])


def _reach(
    ruleset: Ruleset, chains: Mapping[ChainKey, Chain], jumps: Mapping[ChainKey, tuple[ChainKey, ...]]
) -> dict[ChainKey, set[Hook]]:
    """The hooks from which packets can come to each chain."""
    reached: dict[ChainKey, set[Hook]] = {}
    for attachment in ruleset.attachments:
        key = ChainKey(attachment.family, attachment.table, attachment.chain)
        if key not in chains:
            raise ModelError(
                f"there is no chain {attachment.chain} in {attachment.family} {attachment.table}",
                where=f"attachment to {attachment.dispatcher}",
            )
        todo = [key]
        while todo:
            here = todo.pop()
            hooks = reached.setdefault(here, set())
            if attachment.hook not in hooks:
                hooks.add(attachment.hook)
                todo.extend(jumps[here])
    return reached


def _check_hooks(chain: Chain, hooks: set[Hook]) -> None:
    for index, rule in enumerate(chain.rules, 1):
        why = hook_problem(rule, hooks)
        if why:
            raise ModelError(why, where=f"{chain.key}, rule {index}")


def _check_interfaces(ruleset: Ruleset, chains: Mapping[ChainKey, Chain]) -> None:
    """Refuse an interface that a hook never knows, in attached chains, as iptables does for built-in ones."""
    for attachment in ruleset.attachments:
        chain = chains[ChainKey(attachment.family, attachment.table, attachment.chain)]
        for index, rule in enumerate(chain.rules, 1):
            why = interface_problem(rule, attachment.hook)
            if why:
                raise ModelError(why, where=f"{chain.key}, rule {index}")
