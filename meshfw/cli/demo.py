"""The verb ``demo``: a mesh gateway's rules, broken by others and repaired, in throw-away network namespaces."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final, TypeVar

import msgspec

from meshfw import reconcile
from meshfw.backend import Backend, Outcome, Report, Site
from meshfw.cli.output import counted, print_json
from meshfw.config import Ipv6, fit_families, load_rules, parse_config
from meshfw.errors import BackendError, KernelError
from meshfw.hookspecs import BackendPlugin
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Rule, Ruleset
from meshfw.plugins import Plugins
from meshfw.testing import netns
from meshfw.testing.breakage import BREAKAGES, FOREIGN, TOOLS, Breakage, tool_against
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.gateway import FILE, Journey, gateway_toml, journeys
from meshfw.testing.probes import Prober, Result
from meshfw.testing.rootless import run_inside
from meshfw.testing.topology import Topology

T = TypeVar("T")

OWNER: Final = "meshfw"
SHOWN: Final = 12
"""Lines of a plan that are shown; the others are counted."""
TICKS: Final = 1000
_STYLES: Final = {"+": "green", "~": "yellow", "-": "red", "$": "cyan", "!": "bold red"}


class Step(msgspec.Struct, kw_only=True):
    """One step of the story: what was done, by which commands of others, and what came of it."""

    title: str
    commands: Sequence[str] = ()
    changes: Sequence[str] = ()
    outcome: str = ""
    transactions: int = 0
    processes: int | None = None
    """Processes that meshfw spawned; None where they could not be counted."""
    milliseconds: float = 0.0
    notes: list[str] = []
    wrong: list[str] = []
    """What is not as it should be."""


def run(arguments: Namespace) -> int:
    """0 when everything went as it should, else 1."""
    reason = netns.available()
    if reason is not None:
        named = ("--backend", arguments.backend) if arguments.backend else ()
        options = (*(("--json",) if arguments.json else ()), *(("--verbose",) if arguments.verbose else ()), *named)
        run_inside((sys.executable, "-m", "meshfw", "demo", *options), reason=reason)
    plugins = Plugins()
    offers, skipped = _offers(plugins, arguments.backend)
    language = plugins.language()
    text = gateway_toml()
    ruleset = load_rules(parse_config(text, file=FILE), plugins=plugins, language=language)
    tell = Teller(silent=arguments.json)
    told: dict[str, list[Step]] = {}
    for offer in offers:
        place = Site(owner=OWNER, language=language)
        story = Story(plugins, offer, place, tell)
        told[offer.name] = story.told(ruleset, f"{FILE}, {counted(len(text.splitlines()), 'line')}")
    wrong = [line for steps in told.values() for step in steps for line in step.wrong]
    if arguments.json:
        print_json({"backends": told, "skipped": skipped, "ok": bool(told) and not wrong})
    tell.line()
    for name, why in skipped.items():
        tell.line(f"not shown: {name}: {why}")
    tell.line(f"! {counted(len(wrong), 'thing')} went wrong" if wrong else "everything went as it should")
    return 0 if told and not wrong else 1


def _offers(plugins: Plugins, named: str | None) -> tuple[list[BackendPlugin], dict[str, str]]:
    """The backends to show, and why each of the others isn't shown."""
    if named is not None:
        return [plugins.backend(named, key="--backend")], {}
    offers, skipped = [], {}
    for entry in plugins.listed():
        if entry.automatic is None:
            skipped[entry.name] = "only whoever names it gets it (--backend)"
        elif entry.reason is not None:
            skipped[entry.name] = entry.reason
        elif entry.name not in TOOLS:
            skipped[entry.name] = "nobody here knows how to break its rules"
        else:
            offers.append(plugins.backend(entry.name))
    if not offers:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise BackendError(f"no backend can be shown here: {why}")
    return offers, skipped


