"""Laws over whole dumps that nobody here wrote, on both iptables: beside each as somebody else's, and of each as ours.

The dumps are read as in test_corpus. Each is loaded or applied in one room that is emptied in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.errors import MeshfwError
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.model import HOOKS, Family, Ruleset, Table
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.corpus import language as every_extension
from tests.corpus import needed, vectors
from tests.kernel.neighbours import MODES, Ours, Street, both_places, saved, streets

pytestmark = [pytest.mark.kernel, needed]

LOADED: Final = 231
"""Dumps that iptables 1.8.9 took whole."""


@pytest.fixture(params=MODES)
def street(
    request: pytest.FixtureRequest, kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path: Path
) -> Iterator[Street]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    with streets(kernel_room, tmp_path) as make:
        yield make(request.param)


class Tables:
    """The tables of one family in a street, and their rules as save prints them."""

    def __init__(self, street: Street, family: Family) -> None:
        self._street = street
        self._tool = f"{'iptables' if family is Family.IPV4 else 'ip6tables'}-{street.mode}"
        self._held: set[Table] = set()

    def load(self, text: str) -> None:
        """Put a dump into effect, and make every other table empty."""
        named = {table for table in Table if f"*{table}\n" in text}
        empty = "".join(self._empty(table) for table in sorted(self._held - named))
        self._street.run(f"{self._tool}-restore", "-w", text=empty + text)
        self._held = named

    @staticmethod
    def _empty(table: Table) -> str:
        chains = "".join(f":{hook.upper()} ACCEPT [0:0]\n" for hook in sorted(HOOKS[table]))
        return f"*{table}\n{chains}COMMIT\n"

    def text(self) -> str:
        """All rules of everybody."""
        return saved(self._street.run(f"{self._tool}-save").stdout)

    def theirs(self) -> str:
        """All rules but those of the owner meshfw."""
        text = self._street.run(f"{self._tool}-save").stdout
        return saved(text, lambda line: "meshfw-" not in line and "meshfw." not in line)


def dumps() -> list[dict[str, Any]]:
    """The dumps that iptables takes, those of one family after those of the other."""
    taken = [row for row in vectors("dumps.jsonl") if row["legacy_ok"] and row["nft_ok"]]
    return sorted(taken, key=lambda row: str(row["family"]))


def test_rules_of_others_stay_as_they_are_whatever_they_are(street: Street) -> None:
    ruleset = both_places()
    tables = {family: Tables(street, family) for family in Family}
    wrong: dict[str, list[str]] = {}
    rows = dumps()
    for before, row in zip([rows[0], *rows], rows, strict=False):
        assert "meshfw" not in row["text"], "rules of ours are told from theirs by the owner's name"
        if before["family"] != row["family"]:
            tables[Family(before["family"])].load("")
        here = tables[Family(row["family"])]
        here.load(row["text"])
        found = beside(street, here, ruleset)
        if found:
            wrong[f"{row['id']} {row['file']}"] = found
    assert wrong == {}
    assert len(rows) == LOADED


def beside(street: Street, theirs: Tables, ruleset: Ruleset) -> list[str]:
    """What is not as it shall be when ours come beside theirs, stay and go."""
    found = []
    before = theirs.text()
    ours = Ours(street, f"iptables-{street.mode}", ruleset)
    apply(ours.backend, ruleset)
    generation = street.generation()
    if theirs.theirs() != before:
        found.append("theirs are changed")
    fresh = ours.fresh()
    for name, instance in (("same", ours.backend), ("fresh", fresh)):
        if apply(instance, ruleset).commits:
            found.append(f"a second apply of the {name} instance writes")
    if street.generation() != generation:
        found.append("the generation has moved")
    apply(fresh, Ruleset())
    if theirs.text() != before:
        found.append("something is left of ours, or missing of theirs")
    for instance in (ours.backend, fresh):
        instance.close()
    return found


def test_dumps_as_our_own_are_read_back_as_they_were_written(street: Street) -> None:
    language = every_extension()
    refused: dict[str, str] = {}
    wrong: dict[str, list[str]] = {}
    held = 0
    tables = {family: Tables(street, family) for family in Family}
    for row in dumps():
        family = Family(row["family"])
        try:
            ruleset = ruleset_of_dump(parse_dump(row["text"], family=family, language=language))
        except MeshfwError as error:
            refused[row["file"].rpartition("/")[2]] = str(error)
            continue
        ours = Ours(street, f"iptables-{street.mode}", ruleset, language=language)
        found = read_back(ours, tables[family])
        held += 1
        if found:
            wrong[f"{row['id']} {row['file']}"] = found
    assert wrong == {}
    assert refused == {}
    assert held == LOADED


def read_back(ours: Ours, tables: Tables) -> list[str]:
    """What is not as it shall be when a ruleset comes, stays and goes, by this instance and a fresh one."""
    found = []
    try:
        apply(ours.backend, ours.ruleset)
    except MeshfwError as error:
        apply(ours.fresh(), Ruleset())
        return [str(error)]
    generation = ours.street.generation()
    if apply(ours.backend, ours.ruleset).commits:
        found.append("a second apply writes")
    if ours.street.generation() != generation:
        found.append("the generation has moved")
    fresh = ours.fresh()
    found += ours.edits(fresh)
    apply(fresh, Ruleset())
    left = tables.text()
    if left:
        found.append(left)
    for instance in (ours.backend, fresh):
        instance.close()
    return found
