"""The trials of a real agent, which keeps a mesh ruleset in a network namespace of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from benchmarks.results import Figure, Trial
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.trials import TrialRequest
from benchmarks.trials.agent import AgentProcess, config_text
from benchmarks.trials.outsiders import Outsider, Pace, Rival, outsider, printed, run_steps, started
from benchmarks.trials.pulse import Pulse
from meshfw.errors import BackendError
from meshfw.extensions import Language, builtin_extensions
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns

_MB: Final = 1e6
_REPAIR_SECONDS: Final = 120.0
_QUIET: Final = 1.0
"""Seconds without a commit after which a repair is taken to be over, and looked at."""
_CALM_SHARE: Final = 25
"""A pause between two rounds lasts so many times what the repair took, and the agent owes nothing to the last one."""
_PATIENT: Final = {"rival_limit": 1000, "rival_window": 1}
"""Settings that keep an agent from taking the many rounds of one trial for a rival's."""
_SETTLE: Final = 2.0
"""Seconds of rest before resting is measured."""
_MEMORY_SAMPLES: Final = 120


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """An agent at work in a namespace, in which an outsider has rules of his own."""

    subject: Subject
    room: Netns
    agent: AgentProcess
    outsider: Outsider


@contextmanager
def stage(
    request: TrialRequest, *, settings: Mapping[str, float] | None = None, alone: bool = False
) -> Iterator[Stage]:
    """A block with the stage of a trial; ``alone``: without the outsider's rules."""
    language = Language.of(builtin_extensions())
    subject, mesh = SUBJECTS[request.subject], mesh_ruleset(request.rules, language=language)
    other = outsider(subject, mesh)
    config = config_text(mesh, language, settings=settings or {})
    with Netns("meshfw-bench") as room, tempfile.TemporaryDirectory(prefix="meshfw-bench-") as directory:
        run_steps(() if alone else other.settle, room)
        with AgentProcess(subject.name, netns=room.path, config=config, directory=directory) as agent:
            yield Stage(subject=subject, room=room, agent=agent, outsider=other)
            agent.alive()


def _trial(request: TrialRequest, figures: Mapping[str, Figure], *notes: str) -> Trial:
    return Trial(
        trial=request.trial,
        subject=request.subject,
        rules=request.rules,
        amount=request.amount,
        figures=figures,
        notes=notes,
    )


def _one(unit: str, number: float) -> Figure:
    return Figure(unit, (number,))


# --- damage and repair ---------------------------------------------------------------------------------------


def latency(request: TrialRequest) -> Trial:
    """The time from the first commit of a flush to the last one of its repair, as the kernel shows both."""
    taken: list[float] = []
    with stage(request, settings=_PATIENT, alone=True) as at, Pulse(at.subject, at.room) as pulse:
        whole = printed(at.subject, at.room)
        for _ in range(round(request.amount)):
            time.sleep(_CALM_SHARE * min(taken[-1], 1.0) if taken else 0.0)
            taken.append(_round(at, pulse, whole))
    return _trial(request, {"until repaired": Figure("s", tuple(taken))})


def _round(at: Stage, pulse: Pulse, whole: tuple[str, ...]) -> float:
    """One flush and its repair, in seconds."""
    with ExitStack() as stack:
        flush = started(at.outsider.flush, at.room)
        beats = pulse.beats(lambda: stack.enter_context(flush), quiet=_QUIET, longest=_REPAIR_SECONDS)
    deadline = time.perf_counter() + _REPAIR_SECONDS
    while (held := printed(at.subject, at.room)) != whole:
        if time.perf_counter() > deadline:
            raise BackendError(f"not repaired after {_REPAIR_SECONDS:g} s: {_difference(whole, held)}")
        at.agent.alive()
        beats += pulse.beats(lambda: None, quiet=_QUIET, longest=_REPAIR_SECONDS)
    if len(beats) < 2:
        raise BackendError("a flush and its repair make two commits at least, and weren't seen")
    return beats[-1] - beats[0]


