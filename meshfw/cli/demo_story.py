"""The story of one backend: a mesh gateway's rules applied, broken by others, repaired and taken away again."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final, TypeVar

import msgspec

from meshfw import reconcile
from meshfw.backend import Backend, Outcome, Report, Site
from meshfw.cli.demo_tell import TICKS, Step, Teller, processes
from meshfw.errors import BackendError, KernelError
from meshfw.expansion import expand
from meshfw.hookspecs import BackendPlugin
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Rule, Ruleset
from meshfw.plugins import Plugins
from meshfw.testing.breakage import tool_against
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.gateway import Journey, journeys
from meshfw.testing.probes import Prober, Result
from meshfw.testing.topology import Topology

T = TypeVar("T")
Breakage = Callable[[], Iterable[str]]
_PATIENCE: Final = 5.0
"""Seconds in which a change must have been heard of; it takes less than a thousandth of one."""
QUIET: Final = frozenset({Outcome.IDLE, Outcome.CLEAN})


def measured(kind: str, title: str, work: Callable[[], T]) -> tuple[Step, T]:
    """The step with processes and time of some work, and what the work gave."""
    counter, counting = ProcessCounter(timeout=120), True
    with ExitStack() as stack:
        try:
            stack.enter_context(counter)
        except KernelError:  # ptrace is forbidden here
            counting = False
        began = time.perf_counter()
        done = work()
        took = time.perf_counter() - began
    spawned = counter.count.forks if counting else None
    return Step(kind=kind, title=title, processes=spawned, milliseconds=round(took * 1000, 3)), done


class Story:
    """The demonstration of one backend.

    ``known`` are the verdicts that packets met in the stories before this one, with the backend each list is from.
    """

    def __init__(
        self, plugins: Plugins, offer: BackendPlugin, place: Site, tell: Teller, known: dict[tuple[str, ...], str]
    ) -> None:
        self._plugins = plugins
        self._offer = offer
        self._place = place
        self._tell = tell
        self._known = known
        self._steps: list[Step] = []

    def told(self, ruleset: Ruleset) -> list[Step]:
        """Tell it from the first apply to the clean-up; every step as it happened."""
        with Topology("meshfw-demo") as topology, Prober(topology) as prober:
            self._prober = prober
            self._place = msgspec.structs.replace(self._place, netns=topology.gateway.path)
            self._ruleset = ruleset
            self._journeys = [journey for family in topology.families for journey in journeys(family)]
            backend = self._open()
            try:
                self._tool = tool_against(backend.name, topology.gateway, self._place.owner)
                self._introduce(backend)
                self._play(backend)
            finally:
                backend.close()
        return self._steps

    def _open(self) -> Backend:
        backend = self._plugins.open_backend(self._offer, self._place)
        if not backend.capabilities.kernel:
            backend.close()
            raise BackendError("no packet meets its rules, so there is nothing to watch", backend=self._offer.name)
        return backend

    def _introduce(self, backend: Backend) -> None:
        """Say what is about to be shown."""
        rules = f"{_rules(self._ruleset)} rules for {' and '.join(sorted(self._ruleset.families))}"
        if not backend.capabilities.native_sets:
            rules += f"; {_rules(expand(self._ruleset).ruleset)} here, where each element of a set makes one"
        self._tell.chapter(f"Backend {self._offer.name}: {self._offer.summary}", rules)

    def _play(self, backend: Backend) -> None:
        self._per_family = backend.capabilities.processes_per_family
        self._apply(backend)
        self._idle(backend)
        self._adopt()
        self._neighbours(backend)
        for title, breakage in self._tool.breakages.items():
            self._repair(title, breakage, backend)
        self._hear(*next(iter(self._tool.breakages.items())), backend)
        self._packets()
        self._clean(backend)

    # --- steps ---

    def _apply(self, backend: Backend) -> None:
        title = "apply the declared rules"
        step, report = measured("apply", title, lambda: reconcile.apply(backend, self._ruleset))
        self._account(step, report, {Outcome.CHANGED}, reads=0)
        self._check_packets(step)
        self._say(step)

    def _idle(self, backend: Backend) -> None:
        def ticks() -> list[Report]:
            return [reconcile.apply(backend, self._ruleset) for _ in range(TICKS)]

        step, reports = measured("idle", f"apply them {TICKS} times more", ticks)
        self._account(step, reports[-1], {Outcome.IDLE})
        each = step.milliseconds * 1000 / TICKS
        step.notes.append(f"{each:.1f} µs each: the kernel is asked whether anything changed; no lock, no write")
        self._say(step)

    def _adopt(self) -> None:
        def begin_anew() -> Report:
            backend = self._open()
            try:
                return reconcile.apply(backend, self._ruleset)
            finally:
                backend.close()

        step, report = measured("adopt", "start anew, knowing nothing", begin_anew)
        self._account(step, report, {Outcome.CLEAN})
        step.notes.append("the rules were read, understood and left as they are")
        self._say(step)

    def _neighbours(self, backend: Backend) -> None:
        commands = self._tool.move_in()
        before = self._tool.foreign()
        title = "Docker and another tool move in beside"
        step, report = measured("neighbours", title, lambda: reconcile.apply(backend, self._ruleset))
        step.commands = commands
        self._account(step, report, QUIET, reads=0)
        self._check_foreign(step, before)
        self._say(step)

    def _repair(self, title: str, breakage: Breakage, backend: Backend) -> None:
        commands = [*breakage()]
        astray = self._astray()
        before = self._tool.foreign()
        step, report = measured("repair", f"somebody {title}", lambda: reconcile.apply(backend, self._ruleset))
        step.commands, step.astray = commands, astray
        self._account(step, report, {Outcome.CHANGED})
        if not astray:
            step.wrong.append("what was broken made no difference to any packet")
        self._check_foreign(step, before)
        self._check_packets(step)
        self._say(step)

    def _hear(self, title: str, breakage: Breakage, backend: Backend) -> None:
        """Repair once more, woken by the kernel's own word of it: what ``meshfw agent`` does all day."""
        watch = backend.watch()
        if watch is None:
            return
        watch.events()
        commands = [*breakage()]
        woken = select.select([watch], [], [], _PATIENCE)[0]
        culprits = [event for event in watch.events() if event.near and not event.own]
        step, report = measured(
            "hear", f"somebody {title} again, and it's heard", lambda: reconcile.apply(backend, self._ruleset)
        )
        step.commands = commands
        named = [event for event in culprits if event.command]
        step.notes.append(
            f"it was {named[0].command}, process {named[0].pid}" if named else "this kernel doesn't say who it was"
        )
        if not woken or not culprits:
            step.wrong.append("nobody told of it")
        self._account(step, report, {Outcome.CHANGED})
        self._check_packets(step)
        self._say(step)

    def _packets(self) -> None:
        step = Step(kind="packets", title="where packets go now")
        verdicts = []
        for journey, result in self._sent():
            packet = journey.packet
            service = f"{packet.protocol}/{packet.dport}" if packet.dport else packet.protocol
            verdicts.append(f"{packet.family} {journey.story:38} {service:9} {result.verdict}")
        step.verdicts = verdicts
        first = self._known.setdefault(tuple(verdicts), self._offer.name)
        if first != self._offer.name:
            step.same_as = first
            step.notes.append(f"packet for packet where they went on backend {first}")
        self._check_packets(step)
        self._say(step)

    def _clean(self, backend: Backend) -> None:
        before = self._tool.foreign()
        title = "take all rules of ours away"
        step, report = measured("clean", title, lambda: reconcile.apply(backend, Ruleset()))
        self._account(step, report, {Outcome.CHANGED}, reads=0)
        step.wrong += [f"{left} is left" for left in self._tool.leftovers()]
        self._check_foreign(step, before)
        self._say(step)

    # --- what came of a step ---

    def _account(self, step: Step, report: Report, expected: Iterable[Outcome], *, reads: int = 1) -> None:
        """Put down what a reconcile did, and whether it was what it should be, within the processes it may take.

        Idle that is none. Else it's for each family concerned one to write, where something changed, and ``reads`` to
        learn what others wrote, for a backend that spawns any.
        """
        step.outcome, step.transactions = report.outcome.value, report.commits
        step.changes = [str(edit) for edit in report.plan.edits(self._formatted)]
        if report.outcome not in expected:
            step.wrong.append(f"the outcome is {report.outcome}, not {' or '.join(sorted(expected))}")
        if report.commits > 1:
            step.wrong.append("one transaction should have been enough")
        step.notes += report.warnings
        most = 0
        if report.outcome is Outcome.CHANGED:
            changed = {change.key.family for change in report.plan.lists}
            most = self._per_family * (1 + reads) * len(changed)
        elif report.outcome is Outcome.CLEAN:
            most = self._per_family * reads * len(self._ruleset.families)
        if step.processes is not None and step.processes > most:
            step.wrong.append(f"{processes(step.processes)} where {most} should do")

    def _formatted(self, rule: Rule, family: Family) -> str:
        return format_rule(rule, family=family, language=self._place.language)

    def _check_foreign(self, step: Step, before: str) -> None:
        if self._tool.foreign() == before:
            step.notes.append("the rules of the others: the same to the byte")
        else:
            step.wrong.append("the rules of the others have changed")

    def _sent(self) -> list[tuple[Journey, Result]]:
        results = self._prober.send(*(journey.packet for journey in self._journeys))
        return list(zip(self._journeys, results, strict=True))

    def _astray(self) -> list[str]:
        """A line for each packet that didn't go where it should."""
        return [
            f"{result.packet.family} {journey.story}: {result.verdict}"
            for journey, result in self._sent()
            if result.verdict != journey.verdict
        ]

    def _check_packets(self, step: Step) -> None:
        astray = self._astray()
        if not astray:
            step.notes.append(f"packets: all {len(self._journeys)} go where they should")
        step.wrong += astray

    def _say(self, step: Step) -> None:
        self._steps.append(step)
        self._tell.step(step)


def _rules(ruleset: Ruleset) -> int:
    return sum(len(chain.rules) for chain in ruleset.chains)
