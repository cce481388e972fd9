"""Thousands of rules that nobody here wrote, each written by the iptables backends and read back as what it was.

The vectors are those of test_corpus; each rule stands in a chain of ours that nothing leads to, and its jumps lead
to an empty one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from meshfw.errors import MeshfwError
from meshfw.extensions import Language
from meshfw.languages.iptables import parse_rule
from meshfw.model import Chain, Family, Goto, Jump, Rule, Ruleset, Table
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.corpus import language as every_extension
from tests.corpus import needed, vectors
from tests.kernel.neighbours import MODES, Ours, Street, streets

pytestmark = [pytest.mark.kernel, needed]

CHUNK: Final = 100
# At least so many rules are read back.
FILES: Final = [("realworld.jsonl", 4050), ("iptables_t.jsonl", 2050)]


@pytest.fixture(params=MODES)
def street(
    request: pytest.FixtureRequest, kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path
) -> Iterator[Street]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    with streets(kernel_room, tmp_path) as make:
        yield make(request.param)


def chosen(vector: dict[str, Any], mode: str) -> bool:
    """Whether the rule stands by itself, and this iptables takes it."""
    needs_a_set = "--match-set" in vector["argv"] or "SET" in vector["argv"]
    return vector[f"{mode}_ok"] and vector["table"] in set(Table) and not vector.get("setup") and not needs_a_set


def rulesets(name: str, mode: str, language: Language) -> Iterator[Ruleset]:
    found: dict[tuple[Family, Table], list[Rule]] = defaultdict(list)
    for vector in vectors(name):
        if not chosen(vector, mode):
            continue
        family, table = Family(vector["family"]), Table(vector["table"])
        try:
            rule = parse_rule(vector["argv"], family=family, language=language)
        except MeshfwError:
            continue  # refused by the language, which test_corpus counts
        if any(mode in loss.variants for loss in rule.losses()):
            continue  # refused by the backend, which test_losses shows
        if isinstance(rule.target, Jump | Goto):
            rule = msgspec.structs.replace(rule, target=type(rule.target)("there"))
        found[family, table].append(rule)
    for (family, table), rules in found.items():
        chunks: list[Sequence[Rule]] = [(), *(rules[at : at + CHUNK] for at in range(0, len(rules), CHUNK))]
        names = ["there", *(f"rules{index}" for index in range(1, len(chunks)))]
        yield Ruleset(
            chains=tuple(
                Chain(family=family, table=table, name=name, rules=tuple(chunk))
                for name, chunk in zip(names, chunks, strict=True)
            )
        )


@pytest.mark.parametrize(("name", "least"), FILES)
def test_rules_are_read_back_as_they_were_written(street: Street, name: str, least: int) -> None:
    language = every_extension()
    held = 0
    for ruleset in rulesets(name, street.mode, language):
        ours = Ours(street, f"iptables-{street.mode}", ruleset, language=language)
        assert apply(ours.backend, ruleset).commits == 1
        assert ours.edits(ours.fresh()) == []
        apply(ours.fresh(), Ruleset())
        held += sum(len(chain.rules) for chain in ruleset.chains)
    assert held >= least
