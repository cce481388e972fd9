"""The edits by position that make one list of rules another: few, right, and none on a rule of their own making."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given

from meshfw.backends.iptables_text import edit_lines
from tests.edits import Items, carried_out, old_rules, scripts

LINE = re.compile(r"-[DIR] meshfw-x (\d+)|-A meshfw-x")


@given(scripts())
def test_edits_make_the_list_that_is_wanted(script: tuple[int, Items]) -> None:
    length, items = script
    wanted = [text if not position else old_rules(length)[position - 1] for position, text in items]
    assert carried_out(edit_lines("meshfw-x", length, items), length) == wanted


@given(scripts())
def test_no_edit_names_a_rule_that_an_edit_made(script: tuple[int, Items]) -> None:
    length, items = script
    rules: list[str | None] = [None] * length
    for line in edit_lines("meshfw-x", length, items):
        found = LINE.match(line)
        assert found is not None
        at = int(found[1] or 0)
        if line.startswith("-A"):
            rules.append("made")
            continue
        assert 1 <= at <= len(rules) + line.startswith("-I")
        if line.startswith("-I"):
            rules.insert(at - 1, "made")
            continue
        assert rules[at - 1] is None, f"{line} names a rule of this script's own"
        if line.startswith("-D"):
            del rules[at - 1]
        else:
            rules[at - 1] = "made"


@given(scripts())
def test_edits_are_the_fewest_that_leave_alone_what_stays(script: tuple[int, Items]) -> None:
    length, items = script
    places = [-1, *(index for index, (position, _) in enumerate(items) if position), len(items)]
    positions = [0, *(position for position, _ in items if position), length + 1]
    gaps = zip(pairwise(places), pairwise(positions), strict=True)
    least = sum(max(after - before - 1, high - low - 1) for (before, after), (low, high) in gaps)
    assert len([*edit_lines("meshfw-x", length, items)]) == least


@pytest.mark.parametrize(
    ("length", "items", "lines"),
    [
        (0, [], []),
        (2, [(1, ""), (2, "")], []),
        (0, [(0, "a"), (0, "")], ["-A meshfw-x a", "-A meshfw-x"]),
        (2, [(0, "a"), (0, "b"), (0, "c")], ["-A meshfw-x c", "-R meshfw-x 1 a", "-R meshfw-x 2 b"]),
        (3, [(1, ""), (0, "a"), (3, "")], ["-R meshfw-x 2 a"]),
        (3, [(3, "")], ["-D meshfw-x 2", "-D meshfw-x 1"]),
        (1, [(0, "a"), (0, "b"), (1, "")], ["-I meshfw-x 1 a", "-I meshfw-x 2 b"]),
    ],
)
def test_edits_read_as_a_person_would_write_them(length: int, items: Items, lines: list[str]) -> None:
    assert [*edit_lines("meshfw-x", length, items)] == lines
