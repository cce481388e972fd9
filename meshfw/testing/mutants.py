"""The mutant kit: deliberately broken backends, each caught by the law that it names. It tests the law book itself.

Every mutant wraps a sound :class:`~meshfw.backends.memory.MemoryBackend` and breaks one promise, most of them in a way
that the reading after a commit can't see. A law book that lets one of them pass has a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from meshfw.backend import Backend, Site
from meshfw.backends.memory import MemoryBackend
from meshfw.backends.memory_kernel import MemoryKernel
from meshfw.errors import MeshfwError
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.model import Family
from meshfw.testing import broken_readers, broken_watches, broken_writers
from meshfw.testing.book import cases_of
from meshfw.testing.lab import Foreign, Lab, Law

Mutate = Callable[[MemoryBackend], Backend]
"""Makes a broken backend of a sound one."""

STRANGERS: Final = "*filter\n:DOCKER - [0:0]\n-A DOCKER -m nobody --knows this -j WHATEVER\nCOMMIT\n"
"""Rules of somebody else, in the text of a :class:`~meshfw.backends.memory_kernel.MemoryKernel`."""


class Mutant(msgspec.Struct, frozen=True):
    """A defect and the name of the law that catches it; one ``of_sets`` is none in a backend without them."""

    mutate: Mutate
    caught_by: str
    of_sets: bool = False

    @property
    def name(self) -> str:
        """What it does wrong, in one name."""
        return getattr(self.mutate, "__name__", repr(self.mutate))


MUTANTS: Final = (
    Mutant(broken_writers.LosesTheLastRule, "plan_after_apply_is_empty"),
    Mutant(broken_writers.LeavesTheElements, "what_is_declared_is_held", of_sets=True),
    Mutant(broken_writers.VaguePolicies, "what_is_declared_is_held"),
    Mutant(broken_writers.ReversesTwoRules, "order_is_kept"),
    Mutant(broken_writers.IgnoresIPv6, "families_are_held_apart"),
    Mutant(broken_writers.WritesAgain, "second_apply_writes_nothing"),
    Mutant(broken_readers.ForgetsTheCache, "idle_apply_reads_nothing"),
    Mutant(broken_readers.SpawnsAProcess, "processes_stay_in_budget"),
    Mutant(broken_readers.AdoptsNothing, "new_instance_adopts"),
    Mutant(broken_writers.LeavesAChain, "empty_ruleset_leaves_no_trace"),
    Mutant(broken_readers.DropsWhatItCannotSay, "unsupported_is_refused_first"),
    Mutant(broken_readers.RefusesTooLate, "unsupported_is_refused_first"),
    Mutant(broken_readers.PrintsATime, "rendering_is_deterministic"),
    Mutant(broken_readers.ReadsHalfTheRules, "reading_a_part_agrees_with_the_whole"),
    Mutant(broken_readers.CleansUpAtClose, "protocol_is_kept"),
    Mutant(broken_readers.MuteFingerprint, "protocol_is_kept"),
    Mutant(broken_readers.LiesFromItsCache, "tampering_is_repaired"),
    Mutant(broken_writers.ForgetsDeletes, "every_kind_of_tampering_is_repaired"),
    Mutant(broken_readers.HidesDamage, "native_tampering_is_repaired"),
    Mutant(broken_writers.TidiesUpForOthers, "foreign_rules_stay"),
    Mutant(broken_writers.PushesAhead, "two_owners_never_fight"),
    Mutant(broken_readers.FrozenFingerprint, "fingerprint_moves_with_every_write"),
    Mutant(broken_readers.StaleFingerprint, "fingerprint_is_of_what_was_read"),
    Mutant(broken_readers.DigestOfNothing, "digest_tells_of_every_change"),
    Mutant(broken_readers.NamesTheFirstAlone, "moved_names_every_list_that_differs"),
    Mutant(broken_watches.DeafWatch, "watch_tells_of_foreign_writes"),
    Mutant(broken_watches.FarSighted, "watch_tells_of_foreign_writes"),
    Mutant(broken_watches.TakesAllForOurs, "own_commits_are_own"),
    Mutant(broken_watches.BlamesOthers, "own_commits_are_own"),
    Mutant(broken_watches.KeepsListening, "closing_ends_the_watch"),
    Mutant(broken_watches.AsksToListen, "watching_spawns_nothing"),
    Mutant(broken_writers.ResetsCounters, "counters_survive"),
    Mutant(broken_readers.ClaimsExclusive, "stale_commit_is_refused"),
    Mutant(broken_readers.SkipsTheComparison, "intruder_is_noticed"),
    Mutant(broken_writers.CommitsInHalves, "failure_leaves_old_or_new"),
    Mutant(broken_writers.SwallowsErrors, "failure_leaves_old_or_new"),
    Mutant(broken_readers.RemembersTheOld, "success_that_looks_like_failure_is_adopted"),
    Mutant(broken_writers.RetriesBlindly, "cut_off_commit_is_mended"),
    Mutant(broken_writers.TrustsItself, "dropped_line_is_caught"),
    Mutant(broken_writers.RunsThePlan, "what_is_printed_is_what_runs"),
    Mutant(broken_writers.TakesTwoSteps, "every_change_is_made_in_one_go", of_sets=True),
)
"""One mutant at least for each law that a backend without packets can break."""


def memory_lab(mutate: Mutate | None = None, *, native_sets: bool = True) -> Lab:
    """A lab of memory backends on a kernel of their own, mutated or sound, with every witness that there is."""
    kernel = MemoryKernel()
    language = Language.of(builtin_extensions())
    options = {"kernel": kernel, "native_sets": native_sets}

    def make(owner: str) -> Backend:
        sound = MemoryBackend(Site(owner=owner, language=language, options=options))
        return sound if mutate is None else mutate(sound)

    def dump() -> str:
        return "".join(kernel.text(family) for family in Family)

    return Lab(
        make,
        language=language,
        count=kernel.count,
        dump=dump,
        foreign=Foreign(
            setup=lambda: kernel.write(Family.IPV4, STRANGERS),
            dump=lambda: "".join(line for line in dump().splitlines(keepends=True) if "DOCKER" in line),
            remove=lambda: kernel.write(Family.IPV4, ""),
        ),
        tamperings=_tamperings(kernel),
    )


def _tamperings(kernel: MemoryKernel) -> Mapping[str, Callable[[], None]]:
    def damage() -> None:
        for family in Family:
            text = kernel.text(family)
            kernel.write(family, text.replace(":meshfw/input/first DROP", ":meshfw/input/first QUEUE"))

    def wipe() -> None:
        for family in Family:
            kernel.write(family, "")

    return {"a policy that is none": damage, "everything gone": wipe}


def caught(law: Law, mutate: Mutate | None, *, native_sets: bool = True) -> str | None:
    """How a law is broken by a mutant, in the law's words; None where the mutant gets away with it."""
    for case in cases_of(law, memory_lab(native_sets=native_sets)):
        lab = memory_lab(mutate, native_sets=native_sets)
        try:
            law.run(lab, case)
        except (AssertionError, MeshfwError) as error:
            return f"{type(error).__name__}: {error}"
    return None
