"""One cell, measured in a process of its own: a request as JSON on standard input, the cell as JSON on standard output.

Three passes, so that none disturbs another: memory first, while the process is fresh; then time, meshfw and what it is
measured against in turn; then the counting of processes, which slows down what it counts. Every sample gets a network
namespace and a backend instance of its own; the namespaces go at the very end, since the kernel tears them down
in the background and that would disturb the samples behind.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import msgspec

from benchmarks.plain import Prepared, plain_steps, run_all, verbatim_steps
from benchmarks.results import Cell, Sample, Work
from benchmarks.scenarios import BY_NAME, Scenario
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.timing import looped, timed
from meshfw.backend import Backend, Committed, Fingerprint, Observed, Site, Step, Transaction, Unsupported
from meshfw.errors import BackendError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.libnftables import release_memory
from meshfw.model import Family, Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.reconcile import apply, plan
from meshfw.snapshot import ListKey
from meshfw.testing.counting import Count, ProcessCounter
from meshfw.testing.loopback import delivers
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns
from meshfw.testing.wrapping import Wrapped

R = TypeVar("R", bound=msgspec.Struct)

_OWNER = "meshfw"
_SHOWN = 4
_COUNTED_LOOPS = 20  # of a scenario that loops
_REST = "diff"  # what is not inside the backend: comparing, and keeping what was proven


class Request(msgspec.Struct, frozen=True):
    """Which cell to measure; ``pairs`` is how often meshfw and the others take turns."""

    subject: str
    scenario: str
    rules: int
    pairs: int


class Timed(Wrapped):
    """A backend that notes the seconds spent in each of its members; what is observed after a commit is its proof."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.steps: dict[str, float] = {}

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0.0) + time.perf_counter() - start

    @property
    def _reading(self) -> str:
        return "proof" if "commit" in self.steps else "observe"

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Timed."""
        with self._step("check"):
            return self.inner.check(ruleset)

    def fingerprint(self) -> Fingerprint | None:
        """Timed, as a part of observing."""
        with self._step(self._reading):
            return self.inner.fingerprint()

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Timed."""
        with self._step(self._reading):
            return self.inner.observe(keys)

    def compile(self, plan: Plan) -> Transaction:
        """Timed."""
        with self._step("compile"):
            return self.inner.compile(plan)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Timed."""
        with self._step("commit"):
            return self.inner.commit(transaction, based_on=based_on)


class Rig:
    """A network namespace in a scenario's state, with a backend that is about to apply: one for each sample."""

    def __init__(
        self,
        subject: Subject,
        scenario: Scenario,
        *,
        room: Netns,
        mesh: Ruleset,
        wanted: Ruleset,
        language: Language,
    ) -> None:
        self._subject = subject
        self._scenario = scenario
        self._mesh = mesh
        self._language = language
        self._stack = ExitStack()
        self.wanted = wanted
        self._room = room

    def __enter__(self) -> Rig:
        with ExitStack() as stack:
            self.backend = self._open(stack)
            if self._scenario.synced:
                apply(self.backend, self._mesh)
            if self._scenario.outside is not None:
                with ExitStack() as other:
                    apply(self._open(other), self._scenario.outside(self._mesh))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> Backend:
        backend = self._subject.backend(Site(owner=_OWNER, language=self._language, netns=self._room.path))
        stack.callback(backend.close)
        return backend

    def apply(self, backend: Backend | None = None) -> None:
        """What is measured of meshfw."""
        apply(backend or self.backend, self.wanted)

    def steps(self, *, verbatim: bool = False) -> tuple[Step, ...]:
        """The plain tool's commands; ``verbatim`` with all that the transaction asks."""
        if self._scenario.idle:
            return tuple(Step(command) for command in self._subject.reads)
        transaction = self._subject.plainly(self.backend.compile(plan(self.backend, self.wanted)))
        return (verbatim_steps if verbatim else plain_steps)(transaction, self._subject.tools)

    @contextmanager
    def plain(self, *, verbatim: bool = False) -> Iterator[tuple[Prepared, ...]]:
        """A block in the namespace, with the plain tool's commands ready to be run."""
        steps = self.steps(verbatim=verbatim)
        with ExitStack() as stack:
            prepared = tuple(stack.enter_context(Prepared(step)) for step in steps)
            stack.enter_context(self._room.entered())
            yield prepared

    @contextmanager
    def bare(self) -> Iterator[Callable[[], None]]:
        """A block with the bare question to the kernel that an idle apply can't do without."""
        if self._subject.bare is None:
            raise BackendError(f"{self._subject.name} has no bare limit")
        with self._room.entered(), self._subject.bare() as ask:
            yield ask

    def meet_packets(self) -> None:
        """Let packets meet the rules, so that counters aren't what they were."""
        for family in Family:
            delivers(self._room.path, family)

    def prove(self) -> None:
        """Nothing, when the kernel holds what is wanted; else BackendError, since something else was measured."""
        with ExitStack() as stack:
            if plan(self._open(stack), self.wanted):
                raise BackendError("after the measured work the kernel doesn't hold what was wanted")


# --- time ----------------------------------------------------------------------------------------------------


def time_meshfw(rig: Rig, loops: int) -> Sample:
    """One sample of meshfw; with its steps, unless it is so short that asking for them would show."""
    if loops > 1:
        rig.meet_packets()
        return looped(rig.apply, loops)
    backend = Timed(rig.backend)
    sample = timed(lambda: rig.apply(backend))
    inside = sum(backend.steps.values())
    return Sample(sample.wall, sample.cpu, {**backend.steps, _REST: max(0.0, sample.wall - inside)})