class Teller:
    """The story on the terminal, in colour where it is one; silent where programs read the result."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._number = 0

    def line(self, text: str = "", *, indent: int = 0) -> None:
        """One line, coloured by its first character."""
        if self._silent:
            return
        if not sys.stdout.isatty():
            print(" " * indent + text if text else "", flush=True)
            return
        from rich.console import Console
        from rich.text import Text

        style = _STYLES.get(text[:1], "" if indent else "bold")
        Console(highlight=False).print(Text(" " * indent + text, style=style), soft_wrap=True)

    def step(self, step: Step) -> None:
        """One step, numbered."""
        self._number += 1
        self.line()
        self.line(f"{self._number:2}  {step.title}")
        for command in step.commands:
            self.line(f"$ {command}", indent=4)
        for change in _foremost(step.changes):
            self.line(change, indent=4)
        if len(step.changes) > SHOWN:
            self.line(f"... {len(step.changes) - SHOWN} more", indent=4)
        if step.outcome:
            made = f" by {counted(step.transactions, 'transaction')}" if step.transactions else ""
            spawned = "processes not counted" if step.processes is None else _processes(step.processes)
            self.line(f"{step.outcome}{made}: {spawned}, {step.milliseconds:.1f} ms", indent=4)
        for note in step.notes:
            self.line(note, indent=4)
        for line in step.wrong:
            self.line(f"! not as it should be: {line}", indent=4)


def _foremost(changes: Sequence[str]) -> Sequence[str]:
    """The lines of a plan that are shown: of many, those of chains rather than of sets."""
    if len(changes) <= SHOWN:
        return changes
    return sorted(changes, key=lambda line: line.split()[2] == "set")[:SHOWN]


def _processes(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"


class Story:
    """The demonstration of one backend."""

    def __init__(self, plugins: Plugins, offer: BackendPlugin, place: Site, tell: Teller) -> None:
        self._plugins = plugins
        self._offer = offer
        self._place = place
        self._tell = tell
        self._steps: list[Step] = []

    def told(self, declared: Ruleset, source: str) -> list[Step]:
        """Tell it from the first apply to the clean-up; every step as it happened."""
        with Topology("meshfw-demo") as topology, Prober(topology) as prober:
            self._prober = prober
            self._place = msgspec.structs.replace(self._place, netns=topology.gateway.path)
            self._ruleset, _ = fit_families(declared, topology.families, ipv6=Ipv6.AUTO)
            self._journeys = [journey for family in topology.families for journey in journeys(family)]
            backend = self._open()
            try:
                self._tool = tool_against(backend.name, topology.gateway, OWNER)
                self._introduce(source)
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

    def _introduce(self, source: str) -> None:
        """Say what is about to be shown."""
        rules = sum(len(chain.rules) for chain in self._ruleset.chains)
        families = " and ".join(sorted(self._ruleset.families))
        self._tell.line()
        self._tell.line(f"A mesh gateway's firewall on backend {self._offer.name}: {self._offer.summary}")
        self._tell.line(f"{source}: {rules} rules for {families}")
        self._tell.line("client - gateway - server are three network namespaces; this host's own rules are not touched")

    def _play(self, backend: Backend) -> None:
        self._per_family = backend.capabilities.processes_per_family
        self._apply(backend)
        self._idle(backend)
        self._adopt()
        self._neighbours(backend)
        for breakage in BREAKAGES:
            self._repair(breakage, backend)
        self._packets()
        self._clean(backend)

    # --- steps ---

    def _apply(self, backend: Backend) -> None:
        step, report = self._measured("apply the declared rules", lambda: reconcile.apply(backend, self._ruleset))
        self._account(step, report, Outcome.CHANGED)
        self._check_packets(step)
        self._say(step)

    def _idle(self, backend: Backend) -> None:
        def ticks() -> list[Report]:
            return [reconcile.apply(backend, self._ruleset) for _ in range(TICKS)]

        step, reports = self._measured(f"apply them {TICKS} times more", ticks)
        self._account(step, reports[-1], Outcome.IDLE)
        each = step.milliseconds * 1000 / TICKS
        step.notes.append(f"{each:.1f} µs each: one question to the kernel, no lock, no write")
        self._say(step)

    def _adopt(self) -> None:
        def begin_anew() -> Report:
            backend = self._open()
            try:
                return reconcile.apply(backend, self._ruleset)
            finally:
                backend.close()

        step, report = self._measured("start anew, knowing nothing", begin_anew)
        self._account(step, report, Outcome.CLEAN)
        step.notes.append("the rules were read, understood and left as they are")
        self._say(step)

    def _neighbours(self, backend: Backend) -> None:
        self._tool.run("nft", "-f", "-", text=FOREIGN)
        before = self._tool.foreign()
        title = "Docker and another tool move in beside"
        step, report = self._measured(title, lambda: reconcile.apply(backend, self._ruleset))
        step.commands = ["nft -f others.nft"]
        self._account(step, report, Outcome.CLEAN)
        self._check_foreign(step, before)
        self._say(step)

    def _repair(self, breakage: Breakage, backend: Backend) -> None:
        commands = self._tool.break_by(breakage)
        astray = self._astray()
        before = self._tool.foreign()
        title = f"somebody {breakage.title}"
        step, report = self._measured(title, lambda: reconcile.apply(backend, self._ruleset))
        step.commands = commands
        self._account(step, report, Outcome.CHANGED)
        if astray:
            step.notes.append(f"until then {counted(len(astray), 'packet')} went astray, such as {astray[0]}")
        else:
            step.wrong.append("what was broken made no difference to any packet")
        self._check_foreign(step, before)
        self._check_packets(step)
        self._say(step)

    def _packets(self) -> None:
        step = Step(title="where packets go now")
        for journey, result in self._sent():
            packet = journey.packet
            service = f"{packet.protocol}/{packet.dport}" if packet.dport else packet.protocol
            step.notes.append(f"{packet.family} {journey.story:41} {service:10} {result.verdict}")
        self._check_packets(step)
        self._say(step)

    def _clean(self, backend: Backend) -> None:
        before = self._tool.foreign()
        step, report = self._measured("take all rules of ours away", lambda: reconcile.apply(backend, Ruleset()))
        self._account(step, report, Outcome.CHANGED)
        step.wrong += [f"{left} is left" for left in self._tool.leftovers()]
        self._check_foreign(step, before)
        self._say(step)

    # --- what came of a step ---

    @staticmethod
    def _measured(title: str, work: Callable[[], T]) -> tuple[Step, T]:
        """The step with processes and time of some work, and what the work gave."""
        counter, counting = ProcessCounter(), True
        with ExitStack() as stack:
            try:
                stack.enter_context(counter)
            except KernelError:  # ptrace is forbidden here
                counting = False
            began = time.perf_counter()
            done = work()
            took = time.perf_counter() - began
        processes = counter.count.forks if counting else None
        step = Step(title=title, processes=processes, milliseconds=round(took * 1000, 3))
        return step, done

    def _account(self, step: Step, report: Report, expected: Outcome) -> None:
        """Put down what a reconcile did, and whether it was what it should be, within the processes it may take."""
        step.outcome, step.transactions = report.outcome.value, report.commits
        step.changes = [str(edit) for edit in report.plan.edits(self._formatted)]
        if report.outcome is not expected:
            step.wrong.append(f"the outcome is {report.outcome}, not {expected}")
        if report.commits > 1:
            step.wrong.append("one transaction should have been enough")
        step.notes += report.warnings
        reads = 1 if self._per_family else 0
        budget = {Outcome.IDLE: 0, Outcome.CLEAN: reads, Outcome.CHANGED: self._per_family + reads}[expected]
        most = budget * len(self._ruleset.families)
        if step.processes is not None and step.processes > most:
            step.wrong.append(f"{_processes(step.processes)} where {most} should do")

    def _formatted(self, rule: Rule, family: Family) -> str:
        return format_rule(rule, family=family, language=self._place.language)

    def _check_foreign(self, step: Step, before: str) -> None:
        if self._tool.foreign() == before:
            step.notes.append("the tables of the others: the same to the byte")
        else:
            step.wrong.append("the tables of the others have changed")

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
