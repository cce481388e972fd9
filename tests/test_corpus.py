"""Laws over rules that nobody here wrote, each run against iptables 1.8.9 before: text, equality and difference.

The vectors are no part of the project: they are read from a directory beside the checkout, or where MESHFW_CORPUS says.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshfw.errors import InexpressibleError, ParseError
from meshfw.extensions import HostTables, Language, builtin_extensions
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.languages.nft import render_rule
from meshfw.model import Family, OpaqueMatch, OpaqueTarget, Rule

CORPUS = Path(os.environ.get("MESHFW_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")


def vectors(name: str) -> Iterator[dict[str, Any]]:
    path = CORPUS / name
    if not path.exists():
        pytest.skip(f"no corpus: {name} is not in {CORPUS.name}/ beside the checkout, nor where MESHFW_CORPUS says")
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def host_tables() -> HostTables:
    """The names of this host, as the tools had them when the vectors were made (services(5), protocols(5))."""
    services: dict[tuple[str, str], int] = {}
    protocols: dict[str, int] = {}
    for path, take in (("/etc/services", services), ("/etc/protocols", protocols)):
        if not os.path.exists(path):
            pytest.skip(f"{path} is missing; apt-get install netbase")
        with open(path, encoding="utf-8") as lines:
            for words in (line.split("#")[0].split() for line in lines):
                if len(words) < 2:
                    continue
                number, _, protocol = words[1].partition("/")
                for word in (words[0], *words[2:]):
                    if take is services:
                        services.setdefault((word, protocol), int(number))
                    else:
                        protocols.setdefault(word.lower(), int(number))
    return HostTables(services=services, protocols=protocols)


@pytest.fixture(scope="module")
def language() -> Language:
    return Language.of(builtin_extensions(), hosts=host_tables())


def typed(rule: Rule) -> bool:
    """Whether the typed language knows every match and the target."""
    return not isinstance(rule.target, OpaqueTarget) and not any(isinstance(m, OpaqueMatch) for m in rule.matches)


def parsed(argv: list[str], family: str, language: Language) -> Rule | None:
    try:
        return parse_rule(argv, family=Family(family), language=language)
    except ParseError:
        return None


def loaded(name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The vectors that iptables-legacy took, and what it saved behind ``-A CHAIN``."""
    for vector in vectors(name):
        if vector["legacy_ok"] and vector["legacy_save"]:
            words = vector["legacy_save"].split(" ", 2)
            yield vector, words[2] if len(words) > 2 else ""


# At least so many typed rules, so that the shares below are shares of something.
FILES = [("realworld.jsonl", 3500, 0.999, 0.999), ("iptables_t.jsonl", 850, 0.95, 0.999)]


@pytest.mark.parametrize(("name", "least", "taken", "same"), FILES)
def test_canonical_text_is_what_iptables_saves(
    language: Language, name: str, least: int, taken: float, same: float
) -> None:
    counts: Counter[str] = Counter()
    other_meaning = []
    for vector, saved in loaded(name):
        rule = parsed(vector["argv"], vector["family"], language)
        if rule is None:
            counts["refused"] += 1
        elif typed(rule):
            family = Family(vector["family"])
            counts["typed"] += 1
            counts["same"] += format_rule(rule, family=family, language=language) == saved
            if parse_rule(saved, family=family, language=language) != rule:
                other_meaning.append((vector["argv"], saved))
    assert other_meaning == []
    assert counts["typed"] >= least
    assert counts["typed"] / (counts["typed"] + counts["refused"]) >= taken
    assert counts["same"] / counts["typed"] >= same


def test_forms_that_iptables_saves_alike_are_equal(language: Language) -> None:
    compared = 0
    different = []
    for vector in vectors("equiv.jsonl"):
        rules = [parsed(form, vector["family"], language) for form in vector["forms"]]
        first = rules[0]
        if first is None or not all(rule is not None and typed(rule) for rule in rules):
            continue
        compared += 1
        if any(rule != first for rule in rules):
            different.append(vector["id"])
    assert different == []
    assert compared >= 1060


def test_rules_that_iptables_saves_differently_are_different(language: Language) -> None:
    compared = 0
    equal = []
    for vector in vectors("nearmiss.jsonl"):
        one, other = (parsed(vector[side], vector["family"], language) for side in ("a", "b"))
        if one is None or other is None or not (typed(one) and typed(other)):
            continue
        compared += 1
        if one == other:
            equal.append(vector["id"])
    assert equal == []
    assert compared >= 1600


def test_nearly_every_typed_rule_of_the_field_can_be_said_in_nft(language: Language) -> None:
    said, unsaid = 0, []
    for vector, _ in loaded("realworld.jsonl"):
        rule = parsed(vector["argv"], vector["family"], language)
        if rule is None or not typed(rule):
            continue
        try:
            render_rule(rule, family=Family(vector["family"]), language=language)
            said += 1
        except InexpressibleError as error:
            unsaid.append(error.reason)
    assert all(unsaid), "each refusal says why"
    assert said / (said + len(unsaid)) >= 0.98
