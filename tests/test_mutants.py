"""The law book is tested by mutants: broken backends, each caught by the law that it names."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from meshfw.backend import Fingerprint
from meshfw.backends.memory import MemoryBackend
from meshfw.snapshot import ListKey, Snapshot
from meshfw.testing.book import LAWS, try_law
from meshfw.testing.broken_writers import Mutated
from meshfw.testing.lab import Law
from meshfw.testing.mutants import MUTANTS, Mutant, caught, memory_lab

BY_NAME = {law.name: law for law in LAWS}
NO_NARROWING = "moved_names_every_list_that_differs"
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
    elif law.name == NO_NARROWING:
        assert law.narrowed(lab) == "the backend can't tell which lists others changed"
    else:
        assert law.narrowed(lab) is None
        try_law(law, lab)


class NamesThemAll(Mutated):
    """A sound backend that tells which lists others changed."""

    def __init__(self, inner: MemoryBackend) -> None:
        super().__init__(inner)
        self._held: dict[Fingerprint | None, Snapshot] = {}

    def fingerprint(self) -> Fingerprint | None:
        """Passed on; what stands then is remembered."""
        seen = self.inner.observe()
        self._held[seen.fingerprint] = seen.snapshot
        return seen.fingerprint

    def moved(self, since: Fingerprint) -> Collection[ListKey] | None:
        """The lists that differ; None where sets do, or where something is broken."""
        old, new = self._held[since], self.inner.observe().snapshot
        if (old.sets, old.broken) != (new.sets, new.broken):
            return None
        return [key for key in {**old.lists, **new.lists} if old.lists.get(key) != new.lists.get(key)]


@pytest.mark.parametrize("native_sets", [True, False])
def test_a_backend_that_names_all_that_moved_breaks_no_law(native_sets: bool) -> None:
    assert caught(BY_NAME[NO_NARROWING], NamesThemAll, native_sets=native_sets) is None


def test_every_law_catches_a_mutant() -> None:
    assert {mutant.caught_by for mutant in MUTANTS} == {law.name for law in LAWS} - NO_PACKETS


def test_there_are_mutants_of_every_kind() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 14
