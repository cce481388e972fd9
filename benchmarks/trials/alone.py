"""The trials without an agent: reconciles in a row, the difference of two rulesets, and edits of one rule."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec

from benchmarks.results import Figure, Trial
from benchmarks.subjects import SUBJECTS
from benchmarks.timing import timed
from benchmarks.trials import BESIDE, TrialRequest
from benchmarks.trials.agent import OWNER, resident
from benchmarks.trials.outsiders import run_steps
from meshfw.backend import Backend, Site, Step
from meshfw.backends.memory import MemoryBackend
from meshfw.errors import BackendError
from meshfw.extensions import Language, builtin_extensions
from meshfw.model import DROP, Chain, Family, Network, Rule, Ruleset, Table
from meshfw.plan import Plan, diff
from meshfw.reconcile import apply
from meshfw.snapshot import Snapshot
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.mesh import LEAST_RULES, mesh_ruleset
from meshfw.testing.netns import Netns

RULES_A_FOREIGN_CHAIN: Final = 5
"""An edit is also measured beside one chain of somebody else's for so many rules: 2,000 beside 10,000."""
_MB: Final = 1e6
_CHANGE_EVERY: Final = 100
_COUNTED: Final = 1_000
_MEMORY_SAMPLES: Final = 200


def _trial(request: TrialRequest, figures: Mapping[str, Figure], *notes: str) -> Trial:
    return Trial(
        trial=request.trial,
        subject=request.subject,
        rules=request.rules,
        amount=request.amount,
        figures=figures,
        notes=notes,
    )


@contextmanager
def _opened(request: TrialRequest, language: Language) -> Iterator[tuple[Backend, Netns]]:
    with Netns("meshfw-bench") as room:
        backend = SUBJECTS[request.subject].backend(Site(owner=OWNER, language=language, netns=room.path))
        try:
            yield backend, room
        finally:
            backend.close()


def _with(ruleset: Ruleset, chain: Chain, rules: list[Rule]) -> Ruleset:
    """The ruleset with other rules in one of its chains."""
    new = msgspec.structs.replace(chain, rules=tuple(rules))
    return msgspec.structs.replace(ruleset, chains=tuple(new if old is chain else old for old in ruleset.chains))


def _new_of(chain: Chain) -> Rule:
    """A rule that may stand in a chain and doesn't yet."""
    text = "198.51.100.7" if chain.family is Family.IPV4 else "2001:db8::7"
    return Rule(source=Network.parse(text), target=DROP if chain.table is Table.FILTER else None)


# --- reconciles in a row --------------------------------------------------------------------------------------


