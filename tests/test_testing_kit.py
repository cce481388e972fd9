"""Laws of the test kit as a public interface: what its README promises is there, and nothing is left untold."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import msgspec
import pytest

import meshfw.testing
from meshfw import Backend, Capabilities, Family, Language, MemoryBackend, MemoryKernel, Site, builtin_extensions
from meshfw.testing.book import LAWS, report
from meshfw.testing.coverage import Coverage
from meshfw.testing.lab import Lab
from meshfw.testing.reporting import Outcome
from meshfw.testing.wrapping import Wrapped

README = Path(meshfw.testing.__path__[0], "README.md").read_text(encoding="utf-8")
PROMISED = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(r"^\| `(\w+)` \| (`.*) \|$", README.partition("## What stays")[2], re.MULTILINE)
}
WITHOUT = set(re.findall(r"`(\w+)`", README.partition("No promise is made")[2]))


def test_every_module_is_promised_or_said_not_to_be() -> None:
    modules = {info.name for info in pkgutil.iter_modules(meshfw.testing.__path__)}
    assert len(PROMISED) > 10
    assert set(PROMISED) | WITHOUT == modules
    assert not set(PROMISED) & WITHOUT


@pytest.mark.parametrize("module", sorted(PROMISED))
def test_the_names_promised_are_those_that_the_module_exports(module: str) -> None:
    room = importlib.import_module(f"meshfw.testing.{module}")
    assert PROMISED[module] == list(room.__all__)
    for name in room.__all__:
        value = getattr(room, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_every_outcome_of_a_report_is_told() -> None:
    section = README.partition("## The report")[2].partition("\n## ")[0]
    assert re.findall(r"^\* \*([a-z ]+)\*:", section, re.MULTILINE) == [
        outcome.value for outcome in Outcome if outcome is not Outcome.FAILED
    ] + ["failed"]


# --- what narrows a law ------------------------------------------------------------------------------------


class Told(Wrapped):
    """A backend that says other capabilities than the memory backend's."""

    def __init__(self, inner: Backend, capabilities: Capabilities) -> None:
        super().__init__(inner)
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities


def coverage_with(**said: object) -> Coverage:
    """What the book covers of a backend with all capabilities but these."""
    kernel = MemoryKernel()
    language = Language.of(builtin_extensions())
    options = {"kernel": kernel}

    def make(owner: str) -> Backend:
        capabilities = msgspec.structs.replace(Capabilities(), **said)
        return Told(MemoryBackend(Site(owner=owner, language=language, options=options)), capabilities)

    lab = Lab(make, count=kernel.count)
    try:
        return report(lab)
    finally:
        lab.close()


NARROWINGS: dict[str, tuple[object, set[str]]] = {
    "families": (frozenset({Family.IPV4}), {"families_are_held_apart"}),
    "native_sets": (False, set()),
    "opaque": (True, {"unsupported_is_refused_first"}),
    "counters": (False, {"counters_survive"}),
    "counters_move": (frozenset({Family.IPV6}), {"counters_survive"}),
    "kernel": (False, {"packets_meet_the_rules_in_order", "ranks_and_conditions_are_met"}),
    "processes_per_family": (1, {"processes_stay_in_budget"}),
}
NOTHING = {"atomicity", "foreign_accept_wins"}
"""Capabilities that no law goes by: what is asked for stands whatever they say."""


def test_every_capability_is_told_with_what_it_does_to_the_laws() -> None:
    rows = README.partition("## What narrows a law")[2].partition("\n## ")[0]
    assert set(NARROWINGS) | NOTHING == set(Capabilities.__struct_fields__)
    for name, (_, laws) in NARROWINGS.items():
        (row,) = re.findall(rf"^\| `{name}\b.*$", rows, re.MULTILINE)
        assert all(f"`{law}`" in row for law in laws), row
    assert all(f"`{name}`" in rows for name in NOTHING)
    assert {law.name for law in LAWS} >= set(re.findall(r"`([a-z]+(?:_[a-z]+){2,})`", rows)) - NOTHING - set(NARROWINGS)


@pytest.mark.parametrize("name", sorted(NARROWINGS))
def test_each_narrowing_by_a_capability_is_named_in_the_coverage(name: str) -> None:
    value, laws = NARROWINGS[name]
    usual, made = coverage_with(), coverage_with(**{name: value})
    pairs = zip(usual.laws, made.laws, strict=True)
    changed = {
        new.law
        for old, new in pairs
        if (old.narrowed, old.eased) != (new.narrowed, new.eased) and "namespace" not in (old.narrowed or "")
    }
    if name == "kernel":
        changed |= {entry.law for entry in made.laws if entry.narrowed == "no packet meets the backend's rules"}
    assert changed == laws
    assert any(line.startswith(f"{name}: ") for line in made.differences)
    assert (usual.scope != made.scope) == (name in {"families", "native_sets"})
