"""Expansion: a ruleset with sets as one without that means the same, for backends that have no sets of their own.

A condition on a set becomes one rule for each element, in the order of the elements; a negated one becomes a rule for
each range outside the set. A packet meets at most one of them, so a verdict, RETURN, a jump or a target that goes on
does what it did in the one rule. A match that counts or remembers can't be repeated, since each copy would count for
itself: it moves to a chain in between, ``NAME~1`` for the first such rule of chain ``NAME``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, Final

import msgspec

from meshfw.errors import InexpressibleError
from meshfw.extensions.codecs import Ports, complement, sign
from meshfw.extensions.iprange import AddressRange, IpRange
from meshfw.model import (
    NAME_MAX,
    Attachment,
    Chain,
    ChainKey,
    Comment,
    Family,
    Goto,
    Jump,
    Match,
    Network,
    OpaqueMatch,
    Return,
    Rule,
    Ruleset,
    Set,
    SetKey,
    SetRef,
    set_references,
)

MOST: Final = 65_536
"""The most rules that one rule may become; each is a line to write, to read and for packets to pass."""
MOST_TOGETHER: Final = 4 * MOST  # the rules that all those of a ruleset which name sets may become together
Problem = tuple[str, str]
"""What can't be expanded: where it stands, and why not and what to write instead."""
Sets = Mapping[SetKey, Set]


class Survey(msgspec.Struct, frozen=True):
    """The sets that a chain's rules name, and how many rules will come of each such rule, by its index."""

    names: frozenset[str]
    counts: tuple[tuple[int, int], ...]


class Part(msgspec.Struct, frozen=True):
    """What one chain becomes, and what of the ruleset that depends on: itself, its sets, names like its own."""

    chain: Chain
    survey: Survey
    sets: tuple[Set, ...]
    taken: frozenset[str]
    chains: tuple[Chain, ...]
    problems: tuple[Problem, ...]

    def stands(self, chain: Chain, sets: Sets, taken: frozenset[str]) -> bool:
        """Whether the same would come out again."""
        if self.chain is not chain or self.taken != taken:
            return False
        return all(sets.get((held.family, held.name)) == held for held in self.sets)


class Expansion(msgspec.Struct, frozen=True):
    """A ruleset as declared and without its sets; what ``problems`` name is left out of the latter.

    Where it would be too large a ruleset altogether that is the only problem, and all is left out.
    ``parts`` make the next expansion cheap: what didn't change is the very same chain again.
    """

    declared: Ruleset
    ruleset: Ruleset
    problems: tuple[Problem, ...] = ()
    parts: Mapping[ChainKey, Part] = {}


def expand(ruleset: Ruleset, memo: Expansion | None = None) -> Expansion:
    """The ruleset without sets, itself where it has none; ``memo`` is the expansion of what it was before.

    A chain without set conditions is the same object as declared, and one with them the same as in the ``memo`` where
    neither it nor an element of its sets has changed.
    """
    if memo is not None and memo.declared is ruleset:
        return memo
    if not ruleset.sets:
        return Expansion(ruleset, ruleset)
    sets = {(entry.family, entry.name): entry for entry in ruleset.sets}
    taken = _taken(ruleset.chains)
    kept: dict[ChainKey, Part] = {}
    surveys: dict[ChainKey, Survey] = {}
    for chain in ruleset.chains:
        key = chain.key
        old = memo.parts.get(key) if memo is not None else None
        if old is not None and old.stands(chain, sets, taken.get(key, frozenset())):
            kept[key] = old
        surveys[key] = kept[key].survey if key in kept else _survey(chain, sets)
    if (excess := _excess(ruleset, sets, surveys)) is not None:
        return Expansion(ruleset, Ruleset(), (excess,))
    parts = {
        key: kept.get(key) or _part(chain, survey, sets, taken.get(key, frozenset()))
        for (key, survey), chain in zip(surveys.items(), ruleset.chains, strict=True)
    }
    attachments, problems = _attachments(ruleset.attachments, sets)
    return Expansion(
        ruleset,
        ruleset.without_sets((chain for part in parts.values() for chain in part.chains), attachments),
        (*(problem for part in parts.values() for problem in part.problems), *problems),
        parts,
    )


def _taken(chains: Iterable[Chain]) -> dict[ChainKey, frozenset[str]]:
    """For each chain the names of declared ones that a chain in between of it would have."""
    found: dict[ChainKey, frozenset[str]] = {}
    for chain in chains:
        name, tilde, number = chain.name.rpartition("~")
        if tilde and number.isdigit():
            key = ChainKey(chain.family, chain.table, name)
            found[key] = found.get(key, frozenset()) | {chain.name}
    return found


# --- how much it will be -----------------------------------------------------------------------------------


def _survey(chain: Chain, sets: Sets) -> Survey:
    named: set[str] = set()
    counts: list[tuple[int, int]] = []
    for index, rule in enumerate(chain.rules, 1):
        names = {reference.name for reference, _ in set_references(rule)}
        if names:
            named |= names
            counts.append((index, _count(rule, chain.family, sets)))
    return Survey(frozenset(named), tuple(counts))