def reconciles(request: TrialRequest) -> Trial:
    """The memory of this process while it reconciles again and again: mostly idle, one in a hundred with a change."""
    language = Language.of(builtin_extensions())
    mesh = mesh_ruleset(request.rules, language=language)
    longer = _with(mesh, mesh.chains[0], [*mesh.chains[0].rules, _new_of(mesh.chains[0])])
    total = round(request.amount)
    every = max(1, total // _MEMORY_SAMPLES)
    memory = []
    with _opened(request, language) as (backend, _):
        apply(backend, mesh)
        counted = min(total, _COUNTED)
        with ProcessCounter() as counter:
            for _ in range(counted):
                apply(backend, mesh)
        start = time.perf_counter()
        for number in range(total):
            apply(backend, longer if number // _CHANGE_EVERY % 2 else mesh)
            if number % every == 0:
                memory.append(resident(os.getpid()) / _MB)
        seconds = time.perf_counter() - start
        memory.append(resident(os.getpid()) / _MB)
    settled = memory[len(memory) // 10]
    figures = {
        "idle reconciles counted": Figure("", (counted,)),
        "processes when idle": Figure("", (counter.count.forks,)),
        "memory": Figure("MB", tuple(memory)),
        "memory gained": Figure("MB", (memory[-1] - settled,)),
        "each": Figure("ms", (1e3 * seconds / total,)),
    }
    return _trial(request, figures)


# --- the difference of two rulesets ---------------------------------------------------------------------------


def difference(request: TrialRequest) -> Trial:
    """The time to find what differs, at a tenth of the size, at the size, and at ten times the size.

    What is there was read back from text and shares no value with what is wanted, so each rule is compared by meaning;
    that's the case after somebody wrote, or after a restart.
    """
    language = Language.of(builtin_extensions())
    figures = {}
    for rules in (max(LEAST_RULES, request.rules // 10), request.rules, request.rules * 10):
        mesh = mesh_ruleset(rules, language=language)
        site = Site(owner=OWNER, language=language)
        backend = MemoryBackend(site)
        apply(backend, mesh)
        observed = backend.observe().snapshot
        backend.close()
        walls = []
        for _ in range(round(request.amount)):
            wanted, changes = _one_in_a_hundred(mesh_ruleset(rules, language=language))
            found: list[Plan] = []
            walls.append(timed(partial(_compare, observed, wanted, found)).wall)
            if changes and not found[0]:
                raise BackendError("no difference was found where there is one")
        figures[f"{rules:,} rules"] = Figure("s", tuple(walls))
        gc.collect()
    return _trial(request, figures)


def _compare(observed: Snapshot, wanted: Ruleset, found: list[Plan]) -> None:
    found.append(diff(observed, wanted))


def _one_in_a_hundred(mesh: Ruleset) -> tuple[Ruleset, int]:
    """The ruleset with one rule in a hundred replaced, gone or new, a third each; and how many that are."""
    chains, seen, changes = [], 0, 0
    for chain in mesh.chains:
        rules: list[Rule] = []
        new = _new_of(chain)
        for rule in chain.rules:
            seen += 1
            if seen % 100:
                rules.append(rule)
                continue
            changes += 1
            rules += ([new], [], [rule, new])[changes % 3]
        chains.append(msgspec.structs.replace(chain, rules=tuple(rules)))
    return msgspec.structs.replace(mesh, chains=tuple(chains)), changes


# --- one rule --------------------------------------------------------------------------------------------------


def edit(request: TrialRequest) -> Trial:
    """The apply that inserts or replaces one rule, at some places, alone and beside many chains of somebody else's."""
    language = Language.of(builtin_extensions())
    mesh = mesh_ruleset(request.rules, language=language)
    foreign = request.rules // RULES_A_FOREIGN_CHAIN
    figures = {}
    with _opened(request, language) as (backend, room):
        for beside in ("", f"{BESIDE}{foreign:,} foreign chains"):
            if beside:
                run_steps((_foreign_chains(foreign),), room)
            apply(backend, mesh)
            for place, wanted in _edits(mesh):
                figures[place + beside] = Figure("s", tuple(_edit_walls(backend, mesh, wanted, request.amount)))
    return _trial(request, figures)


def _edit_walls(backend: Backend, mesh: Ruleset, wanted: Ruleset, amount: float) -> Iterator[float]:
    def work() -> None:
        apply(backend, wanted)

    for _ in range(round(amount)):
        yield timed(work).wall
        apply(backend, mesh)


def _edits(mesh: Ruleset) -> Iterator[tuple[str, Ruleset]]:
    """Rulesets with one rule inserted, or replaced, at the beginning, in the middle and at the end of long chains.

    The chains are the first, the middle and the last one of the longest, as they stand in the ruleset.
    """
    longest = max(len(chain.rules) for chain in mesh.chains)
    long = [chain for chain in mesh.chains if 2 * len(chain.rules) >= longest]
    chains = {"first": long[0], "middle": long[len(long) // 2], "last": long[-1]}
    for name, chain in chains.items():
        size = len(chain.rules)
        for where, at in {"beginning": 0, "middle": size // 2, "end": size - 1}.items():
            inserted, replaced = list(chain.rules), list(chain.rules)
            inserted.insert(at, _new_of(chain))
            replaced[at] = _new_of(chain)
            yield f"inserted at the {where} of the {name} chain", _with(mesh, chain, inserted)
            yield f"replaced at the {where} of the {name} chain", _with(mesh, chain, replaced)


def _foreign_chains(count: int) -> Step:
    lines = ["add table inet foreign"]
    for number in range(count):
        lines += [f"add chain inet foreign c{number}", f"add rule inet foreign c{number} ip saddr 203.0.113.7 accept"]
    return Step(("nft", "-f", "-"), "".join(f"{line}\n" for line in lines))


BY_NAME: Final[Mapping[str, Callable[[TrialRequest], Trial]]] = {
    "reconciles": reconciles,
    "diff": difference,
    "edit": edit,
}
"""The trials of this module."""
