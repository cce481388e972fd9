"""Delta debugging of a ruleset: the least part of it that still shows what the whole shows.

First halves of the rules go, then quarters, down to single ones (Zeller and Hildebrandt's ddmin without its
complements, which a list of independent rules doesn't need); then policies, chains that nothing leads to, and the
conditions of each rule that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from meshfw.errors import ModelError
from meshfw.model import Attachment, Chain, ChainKey, Goto, Jump, Policy, Rule, Ruleset

T = TypeVar("T")
Shows = Callable[[Ruleset], bool]


def shrunk(ruleset: Ruleset, shows: Shows) -> Ruleset:
    """The least part of a ruleset, as far as one step at a time leads, that ``shows`` still holds of."""
    before = None
    while before != ruleset:
        before = ruleset
        ruleset = _fewer_rules(ruleset, shows)
        for smaller in _SMALLER:
            ruleset = _stepwise(ruleset, shows, smaller)
    return ruleset


def shrunk_away(ruleset: Ruleset, holds: Shows) -> Ruleset:
    """The ruleset without so few rules that ``holds`` holds of it: in one pass, rules come back while it does."""
    spots = _spots(ruleset)
    kept: list[tuple[ChainKey, int]] = []
    size = max(len(spots) // 2, 1)
    todo = [spots[at : at + size] for at in range(0, len(spots), size)]
    while todo:
        part = todo.pop(0)
        tried = _only(ruleset, [*kept, *part])
        if tried is not None and holds(tried):
            kept += part
        elif len(part) > 1:
            todo[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return _only(ruleset, kept) or ruleset


def _spots(ruleset: Ruleset) -> list[tuple[ChainKey, int]]:
    return [(chain.key, index) for chain in ruleset.chains for index in range(len(chain.rules))]


def _fewer_rules(ruleset: Ruleset, shows: Shows) -> Ruleset:
    spots = _spots(ruleset)
    size = max(len(spots) // 2, 1)
    while spots:
        at = 0
        while at < len(spots):
            fewer = spots[:at] + spots[at + size :]
            tried = _only(ruleset, fewer)
            if tried is not None and shows(tried):
                spots = fewer
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return _only(ruleset, spots) or ruleset


def _only(ruleset: Ruleset, spots: Sequence[tuple[ChainKey, int]]) -> Ruleset | None:
    kept = set(spots)
    chains = [
        msgspec.structs.replace(
            chain, rules=tuple(rule for index, rule in enumerate(chain.rules) if (chain.key, index) in kept)
        )
        for chain in ruleset.chains
    ]
    return _made(ruleset, chains=chains)


def _made(ruleset: Ruleset, *, chains: Iterable[Chain] = (), attachments: Iterable[Attachment] = ()) -> Ruleset | None:
    try:
        return Ruleset(
            chains=tuple(chains or ruleset.chains),
            attachments=tuple(attachments or ruleset.attachments),
            sets=ruleset.sets,
        )
    except ModelError:
        return None


def _stepwise(ruleset: Ruleset, shows: Shows, smaller: Callable[[Ruleset], Iterator[Ruleset | None]]) -> Ruleset:
    """The ruleset after every single step that it bears."""
    found = True
    while found:
        found = False
        for tried in smaller(ruleset):
            if tried is not None and shows(tried):
                ruleset, found = tried, True
                break
    return ruleset


def _policies(ruleset: Ruleset) -> Iterator[Ruleset | None]:
    for at, item in enumerate(ruleset.attachments):
        if item.policy is not Policy.RETURN:
            changed = msgspec.structs.replace(item, policy=Policy.RETURN)
            yield _made(ruleset, attachments=_put(ruleset.attachments, at, changed))


def _attachments(ruleset: Ruleset) -> Iterator[Ruleset | None]:
    for at in range(len(ruleset.attachments)):
        if len(ruleset.attachments) > 1:
            yield _made(ruleset, attachments=ruleset.attachments[:at] + ruleset.attachments[at + 1 :])


def _hoisted(ruleset: Ruleset) -> Iterator[Ruleset | None]:
    """With a chain attached itself in place of one that leads to it."""
    for at, item in enumerate(ruleset.attachments):
        held = ruleset.chain(ChainKey(item.family, item.table, item.chain))
        led = {rule.target.chain for rule in held.rules if isinstance(rule.target, Jump | Goto)} if held else set()
        for name in sorted(led):
            changed = msgspec.structs.replace(item, chain=name)
            yield _made(ruleset, attachments=_put(ruleset.attachments, at, changed))


def _chains(ruleset: Ruleset) -> Iterator[Ruleset | None]:
    used = {ChainKey(item.family, item.table, item.chain) for item in ruleset.attachments}
    for chain in ruleset.chains:
        for rule in chain.rules:
            if isinstance(rule.target, Jump | Goto):
                used.add(ChainKey(chain.family, chain.table, rule.target.chain))
    for at, chain in enumerate(ruleset.chains):
        if chain.key not in used:
            yield _made(ruleset, chains=ruleset.chains[:at] + ruleset.chains[at + 1 :])


def _conditions(ruleset: Ruleset) -> Iterator[Ruleset | None]:
    for at, chain in enumerate(ruleset.chains):
        for number, rule in enumerate(chain.rules):
            for simpler in _simpler(rule):
                rules = _put(chain.rules, number, simpler)
                try:
                    changed = msgspec.structs.replace(chain, rules=rules)
                except ModelError:
                    continue
                yield _made(ruleset, chains=_put(ruleset.chains, at, changed))


def _simpler(rule: Rule) -> Iterator[Rule]:
    for at in range(len(rule.matches)):
        yield msgspec.structs.replace(rule, matches=rule.matches[:at] + rule.matches[at + 1 :])
    for field in ("source", "destination", "in_interface", "out_interface", "protocol", "fragment"):
        if getattr(rule, field) is not None:
            yield msgspec.structs.replace(rule, **{field: None})


def _put(held: tuple[T, ...], at: int, item: T) -> tuple[T, ...]:
    return (*held[:at], item, *held[at + 1 :])


_SMALLER: Final = (_policies, _attachments, _hoisted, _chains, _conditions)
