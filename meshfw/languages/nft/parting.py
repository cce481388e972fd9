"""An nft rule of several statements as one rule for each, in order: ``log prefix "x" drop`` is LOG, then DROP.

A rule of iptables has one target. A statement that lets the packet go on becomes a rule of its own, of the conditions
before it; the rule behind it has all conditions. So conditions are asked again: not where they count, remember or draw
lots, nor where the statement has changed what they look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from meshfw.languages.nft.unfolding import Statement, draws

_ASKED: Final = frozenset({"match", "counter"})
_CHANGED_HEADERS: Final = frozenset({"base", "checksum"})
"""Words of conditions that any change of a header may concern: raw places, and its checksum."""


def parted(statements: Sequence[Statement]) -> list[list[Statement]]:
    """The statements of the rules that together mean the one; itself alone where it can't be taken apart."""
    spots = [at for at, statement in enumerate(statements) if _changes(statement) is not None]
    behind = [statement for at, statement in enumerate(statements) if at not in spots]
    if all(_kind(statement) in _ASKED for statement in behind):
        behind = []  # nothing is left to do
    last = spots[-1] if behind and spots else spots[-2] if len(spots) > 1 else -1
    if last < 0 or not _askable_again(statements[: last + 1]):
        return [list(statements)]
    parts = [[*_conditions(statements[:at]), statements[at]] for at in spots]
    return [*parts, behind] if behind else parts


def _kind(statement: Statement) -> str:
    return next(iter(statement))


def _conditions(statements: Sequence[Statement]) -> list[Statement]:
    return [statement for statement in statements if _kind(statement) == "match"]


def _askable_again(before: Sequence[Statement]) -> bool:
    """Whether the conditions before the last statement that goes on answer the same when they are asked again."""
    changed: set[str] = set()
    for statement in before:
        words = _changes(statement)
        if words is None and (_kind(statement) not in _ASKED or draws(statement)):
            return False
        changed |= words or set()
    return not changed.intersection(word for held in _conditions(before) for word in _words(held))


def _changes(statement: Statement) -> frozenset[str] | None:
    """The words by which conditions look at what a statement changes; None where it isn't one that goes on."""
    ((kind, body),) = statement.items()
    if kind == "log":
        return frozenset()
    if kind == "notrack":
        return frozenset({"ct"})
    if kind != "mangle":
        return None
    ((where, key),) = body["key"].items()
    if where == "meta" or (where == "ct" and key["key"] in ("mark", "label")):
        return frozenset({key["key"]})
    if "field" in key:
        return _CHANGED_HEADERS | {key["field"]}
    return None


def _words(held: Any) -> Iterator[str]:
    """All words of a statement, names and values alike."""
    if isinstance(held, str):
        yield held
    elif isinstance(held, Mapping):
        for name, value in held.items():
            yield name
            yield from _words(value)
    elif isinstance(held, list):
        for part in held:
            yield from _words(part)
