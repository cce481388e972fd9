"""Edits of a ruleset, each of one kind: what people, other programs and new declarations do to rules.

Every edit takes a ruleset and a ``pick``, which chooses one of N; it gives the edited ruleset, or None where there
is nothing of that kind to edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from meshfw.errors import ModelError
from meshfw.model import (
    ACCEPT,
    RETURN,
    Attachment,
    Chain,
    Comment,
    Dispatcher,
    Jump,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    Table,
)
from meshfw.testing.rulesets import commented, without_chain, without_set

__all__ = ["EDITS", "all_edits", "edited", "first", "last", "middle"]

T = TypeVar("T")
Pick = Callable[[int], int]
"""Chooses a number from 0 to one below the given one."""
Edit = Callable[[Ruleset, Pick], Ruleset | None]


def first(_count: int) -> int:
    """The pick of the first."""
    return 0


def middle(count: int) -> int:
    """The pick of the one in the middle."""
    return count // 2


def last(count: int) -> int:
    """The pick of the last."""
    return count - 1


def _one(items: Iterable[T], pick: Pick) -> T | None:
    held = tuple(items)
    return held[pick(len(held))] if held else None


def _with_chain(ruleset: Ruleset, chain: Chain, rules: Sequence[Rule]) -> Ruleset:
    chains = tuple(
        msgspec.structs.replace(held, rules=tuple(rules)) if held is chain else held for held in ruleset.chains
    )
    return msgspec.structs.replace(ruleset, chains=chains)


def _rules_edit(edit: Callable[[list[Rule], Pick], object], *, at_least: int = 1) -> Edit:
    """The edit that changes the rules of one chain that has at least so many."""

    def edited(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
        chain = _one((chain for chain in ruleset.chains if len(chain.rules) >= at_least), pick)
        if chain is None:
            return None
        rules = list(chain.rules)
        edit(rules, pick)
        return _with_chain(ruleset, chain, rules) if rules != list(chain.rules) else None

    return edited


def _delete(rules: list[Rule], pick: Pick) -> None:
    del rules[pick(len(rules))]


def _insert(rules: list[Rule], pick: Pick) -> None:
    rules.insert(pick(len(rules) + 1), commented("inserted by a stranger"))


def _move(rules: list[Rule], pick: Pick) -> None:
    at = pick(len(rules))
    rule = rules.pop(at)
    rules.insert((at + 1 + pick(len(rules))) % (len(rules) + 1), rule)


def _swap(rules: list[Rule], pick: Pick) -> None:
    at = pick(len(rules) - 1)
    rules[at], rules[at + 1] = rules[at + 1], rules[at]


def _duplicate(rules: list[Rule], pick: Pick) -> None:
    at = pick(len(rules))
    rules.insert(pick(len(rules) + 1), rules[at])


def _replace(rules: list[Rule], pick: Pick) -> None:
    """Edit a rule in place: another verdict, or one more match."""
    at = pick(len(rules))
    rule = rules[at]
    if rule.target in (ACCEPT, RETURN):  # which every table takes
        rules[at] = msgspec.structs.replace(rule, target=RETURN if rule.target == ACCEPT else ACCEPT)
    else:
        comments = [match for match in rule.matches if isinstance(match, Comment)]
        others = tuple(match for match in rule.matches if not isinstance(match, Comment))
        text = "edited" if not comments else f"{comments[0].text[:100]} (edited)"
        rules[at] = msgspec.structs.replace(rule, matches=(*others, Comment(text)))


def _flush(rules: list[Rule], _pick: Pick) -> None:
    rules.clear()


def _remove_chain(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    chain = _one(ruleset.chains, pick)
    return None if chain is None else without_chain(ruleset, chain.key)


def _add_chain(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    """A chain more, and a jump to it from one that is there."""
    chain = _one(ruleset.chains, pick)
    if chain is None:
        return None
    added = msgspec.structs.replace(chain, name="strange", rules=(commented("strange"),))
    larger = msgspec.structs.replace(ruleset, chains=(*ruleset.chains, added))
    return _with_chain(larger, chain, (*chain.rules, Rule(target=Jump(added.name))))


def _detach(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    gone = _one(ruleset.attachments, pick)
    return None if gone is None else _attachments(ruleset, [a for a in ruleset.attachments if a is not gone])


def _attachments(ruleset: Ruleset, attachments: Iterable[Attachment]) -> Ruleset:
    return msgspec.structs.replace(ruleset, attachments=tuple(attachments))


def _attach(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    """A chain that is attached gets a second place on its hook."""
    held = _one((item for item in ruleset.attachments if item.place is Place.FIRST), pick)
    if held is None:
        return None
    new = msgspec.structs.replace(held, place=Place.LAST, policy=Policy.RETURN)
    there = any(item.dispatcher == new.dispatcher and item.chain == new.chain for item in ruleset.attachments)
    return None if there else _attachments(ruleset, (*ruleset.attachments, new))


def _policy(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    """A hook and place gets the policy that it hasn't."""
    able = (held for held in ruleset.dispatchers() if held.key.table is not Table.NAT and _unconditional(ruleset, held))
    dispatcher = _one(able, pick)
    if dispatcher is None:
        return None
    policy = Policy.RETURN if dispatcher.policy is Policy.DROP else Policy.DROP
    return _attachments(
        ruleset,
        (
            msgspec.structs.replace(item, policy=policy if item.when == Rule() else Policy.RETURN)
            if item.dispatcher == dispatcher.key
            else item
            for item in ruleset.attachments
        ),
    )