def _count(rule: Rule, family: Family, sets: Sets) -> int:
    """How many rules come of one at most, chains in between included; 0 where none do, since they would be too many."""
    try:
        cut = _cut(rule)
    except InexpressibleError:
        return 0
    if cut is not None:
        return _count(cut.head, family, sets) + _count(cut.rest, family, sets)
    count = prod(len(condition.ranges) for condition in _conditions(rule, family, sets))
    return count if count <= MOST else 0


def _excess(ruleset: Ruleset, sets: Sets, surveys: Mapping[ChainKey, Survey]) -> Problem | None:
    """The rule or attachment with which sets make too many rules of a ruleset; None where they don't."""
    total = 0
    for where, count in _counts(ruleset, sets, surveys):
        total += count
        if total > MOST_TOGETHER:
            reason = (
                f"sets make {total} rules of the rules up to this one, and {MOST_TOGETHER} is the most of a ruleset"
            )
            return where, f"{reason}: name them in fewer rules, or use a backend that has sets"
    return None


def _counts(ruleset: Ruleset, sets: Sets, surveys: Mapping[ChainKey, Survey]) -> Iterator[tuple[str, int]]:
    for key, survey in surveys.items():
        for index, count in survey.counts:
            yield f"{key}, rule {index}", count
    for item in ruleset.attachments:
        if any(True for _ in set_references(item.when)):
            yield _place(item), _count(item.when, item.family, sets)


def _place(item: Attachment) -> str:
    return f"attachment of {item.chain} to {item.dispatcher}"


# --- chains ------------------------------------------------------------------------------------------------


def _part(chain: Chain, survey: Survey, sets: Sets, taken: frozenset[str]) -> Part:
    if not survey.names:
        return Part(chain, survey, (), taken, (chain,), ())
    work = _Expander(chain, sets, taken)
    rules: list[Rule] = []
    problems: list[Problem] = []
    for index, rule in enumerate(chain.rules, 1):
        try:
            rules += work.expanded(rule)
        except InexpressibleError as error:
            problems.append((f"{chain.key}, rule {index}", error.reason))
    used = tuple(sets[chain.family, name] for name in sorted(survey.names))
    expanded = msgspec.structs.replace(chain, rules=tuple(rules))
    return Part(chain, survey, used, taken, (expanded, *work.between), tuple(problems))


class _Expander:
    """One chain at work, and the chains in between that its rules need."""

    def __init__(self, chain: Chain, sets: Sets, taken: Collection[str]) -> None:
        self.between: list[Chain] = []
        self._chain = chain
        self._sets = sets
        self._taken = taken
        self._number = 0

    def expanded(self, rule: Rule) -> list[Rule]:
        """The rules that one becomes; InexpressibleError where there are none that mean the same."""
        cut = _cut(rule)
        if cut is None:
            return _multiplied(rule, self._chain.family, self._sets)
        if isinstance(rule.target, Return | Goto):
            raise InexpressibleError(_led_astray(rule.target, cut))
        # A number is taken whatever the sets hold, so that an element that comes or goes renames no other chain.
        name = self._name()
        mark = len(self.between)
        rest = self.expanded(cut.rest)
        head = msgspec.structs.replace(cut.head, target=Jump(name) if rest else None)
        heads = _multiplied(head, self._chain.family, self._sets)
        if rest:
            self.between.append(msgspec.structs.replace(self._chain, name=name, rules=tuple(rest)))
        if not heads:  # nothing leads there
            del self.between[mark:]
        return heads

    def _name(self) -> str:
        while True:
            self._number += 1
            name = f"{self._chain.name}~{self._number}"
            if len(name) > NAME_MAX:
                raise InexpressibleError(f"it needs a chain {name}, more than {NAME_MAX} characters: shorten the name")
            if name not in self._taken:
                return name


# --- rules whose matches count -----------------------------------------------------------------------------


class _Cut(msgspec.Struct, frozen=True):
    """A rule in two: ``head`` without its target, and ``rest``, for a chain in between; ``match`` is why."""

    head: Rule
    rest: Rule
    match: Match


def _cut(rule: Rule) -> _Cut | None:
    """Where a rule must be cut so that no match that counts is repeated; None where it needn't be.

    The cut is before the first such match that a set condition precedes, or else behind the last one that precedes
    every set condition, in which case the rest is cut again if need be.
    """
    comments = tuple(match for match in rule.matches if type(match) is Comment)
    matches = tuple(match for match in rule.matches if type(match) is not Comment)
    named = [-1] if _names_addresses(rule) else []
    named += [index for index, match in enumerate(matches) if any(True for _ in _fields(match))]
    counting = [index for index, match in enumerate(matches) if match.stateful]
    for index in {*named} & {*counting}:
        raise InexpressibleError(f"{_label(matches[index])} counts, and would do so for each element by itself")
    before = [index for index in counting if named and index < named[0]]
    behind = [index for index in counting if named and index > named[0]]
    if before:
        at, match = before[-1] + 1, matches[before[-1]]
    elif behind:
        at, match = behind[0], matches[behind[0]]
    else:
        return None
    head = msgspec.structs.replace(rule, matches=(*matches[:at], *comments), target=None)
    # Matches and targets may need the protocol to be stated in their own rule.
    rest = Rule(protocol=rule.protocol, matches=(*matches[at:], *comments), target=rule.target)
    return _Cut(head, rest, match)


