"""Laws of the typed extensions for any value: text and back is the same rule, and printing is stable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import Family, Rule
from tests.extensions.case import LANGUAGE
from tests.extensions.rules import rules

RULES = st.sampled_from(Family).flatmap(lambda family: st.tuples(st.just(family), rules(family)))


@given(RULES)
def test_text_and_back_is_the_same_rule(held: tuple[Family, Rule]) -> None:
    family, rule = held
    assert rule.problem(family) is None
    text = format_rule(rule, family=family, language=LANGUAGE)
    again = parse_rule(text, family=family, language=LANGUAGE)
    assert again == rule
    assert again.matches == rule.matches  # not the meaning alone: every value, in its place
    assert again.target == rule.target
    assert format_rule(again, family=family, language=LANGUAGE) == text


@given(RULES)
def test_equal_rules_hash_equally(held: tuple[Family, Rule]) -> None:
    _, rule = held
    twin = Rule(protocol=rule.protocol, matches=rule.matches, target=rule.target)
    assert twin == rule
    assert hash(twin) == hash(rule)