def _difference(wanted: tuple[str, ...], held: tuple[str, ...]) -> str:
    """Lines that two dumps don't share, the first few."""
    missing = [f"- {line}" for line in wanted if line not in set(held)]
    more = [f"+ {line}" for line in held if line not in set(wanted)]
    return "; ".join((missing + more)[:6]) or "the same lines in another order"


# --- beside a writer, at rest ---------------------------------------------------------------------------------


def beside(request: TrialRequest) -> Trial:
    """What the agent takes while somebody commits to rules of his own, ten times a second."""
    with stage(request) as at:
        whole = printed(at.subject, at.room)
        time.sleep(min(_SETTLE, request.amount))
        with ProcessCounter(pid=at.agent.pid) as counter:
            cpu, start = at.agent.cpu(), time.perf_counter()
            writes = 0
            for number in Pace(request.amount):
                run_steps((at.outsider.write[number % 2],), at.room)
                writes += 1
            seconds, taken = time.perf_counter() - start, at.agent.cpu() - cpu
        if writes % 2:
            run_steps((at.outsider.write[1],), at.room)
        held = printed(at.subject, at.room)
        if held != whole:
            raise BackendError(f"the rules changed beside the writer: {_difference(whole, held)}")
    figures = {
        "CPU": _one("% of a core", 100 * taken / seconds),
        "CPU a write": _one("ms", 1e3 * taken / writes),
        "processes": _one("", counter.count.forks),
        "writes": _one("a second", writes / seconds),
    }
    return _trial(request, figures, *_shown(counter))


def rest(request: TrialRequest) -> Trial:
    """What the agent takes while nothing happens at all, and what memory it holds."""
    samples = []
    with stage(request) as at:
        time.sleep(min(_SETTLE, request.amount))
        pause = max(0.1, request.amount / _MEMORY_SAMPLES)
        with ProcessCounter(pid=at.agent.pid) as counter:
            cpu, start = at.agent.cpu(), time.perf_counter()
            while (left := start + request.amount - time.perf_counter()) > 0:
                samples.append(at.agent.resident() / _MB)
                time.sleep(min(pause, left))
            seconds, taken = time.perf_counter() - start, at.agent.cpu() - cpu
        samples.append(at.agent.resident() / _MB)
    figures = {
        "CPU": _one("% of a core", 100 * taken / seconds),
        "processes": _one("", counter.count.forks),
        "memory": Figure("MB", tuple(samples)),
        "memory gained": _one("MB", samples[-1] - samples[0]),
    }
    return _trial(request, figures, *_shown(counter))


def _shown(counter: ProcessCounter) -> tuple[str, ...]:
    commands = dict.fromkeys(" ".join(command[:2]) for command in counter.count.commands)
    return tuple(f"started {command}" for command in commands)


# --- a rival --------------------------------------------------------------------------------------------------


def rival(request: TrialRequest) -> Trial:
    """What becomes of somebody who puts his rule into our chain again, ten times a second.

    Each of his rules but the first one could only be put there because a repair had taken the one before away, so his
    own count tells ours. Where there is a generation, it tells what we committed: all that he didn't.
    """
    with stage(request) as at, Pulse(at.subject, at.room) as pulse:
        foreign = printed(at.subject, at.room, foreign=True)
        one, before = Rival(at.outsider, at.room), pulse.now()
        for _ in Pace(request.amount):
            one.insist()
        repairs = one.inserts - one.there()
        after = pulse.now()
        changed = set(foreign) ^ set(printed(at.subject, at.room, foreign=True))
        said = [line for line in at.agent.log().splitlines() if "contended with" in line]
    commits = repairs
    if isinstance(before, int) and isinstance(after, int):
        commits = after - before - one.inserts
    figures = {
        "inserts of the rival": _one("", one.inserts),
        "repairs": _one("", repairs),
        "commits": _one("", commits),
        "contention events": _one("", len(said)),
        "foreign lines changed": _one("", len(changed)),
    }
    return _trial(request, figures, *said)


BY_NAME: Final[Mapping[str, Callable[[TrialRequest], Trial]]] = {
    "latency": latency,
    "beside": beside,
    "rival": rival,
    "rest": rest,
}
"""The trials of this module."""
