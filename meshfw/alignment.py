"""Which rules of an old list may stay in a new one: a longest common subsequence, and its longest unbroken run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

from meshfw.model import Rule

PAIRS_MAX: Final = 2_000_000
"""More candidate pairs of equal rules than this (thousands of duplicates) are matched in order instead."""


def longest_run(kept: Sequence[int], stateful: Sequence[bool]) -> tuple[int, int]:
    """Start and end of the run of rules that can stay untouched where a backend writes at head and tail only.

    Of all runs the one with most rules that remember (limit and the like), since those lose more than a place when
    they are written again; then the longest, then the first.
    """
    best, best_weight = (0, 0), (0, 0)
    start, weight = 0, (0, 0)
    for index, old in enumerate((*kept, -1)):
        if old >= 0:
            weight = (weight[0] + stateful[index], weight[1] + 1)
            continue
        if weight > best_weight:
            best, best_weight = (start, index), weight
        start, weight = index + 1, (0, 0)
    return best


def align(old: Sequence[Rule | None], new: Sequence[Rule]) -> tuple[int, ...]:
    """For each new rule the index of the equal old rule that stays in its place, or -1; the longest such choice.

    A longest common subsequence by Hunt and Szymanski, O((r + n) log n) for r pairs of equal rules.
    """
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and _same(old[start], new[start]):
        start += 1
    end = 0
    while end < shorter - start and _same(old[-1 - end], new[-1 - end]):
        end += 1
    head = tuple(range(start))
    tail = tuple(range(len(old) - end, len(old)))
    middle = _longest(old[start : len(old) - end], new[start : len(new) - end])
    return (*head, *(index + start if index >= 0 else -1 for index in middle), *tail)


def _same(old: Rule | None, new: Rule) -> bool:
    return old is new or old == new


_Link = tuple[int, int, Any]
"""A pair of equal rules (new index, old index) and the link before it in its common subsequence, or None."""


def _longest(old: Sequence[Rule | None], new: Sequence[Rule]) -> list[int]:
    """The longest common subsequence: for each new rule an old index or -1."""
    if not old or not new:
        return [-1] * len(new)
    places: dict[Any, list[int]] = {}
    for index, rule in enumerate(old):
        if rule is not None:
            places.setdefault(rule.key(), []).append(index)
    candidates: list[Sequence[int]] = [places.get(rule.key(), ()) for rule in new]
    if sum(map(len, candidates)) > PAIRS_MAX:
        candidates = _in_order(places, new)
    ends: list[int] = []  # ends[k]: the lowest old index that ends a common subsequence of length k + 1
    tops: list[_Link] = []
    for position, indices in enumerate(candidates):
        for index in reversed(indices):
            length = bisect_left(ends, index)
            link: _Link = (position, index, tops[length - 1] if length else None)
            if length == len(ends):
                ends.append(index)
                tops.append(link)
            else:
                ends[length] = index
                tops[length] = link
    chosen = [-1] * len(new)
    last: _Link | None = tops[-1] if tops else None
    while last is not None:
        chosen[last[0]] = last[1]
        last = last[2]
    return chosen


def _in_order(places: Mapping[Any, list[int]], new: Sequence[Rule]) -> list[Sequence[int]]:
    """One candidate for each new rule: the first of its key with the first, the second with the second."""
    queues = {key: iter(indices) for key, indices in places.items()}
    found: list[Sequence[int]] = []
    for rule in new:
        index = next(queues[key], None) if (key := rule.key()) in queues else None
        found.append(() if index is None else (index,))
    return found
