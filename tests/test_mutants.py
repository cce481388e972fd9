"""The law book is tested by mutants: broken backends, each caught by the law that it names."""

from __future__ import annotations

import pytest

from meshfw.testing.book import LAWS, try_law
from meshfw.testing.lab import Law
from meshfw.testing.mutants import MUTANTS, Mutant, caught, memory_lab

BY_NAME = {law.name: law for law in LAWS}
NO_PACKETS = {"packets_meet_the_rules_in_order", "ranks_and_conditions_are_met"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_is_caught_by_its_law(mutant: Mutant) -> None:
    assert caught(BY_NAME[mutant.caught_by], mutant.mutate) is not None


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if not m.of_sets], ids=lambda mutant: mutant.name)
def test_every_mutant_without_sets_is_caught_by_its_law(mutant: Mutant) -> None:
    assert caught(BY_NAME[mutant.caught_by], mutant.mutate, native_sets=False) is not None


@pytest.mark.parametrize("native_sets", [True, False])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_a_sound_backend_breaks_no_law(law: Law, native_sets: bool) -> None:
    lab = memory_lab(native_sets=native_sets)
    if law.name in NO_PACKETS:
        assert law.narrowed(lab) == "no packet meets the backend's rules"
    else:
        assert law.narrowed(lab) is None
        try_law(law, lab)


def test_every_law_catches_a_mutant() -> None:
    assert {mutant.caught_by for mutant in MUTANTS} == {law.name for law in LAWS} - NO_PACKETS


def test_there_are_mutants_of_every_kind() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 14
