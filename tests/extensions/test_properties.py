"""Laws of the typed extensions for any value: text and back is the same rule, and equality is one relation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfw.errors import MeshfwError
from meshfw.languages.iptables import parse_rule
from meshfw.languages.iptables.vocabulary import BASE_OPTIONS
from meshfw.model import Family, Match, Rule, Target
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.judges import (
    Iptables,
    Line,
    Trap,
    canonical,
    check,
    furnish,
    home,
    loadable,
    lost,
    sample,
    smaller,
)
from tests.extensions.rules import rules

RULES = st.sampled_from(Family).flatmap(lambda family: st.tuples(st.just(family), rules(family)))


@given(RULES)
def test_text_and_back_is_the_same_rule(held: tuple[Family, Rule]) -> None:
    family, rule = held
    assert rule.problem(family) is None
    text = canonical(rule, family)
    again = parse_rule(text, family=family, language=LANGUAGE)
    assert again == rule
    assert again.target == rule.target
    assert canonical(again, family) == text
    # Not the meaning alone: every value, in its place but where iptables couldn't tell whose an option is.
    assert sorted(map(repr, again.matches)) == sorted(map(repr, rule.matches))
    kinds = [type(match) for match in rule.matches]
    assert again.matches == rule.matches or len(set(kinds)) < len(kinds)


# --- equality ----------------------------------------------------------------------------------------------


def raw(text: str, family: Family) -> Rule:
    return parse_rule(text, family=family, language=LANGUAGE)


def other_spelling(rule: Rule, family: Family) -> str:
    """The rule with its stateless matches, the options of each and the names of all in another choice and order."""
    random = Random(canonical(rule, family))  # noqa: S311  (no secret: the same rule is always spelt the same)
    words: list[str] = []
    for word in canonical(msgspec.structs.replace(rule, matches=(), target=None), family).split():
        names = [name for name, field in BASE_OPTIONS.items() if field == BASE_OPTIONS.get(word)]
        words.append(random.choice(names) if names else word)
    for match in shuffled(rule.matches, random):
        extension = LANGUAGE.by_value[type(match)]
        words += [random.choice(("-m", "--match")), extension.name, *respelt(rule, match, family, random)]
    target = canonical(Rule(target=rule.target), family).split(" ", 2)[:2]
    words += target
    if rule.target is not None and type(rule.target) in LANGUAGE.by_value:
        words += respelt(rule, rule.target, family, random)
    return " ".join(words)


def shuffled(matches: Sequence[Match], random: Random) -> Iterator[Match]:
    """The matches with those of no state among themselves in any order, each kind of them together."""
    held: list[Match] = []
    for match in (*matches, None):
        if match is not None and not match.stateful:
            held.append(match)
            continue
        kinds = list({type(each) for each in held})
        random.shuffle(kinds)
        yield from (each for kind in kinds for each in held if type(each) is kind)
        held.clear()
        if match is not None:
            yield match


ORDERED: Final = {
    "policy": "--next parts the elements",
    "owner": "--suppl-groups stands behind --gid-owner",
}
"""Extensions whose options can't stand in any order."""


def respelt(rule: Rule, value: Match | Target, family: Family, random: Random) -> list[str]:
    """The words of a value's options in any order, under any names that nothing else of the rule has as well."""
    extension = LANGUAGE.by_value[type(value)]
    kinds = {type(held) for held in (*rule.matches, rule.target)} & set(LANGUAGE.by_value) - {type(value)}
    taken = {name for kind in kinds for option in LANGUAGE.by_value[kind].options for name in option.names}
    known = {name: option for option in extension.options for name in option.names}
    told = extension.words(value, family)
    words = iter(told)
    options: list[list[str]] = []
    for word in words:
        sign = [word] if word == "!" else []
        option = known[next(words) if sign else word]
        names = [name for name in option.names if not any(other.startswith(name) for other in taken)]
        behind = [next(words, "") for _ in range(option.words)]
        if "" in behind or any(word in known or word == "!" for word in behind):
            return told  # an option that can stand without its words, where the place says which is meant
        options.append([*sign, random.choice(names or [option.name]), *behind])
    if extension.name not in ORDERED:
        random.shuffle(options)
    return [word for option in options for word in option]


@given(RULES)
def test_equality_is_reflexive_symmetric_and_of_equal_hashes(held: tuple[Family, Rule]) -> None:
    family, rule = held
    spelt = raw(other_spelling(rule, family), family)
    saved = raw(canonical(spelt, family), family)
    for one, other in permutations((rule, spelt, saved, msgspec.structs.replace(rule)), 2):
        assert one == other
        assert hash(one) == hash(other)
        assert (one != other) is False


@pytest.mark.parametrize("family", Family)
def test_equality_parts_all_rules_into_classes(family: Family) -> None:
    held = [*sample(family)[:60], *(less for rule in sample(family)[:20] for less in smaller(rule, family))]
    classes: dict[Rule, list[Rule]] = {}
    for rule in held:
        classes.setdefault(rule, []).append(rule)
    for one, alike in classes.items():
        assert [rule for rule in held if rule == one] == alike
        assert [rule for rule in held if one == rule] == alike


WRONG: Final = (Trap(r"! --ctstatus .*--ctproto 0\b", "it takes the sign of --ctstatus for that of --ctproto"),)
"""Spellings that iptables 1.8.9 refuses for no reason."""


class Spelling:
    """The judge of spellings: iptables stores each as the rule that it was made of."""

    def __init__(self, iptables: Iptables, family: Family) -> None:
        self._iptables = iptables
        self._family = family

    def __call__(self, held: Sequence[Rule]) -> list[str]:
        """What is wrong with the other spelling of each rule of which we don't say that it gets lost."""
        asked = {index: rule for index, rule in enumerate(held) if not lost(rule, "legacy")}
        texts = [self._spelt(rule) for rule in asked.values()]
        lines = [Line(home(rule), text) for rule, text in zip(asked.values(), texts, strict=True)]
        answers = self._iptables.saved(self._family, lines)
        said = [""] * len(held)
        for at, (index, rule) in enumerate(asked.items()):
            if at in answers.refused or not self._equal(rule, answers.made.get(at, "")):
                said[index] = f"{texts[at]}\n    {answers.refused.get(at) or answers.made.get(at)}"
        return said

    def _spelt(self, rule: Rule) -> str:
        text = other_spelling(rule, self._family)
        return canonical(rule, self._family) if any(trap.holds(text) for trap in WRONG) else text

    def _equal(self, rule: Rule, text: str) -> bool:
        try:
            return raw(text, self._family) == rule
        except MeshfwError:
            return False


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
def test_iptables_takes_every_spelling_for_the_rule(
    kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path, family: Family
) -> None:
    requires("iptables-legacy-restore", "ip6tables-legacy-restore", "ipset")
    with kernel_room() as room:
        furnish(room)
        check(loadable(family), family, Spelling(Iptables(room, "legacy", tmp_path / "lock"), family))