def _unconditional(ruleset: Ruleset, dispatcher: Dispatcher) -> bool:
    return any(item.dispatcher == dispatcher.key and item.when == Rule() for item in ruleset.attachments)


def _rank(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    """The first of several attachments of one hook and place becomes the last."""
    dispatcher = _one((d for d in ruleset.dispatchers() if len(d.rules) > 1), pick)
    if dispatcher is None:
        return None
    group = [item for item in ruleset.attachments if item.dispatcher == dispatcher.key]
    late = msgspec.structs.replace(group[0], rank=group[-1].rank + 1)
    return _attachments(ruleset, (late if item is group[0] else item for item in ruleset.attachments))


def _with_set(ruleset: Ruleset, entry: Set, **changes: Any) -> Ruleset:
    new = msgspec.structs.replace(entry, **changes)
    return msgspec.structs.replace(ruleset, sets=tuple(new if held is entry else held for held in ruleset.sets))


def _add_element(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    entry = _one(ruleset.sets, pick)
    if entry is None:
        return None
    highest = (1 << entry.bits) - 2  # any free value will do
    free = next((v for v in range(highest, highest - 9, -1) if not any(a <= v <= b for a, b in entry.elements)), None)
    if free is None:
        return None
    return _with_set(ruleset, entry, elements=tuple(sorted((*entry.elements, (free, free)))))


def _remove_element(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    entry = _one((entry for entry in ruleset.sets if entry.elements), pick)
    if entry is None:
        return None
    gone = entry.elements[pick(len(entry.elements))]
    return _with_set(ruleset, entry, elements=tuple(pair for pair in entry.elements if pair != gone))


def _remove_set(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    entry = _one(ruleset.sets, pick)
    return None if entry is None else without_set(ruleset, entry)


def _add_set(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    chain = _one(ruleset.chains, pick)
    if chain is None or any(entry.name == "strange" for entry in ruleset.sets):
        return None
    added = Set(family=chain.family, name="strange", elements=((5, 5), (9, 9)))
    return msgspec.structs.replace(ruleset, sets=(*ruleset.sets, added))


def _set_kind(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    """A set becomes one of another kind, which no edit of its elements can bring about."""
    entry = _one((entry for entry in ruleset.sets if all(low == high for low, high in entry.elements)), pick)
    return None if entry is None else _with_set(ruleset, entry, intervals=not entry.intervals)


def _remove_family(ruleset: Ruleset, pick: Pick) -> Ruleset | None:
    family = _one(sorted(ruleset.families), pick)
    if family is None:
        return None
    return Ruleset(
        chains=tuple(chain for chain in ruleset.chains if chain.family is not family),
        sets=tuple(entry for entry in ruleset.sets if entry.family is not family),
        attachments=tuple(item for item in ruleset.attachments if item.family is not family),
    )


def _remove_all(ruleset: Ruleset, _pick: Pick) -> Ruleset | None:
    return Ruleset() if ruleset else None


EDITS: Final[Mapping[str, Edit]] = {
    "delete a rule": _rules_edit(_delete),
    "insert a rule": _rules_edit(_insert),
    "move a rule": _rules_edit(_move, at_least=2),
    "swap two rules": _rules_edit(_swap, at_least=2),
    "duplicate a rule": _rules_edit(_duplicate),
    "edit a rule in place": _rules_edit(_replace),
    "empty a chain": _rules_edit(_flush),
    "remove a chain": _remove_chain,
    "add a chain": _add_chain,
    "detach a chain": _detach,
    "attach a chain elsewhere": _attach,
    "change a policy": _policy,
    "change a rank": _rank,
    "add an element": _add_element,
    "remove an element": _remove_element,
    "remove a set": _remove_set,
    "add a set": _add_set,
    "change a set's kind": _set_kind,
    "remove a family": _remove_family,
    "remove everything": _remove_all,
}
"""Every kind of edit, by what it does."""


def edited(ruleset: Ruleset, name: str, pick: Pick) -> Ruleset | None:
    """The ruleset after one edit; None where it can't be made, or the model refuses what comes of it."""
    try:
        return EDITS[name](ruleset, pick)
    except ModelError:
        return None


def all_edits(ruleset: Ruleset) -> dict[str, Ruleset]:
    """Every edit that can be made, at a fixed place each, and those of rules, sets and elements at both ends too."""
    found: dict[str, Ruleset] = {}
    for name in EDITS:
        places = (("", middle), (" (the first)", first), (" (the last)", last))
        for place, pick in places if any(word in name for word in ("rule", "set", "element")) else places[:1]:
            after = edited(ruleset, name, pick)
            if after is not None and after != ruleset:
                found[f"{name}{place}"] = after
    return found
