"""Laws of the typed extensions for any value: text and back is the same rule, and equality is one relation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshfw.extensions import Extension
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.iptables.lexer import Word, split
from meshfw.model import Family, Match, Rule
from tests.extensions.case import LANGUAGE
from tests.extensions.judges import Iptables, Line, batches, canonical, check, home, sample
from tests.extensions.rules import rules

RULES = st.sampled_from(Family).flatmap(lambda family: st.tuples(st.just(family), rules(family)))


@given(RULES)
def test_text_and_back_is_the_same_rule(held: tuple[Family, Rule]) -> None:
    family, rule = held
    text = canonical(rule, family)
    again = parse_rule(text, family=family, language=LANGUAGE)
    assert again == rule
    assert sorted(map(repr, again.matches)) == sorted(map(repr, rule.matches))  # not the meaning alone: every value
    assert again.target == rule.target
    assert canonical(again, family) == text