def _names_addresses(rule: Rule) -> bool:
    return any(type(sign(held)[1]) is SetRef for held in (rule.source, rule.destination))


def _label(match: Match) -> str:
    return f"match {match.name if isinstance(match, OpaqueMatch) else type(match).__name__.lower()}"


def _led_astray(target: Return | Goto, cut: _Cut) -> str:
    """Why a chain in between is none for RETURN or goto, and the way round."""
    return (
        f"{_label(cut.match)} can't be repeated for each element of a set, and from a chain in between {target.label} "
        "would lead elsewhere; split the rule there yourself: go (-g) to a chain of your own with the conditions of "
        f"one half, which holds those of the other with {target.label} and then goes to the rules that follow here"
    )


# --- rules whose matches don't -----------------------------------------------------------------------------


class _Condition(msgspec.Struct, frozen=True):
    """A field that names a set (of the rule's own, or of the match of that index), and the ranges that meet it."""

    match: int | None
    field: str
    ranges: tuple[tuple[int, int], ...]


def _fields(match: Match) -> Iterator[tuple[str, bool, SetRef]]:
    """The fields of a match that name a set, each with its sign."""
    for field in match.__struct_fields__:
        negated, value = sign(getattr(match, field))
        if type(value) is SetRef:
            yield field, negated, value


def _conditions(rule: Rule, family: Family, sets: Sets) -> Iterator[_Condition]:
    for field, held in (("source", rule.source), ("destination", rule.destination)):
        negated, value = sign(held)
        if type(value) is SetRef:
            yield _Condition(None, field, _ranges(sets[family, value.name], negated))
    for index, match in enumerate(rule.matches):
        for field, negated, value in _fields(match):
            yield _Condition(index, field, _ranges(sets[family, value.name], negated))


def _ranges(entry: Set, negated: bool) -> tuple[tuple[int, int], ...]:
    return complement(entry.elements, last=(1 << entry.bits) - 1) if negated else entry.elements


def _multiplied(rule: Rule, family: Family, sets: Sets) -> list[Rule]:
    """One rule for each combination of the ranges of its set conditions; itself where it has none."""
    conditions = tuple(_conditions(rule, family, sets))
    if not conditions:
        return [rule]
    count = prod(len(condition.ranges) for condition in conditions)
    if count > MOST:
        raise InexpressibleError(f"its sets make {count} rules of it, and {MOST} is the most: split it, or the sets")
    choices = product(*(condition.ranges for condition in conditions))
    return [_stated(rule, family, zip(conditions, chosen, strict=True)) for chosen in choices]


def _stated(rule: Rule, family: Family, chosen: Iterable[tuple[_Condition, tuple[int, int]]]) -> Rule:
    """The rule with a range in the place of each set."""
    changes: dict[str, Any] = {}
    matches = list(rule.matches)
    ranges: list[Match] = []
    for condition, (low, high) in chosen:
        if condition.match is not None:
            held = matches[condition.match]
            matches[condition.match] = msgspec.structs.replace(held, **{condition.field: Ports(low, high)})
            continue
        network = _network(low, high, family)
        changes[condition.field] = network if network is not None and network.mask else None
        if network is None:
            ranges.append(IpRange(**{condition.field: AddressRange(family, low, high)}))
    return msgspec.structs.replace(rule, matches=(*ranges, *matches), **changes)


def _network(low: int, high: int, family: Family) -> Network | None:
    """The addresses as a prefix; None where they are none."""
    size = high - low + 1
    if size & (size - 1) or low % size:
        return None
    return Network(family, low, (1 << family.bits) - size)


# --- attachments -------------------------------------------------------------------------------------------


def _attachments(declared: Iterable[Attachment], sets: Sets) -> tuple[tuple[Attachment, ...], list[Problem]]:
    """Attachments whose conditions name no set, one for each combination of ranges where they did."""
    found: list[Attachment] = []
    problems: list[Problem] = []
    held = tuple(declared)
    seen = {repr(item) for item in held}
    for item in held:
        if not any(True for _ in set_references(item.when)):
            found.append(item)
            continue
        try:
            made = [msgspec.structs.replace(item, when=when) for when in _whens(item, sets)]
            for one in made:
                if repr(one) in seen:  # which the model takes for a mistake
                    raise InexpressibleError("another one states an element of its set: give one of them another rank")
            seen.update(map(repr, made))
            found += made
        except InexpressibleError as error:
            problems.append((_place(item), error.reason))
    return tuple(found), problems


def _whens(item: Attachment, sets: Sets) -> list[Rule]:
    cut = _cut(item.when)
    if cut is not None:
        raise InexpressibleError(
            f"{_label(cut.match)} can't be repeated for each element of a set: attach a chain whose rule jumps to "
            f"{item.chain} with these conditions"
        )
    return _multiplied(item.when, item.family, sets)
