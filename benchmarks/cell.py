"""One cell, measured in a process of its own: a request as JSON on standard input, the cell as JSON on standard output.

Three passes, so that none disturbs another: memory first, while the process is fresh; then time, meshfw and the
plain tool in turn; then the counting of processes, which slows down what it counts. Every sample gets a network
namespace and a backend instance of its own; the namespaces go at the very end, since the kernel tears them down
in the background and that would disturb the samples behind.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from benchmarks.results import Cell, Sample, Work
from benchmarks.scenarios import BY_NAME, Cost, Scenario
from benchmarks.subjects import SUBJECTS, Subject
from meshfw.backend import Backend, Committed, Fingerprint, Observed, Site, Step, Transaction, Unsupported
from meshfw.errors import BackendError, CommandError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import find
from meshfw.kernel.libnftables import release_memory
from meshfw.model import Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.reconcile import apply, plan
from meshfw.snapshot import ListKey
from meshfw.testing.counting import Count, ProcessCounter
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns
from meshfw.testing.wrapping import Wrapped

_OWNER = "meshfw"
_SHOWN = 4
_COUNTED_LOOPS = 20  # of a scenario that loops
_SECONDS = 300.0
_REST = "diff"  # what is not inside the backend: comparing, and keeping what was proven


class Request(msgspec.Struct, frozen=True):
    """Which cell to measure; ``pairs`` is how often meshfw and the plain tool take turns."""

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

    @contextmanager
    def plain(self) -> Iterator[tuple[Prepared, ...]]:
        """A block in the namespace, with the plain tool's commands ready to be run."""
        if self._scenario.cost is Cost.IDLE:
            steps = tuple(Step(command) for command in self._subject.reads)
        else:
            steps = self.backend.compile(plan(self.backend, self.wanted)).steps
        with ExitStack() as stack:
            prepared = tuple(stack.enter_context(Prepared(step)) for step in steps)
            stack.enter_context(self._room.entered())
            yield prepared

    def prove(self) -> None:
        """Nothing, when the kernel holds what is wanted; else BackendError, since something else was measured."""
        with ExitStack() as stack:
            if plan(self._open(stack), self.wanted):
                raise BackendError("after the measured work the kernel doesn't hold what was wanted")


class Prepared:
    """A command of the plain tool with its input in a file: nothing of Python's is in its way but the spawning."""

    def __init__(self, step: Step) -> None:
        tool, *words = step.command
        self.command = (find(tool) or tool, *words)
        self._text = step.input.encode()

    def __enter__(self) -> Prepared:
        self._files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("input", "output", "errors")]
        with open(self._files[0], "wb", closefd=False) as file:
            file.write(self._text)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._files:
            os.close(descriptor)

    def run(self, *before: str) -> str:
        """What the command, behind the words of ``before``, says on standard error; CommandError when it fails."""
        stdin, stdout, stderr = self._files
        os.lseek(stdin, 0, os.SEEK_SET)
        command = (*before, *self.command)
        done = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=stderr, timeout=_SECONDS, check=False)
        with open(stderr, encoding="utf-8", errors="replace", closefd=False) as file:
            file.seek(0)
            said = file.read()
        if done.returncode != 0:
            raise CommandError(command, returncode=done.returncode, stderr=said)
        return said


def run_all(commands: Sequence[Prepared]) -> None:
    """The plain tool's work."""
    for command in commands:
        command.run()


# --- time ----------------------------------------------------------------------------------------------------


def timed(work: Callable[[], None], loops: int = 1) -> Sample:
    """The time of one call, the mean of ``loops``; garbage of before is collected before."""
    gc.collect()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    for _ in range(loops):
        work()
    wall_after, cpu_after = time.perf_counter(), _cpu_seconds()
    return Sample((wall_after - wall) / loops, (cpu_after - cpu) / loops)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def time_meshfw(rig: Rig, loops: int) -> Sample:
    """One sample of meshfw; with its steps, unless it is so short that asking for them would show."""
    if loops > 1:
        rig.apply()  # the first one after a change also fills caches
        return timed(rig.apply, loops)
    backend = Timed(rig.backend)
    sample = timed(lambda: rig.apply(backend))
    inside = sum(backend.steps.values())
    return Sample(sample.wall, sample.cpu, {**backend.steps, _REST: max(0.0, sample.wall - inside)})


def time_plain(rig: Rig) -> Sample:
    """One sample of the plain tool: from before the first spawn until the last process was waited for."""
    with rig.plain() as commands:
        return timed(lambda: run_all(commands))


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
        plain_peak = plain_memory(fresh)
    ours: list[Sample] = []
    plains: list[Sample] = []
    for turn in range(request.pairs):
        for who in ("meshfw", "plain") if turn % 2 == 0 else ("plain", "meshfw"):
            with rig() as fresh:
                if who == "meshfw":
                    ours.append(time_meshfw(fresh, scenario.loops))
                else:
                    plains.append(time_plain(fresh))
    with rig() as fresh:
        count = count_meshfw(fresh, scenario.loops)
    with rig() as fresh:
        plain_count = count_plain(fresh)
    return Cell(
        subject=subject.name,
        scenario=scenario.name,
        rules=request.rules,
        allowed=subject.most.get(scenario.cost, 0),
        meshfw=_work(ours, count, memory=peak, idle_memory=idle),
        plain=_work(plains, plain_count, memory=plain_peak),
    )


def _work(samples: Sequence[Sample], count: Count, *, memory: int, idle_memory: int = 0) -> Work:
    return Work(
        samples=tuple(samples),
        processes=count.forks,
        commands=tuple(" ".join(command) for command in count.commands[:_SHOWN]),
        memory=memory,
        idle_memory=idle_memory,
    )


if __name__ == "__main__":
    answer = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Request))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
