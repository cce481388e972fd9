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


def shared_ends(old: Sequence[Rule | None], new: Sequence[Rule]) -> tuple[int, int]:
    """How many rules the two begin with alike, and how many of the rest they end with alike.

    Block by block: equal tuples of the very same values are compared in some 5 ns a rule, and it's these that two
    versions of a long chain have in common.
    """
    old, new = tuple(old), tuple(new)
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start : start + _BLOCK] == new[start : start + _BLOCK]:
        start += _BLOCK
    start = min(start, shorter)
    while start < shorter and _same(old[start], new[start]):
        start += 1
    left = shorter - start
    from_old, from_new = len(old), len(new)
    end = 0
    while end + _BLOCK <= left and (
        old[from_old - end - _BLOCK : from_old - end] == new[from_new - end - _BLOCK : from_new - end]
    ):
        end += _BLOCK
    while end < left and _same(old[-1 - end], new[-1 - end]):
        end += 1
    return start, end


_BLOCK: Final = 128


def align(old: Sequence[Rule | None], new: Sequence[Rule], *, ends: tuple[int, int] | None = None) -> tuple[int, ...]:
    """For each new rule the index of the equal old rule that stays in its place, or -1; the longest such choice.

    A longest common subsequence by Hunt and Szymanski, O((r + n) log n) for r pairs of equal rules. ``ends`` are the
    :func:`shared_ends` where they are known already.
    """
    old, new = tuple(old), tuple(new)
    start, end = shared_ends(old, new) if ends is None else ends
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
    turned = _turned(old, new)
    if turned is not None:
        return turned
    places: dict[Rule, list[int]] = {}  # by the rules themselves: their keys, kept, would be most of the memory
    for index, rule in enumerate(old):
        if rule is not None:
            places.setdefault(rule, []).append(index)
    candidates: list[Sequence[int]] = [places.get(rule, ()) for rule in new]
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


def _turned(old: Sequence[Rule | None], new: Sequence[Rule]) -> list[int] | None:
    """What stays where one rule moved behind all others or before them; the most there can be, as not all is alike."""
    if len(old) == len(new) and old[1:] == new[:-1]:
        return [*range(1, len(old)), -1]
    if len(old) == len(new) and old[:-1] == new[1:]:
        return [-1, *range(len(old) - 1)]
    return None


def _in_order(places: Mapping[Rule, list[int]], new: Sequence[Rule]) -> list[Sequence[int]]:
    """One candidate for each new rule: the first of its key with the first, the second with the second."""
    queues = {rule: iter(indices) for rule, indices in places.items()}
    found: list[Sequence[int]] = []
    for rule in new:
        index = next(queues[rule], None) if rule in queues else None
        found.append(() if index is None else (index,))
    return found