def time_plain(rig: Rig, *, verbatim: bool = False) -> Sample:
    """One sample of the plain tool: from before the first spawn until the last process was waited for."""
    with rig.plain(verbatim=verbatim) as commands:
        return timed(lambda: run_all(commands))


def time_bare(rig: Rig, loops: int) -> Sample:
    """One sample of the bare question to the kernel."""
    rig.meet_packets()
    with rig.bare() as ask:
        return looped(ask, loops)


# --- memory --------------------------------------------------------------------------------------------------

# Resident memory of a child is never told as less than its parent's was at the spawn (getrusage(2), ru_maxrss), so a
# small interpreter stands between: what it can tell begins at its own 9 MB or so.
_PEAK_PROGRAM = """
import os, resource, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stderr.write(f"\\n{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
sys.exit(status != 0)
"""


def meshfw_memory(rig: Rig) -> tuple[int, int]:
    """Resident bytes before the reconcile, with the heap trimmed, and what its peak adds to them."""
    gc.collect()
    release_memory()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak begins anew (proc_pid_clear_refs(5))
    idle = _status_bytes("VmRSS")
    rig.apply()
    return idle, max(0, _status_bytes("VmHWM") - idle)


def _status_bytes(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def plain_memory(rig: Rig) -> int:
    """The resident bytes of the largest of the plain tool's processes."""
    with rig.plain() as commands:
        said = [command.run(sys.executable, "-I", "-S", "-c", _PEAK_PROGRAM) for command in commands]
    return max(int(text.rpartition("\n")[2]) * 1024 for text in said)


# --- processes -----------------------------------------------------------------------------------------------


def count_meshfw(rig: Rig, loops: int) -> Count:
    """The processes of the reconcile, or of some in a row, followed by a look whether it did its work."""
    with ProcessCounter() as counter:
        for _ in range(min(loops, _COUNTED_LOOPS)):
            rig.apply()
    rig.prove()
    return counter.count


def count_plain(rig: Rig) -> Count:
    """The processes of the plain tool's same work."""
    with rig.plain() as commands, ProcessCounter() as counter:
        run_all(commands)
    rig.prove()
    return counter.count


# --- the cell ------------------------------------------------------------------------------------------------


def measure(request: Request) -> Cell:
    """The cell that a request asks for."""
    with ExitStack() as rooms:
        return _measure(request, rooms)


def _measure(request: Request, rooms: ExitStack) -> Cell:
    subject, scenario = SUBJECTS[request.subject], BY_NAME[request.scenario]
    language = Language.of(builtin_extensions())
    mesh = mesh_ruleset(request.rules, language=language)
    wanted = scenario.wanted(mesh)

    def rig() -> Rig:
        room = rooms.enter_context(Netns("meshfw-bench"))
        return Rig(subject, scenario, room=room, mesh=mesh, wanted=wanted, language=language)

    with rig() as fresh:
        idle, peak = meshfw_memory(fresh)
    with rig() as fresh:
        asks = fresh.steps() != fresh.steps(verbatim=True)
        plain_peak = plain_memory(fresh)
    contestants: dict[str, Callable[[Rig], Sample]] = {
        "meshfw": lambda rig: time_meshfw(rig, scenario.loops),
        "plain": time_plain,
    }
    if asks:
        contestants["verbatim"] = lambda rig: time_plain(rig, verbatim=True)
    if scenario.idle and subject.bare is not None:
        contestants["bare"] = lambda rig: time_bare(rig, scenario.loops)
    samples = take_turns(contestants, rig, turns=request.pairs)
    with rig() as fresh:
        count = count_meshfw(fresh, scenario.loops)
    with rig() as fresh:
        plain_count = count_plain(fresh)
    return Cell(
        subject=subject.name,
        scenario=scenario.name,
        rules=request.rules,
        allowed=scenario.processes(subject.per_family),
        meshfw=_work(samples["meshfw"], count, memory=peak, idle_memory=idle),
        plain=_work(samples["plain"], plain_count, memory=plain_peak),
        verbatim=_work(samples["verbatim"], plain_count) if asks else None,
        bare=Work(samples=samples["bare"], processes=0) if "bare" in samples else None,
    )


def take_turns(
    contestants: Mapping[str, Callable[[Rig], Sample]], rig: Callable[[], Rig], *, turns: int
) -> dict[str, tuple[Sample, ...]]:
    """The samples of each contestant; whoever is first in one turn is last in the next."""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(turns):
        at = turn % len(names)
        for name in (*names[at:], *names[:at]):
            with rig() as fresh:
                samples[name].append(contestants[name](fresh))
    return {name: tuple(held) for name, held in samples.items()}


def _work(samples: Sequence[Sample], count: Count, *, memory: int = 0, idle_memory: int = 0) -> Work:
    return Work(
        samples=tuple(samples),
        processes=count.forks,
        commands=tuple(" ".join(command) for command in count.commands[:_SHOWN]),
        memory=memory,
        idle_memory=idle_memory,
    )


@contextmanager
def lock_of_ones_own() -> Iterator[None]:
    """A block in which iptables-legacy takes a lock that nobody else knows: the host's is for the host's tables."""
    with tempfile.NamedTemporaryFile(prefix="meshfw-bench-") as file:
        os.environ["XTABLES_LOCKFILE"] = file.name
        yield


def serve(measure: Callable[[R], msgspec.Struct], kind: type[R]) -> None:
    """The life of a program that measures: a request as JSON on standard input, what it gave on standard output.

    SIGINT ends it with all clean-up done, also where it was ignored, as by what a shell starts in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with lock_of_ones_own():
        answer = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=kind))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    serve(measure, Request)
