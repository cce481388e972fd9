"""Other clients with the same rules: one process for each rule, and python-iptables; measured, and held to no target.

Run as a program it measures one of them, a request as JSON on standard input, the result as JSON on standard output.
Every sample gets a network namespace of its own, as in cell.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Final

import msgspec

from benchmarks.cell import serve
from benchmarks.iptc_client import Done, Refused, Task
from benchmarks.plain import Prepared, run_all
from benchmarks.results import PeerCell, Work
from benchmarks.rules import PlainRule, PlainTable, plain_tables, restore_steps
from benchmarks.scenarios import BY_NAME
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.timing import timed
from meshfw.backend import Step
from meshfw.errors import BackendError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import find
from meshfw.model import Family, Ruleset
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns

SHOWN: Final = ("first", "idle", "end", "repair")
"""The scenarios in which peers are measured."""
_SECONDS: Final = 600.0


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another client: ``subject`` is the backend whose rules it gets, ``most`` the number of rules where it ends.

    ``module`` is what has to be installed for it, by its name and by that of its distribution.
    """

    name: str
    subject: str
    most: int
    module: str = ""
    distribution: str = ""

    @property
    def missing(self) -> str | None:
        """Why it can't be measured here, or None."""
        if self.module and find_spec(self.module) is None:
            return f"{self.distribution} is not installed (pip install 'meshfw[bench-peers]')"
        return None


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(name="per-rule-nft", subject="iptables-nft", most=1_000),
        Peer(name="per-rule-legacy", subject="iptables-legacy", most=1_000),
        Peer(
            name="python-iptables",
            subject="iptables-legacy",
            most=10_000,
            module="iptc",
            distribution="python-iptables",
        ),
    )
}
"""The peers, by name. One process for each rule and question takes minutes with 10,000 rules."""


class PeerRequest(msgspec.Struct, frozen=True):
    """Which peer to measure, in which scenario."""

    peer: str
    scenario: str
    rules: int
    samples: int


# --- one process for each rule -------------------------------------------------------------------------------


class PerRule:
    """A client as Kilo's controller began: it asks for each rule whether it's there, and adds it where it isn't.

    It makes each chain, which fails where there is one. A rule that was missing comes behind those that weren't, so it
    keeps no order.
    """

    def __init__(self, subject: Subject) -> None:
        self._programs = {
            family: find(tool.removesuffix("-restore")) or ""
            for family, tool in zip(Family, subject.tools, strict=True)
        }

    def sync(self, wanted: Sequence[PlainTable]) -> None:
        """Make sure that everything is there."""
        for table in wanted:
            start = (self._programs[table.family], "-t", table.table)
            for chain in table.chains:
                self._run((*start, "-N", chain))
            for rule in table.rules:
                self._have(start, rule)

    def _have(self, start: tuple[str, ...], rule: PlainRule) -> None:
        if self._run((*start, "-C", rule.chain, *rule.words)) == 0:
            return
        command = (*start, "-I" if rule.first else "-A", rule.chain, *rule.words)
        if self._run(command) != 0:
            raise BackendError(f"{' '.join(command)} failed")

    def _run(self, command: Sequence[str]) -> int:
        quiet = subprocess.DEVNULL
        return subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, close_fds=False, check=False).returncode


# --- a peer in a scenario ------------------------------------------------------------------------------------


class Stage:
    """A scenario for a peer: what the kernel holds, what it held when the peer last wrote, and what is wanted."""

    def __init__(self, peer: Peer, scenario: str, rules: int) -> None:
        language = Language.of(builtin_extensions())
        mesh = mesh_ruleset(rules, language=language)
        told = BY_NAME[scenario]
        self.subject = SUBJECTS[peer.subject]
        self.scenario = scenario

        def tables(ruleset: Ruleset) -> tuple[PlainTable, ...]:
            return plain_tables(self.subject, ruleset, language)

        before = tables(mesh) if told.synced else ()
        self.wanted = tables(told.wanted(mesh))
        self.held = tables(told.outside(mesh)) if told.outside is not None else before

    def leave_out(self, refused: Collection[Refused]) -> None:
        """Have nothing to do with rules that the peer can't make, and so can't read either."""
        keys = {(one.family, one.table, one.rule) for one in refused}

        def without(tables: Iterable[PlainTable]) -> tuple[PlainTable, ...]:
            return tuple(
                msgspec.structs.replace(
                    table, rules=tuple(rule for rule in table.rules if (table.family, table.table, rule) not in keys)
                )
                for table in tables
            )

        self.wanted, self.held = without(self.wanted), without(self.held)

    def room(self, stack: ExitStack) -> Netns:
        """A namespace in the scenario's state."""
        room = stack.enter_context(Netns("meshfw-bench"))
        self._run(restore_steps(self.held, self.subject.tools), room)
        return room

    def printed(self, room: Netns) -> tuple[str, ...]:
        """The rules of both families as the save tools print them, each behind its table."""
        steps = tuple(Step(command) for command in self.subject.reads)
        found, table = [], ""
        for line in self._run(steps, room).splitlines():
            if line.startswith("*"):
                table = line
            elif line.startswith("-A "):
                found.append(f"{table} {line}")
        return tuple(found)

    @staticmethod
    def _run(steps: Sequence[Step], room: Netns) -> str:
        with ExitStack() as stack:
            prepared = [stack.enter_context(Prepared(step)) for step in steps]
            with room.entered():
                run_all(prepared)
            return "".join(command.output for command in prepared)

    def verdict(self, room: Netns, stack: ExitStack) -> tuple[str, ...]:
        """What isn't as wanted but in order; BackendError where something else was measured."""
        right = stack.enter_context(Netns("meshfw-bench"))
        self._run(restore_steps(self.wanted, self.subject.tools), right)
        wanted, held = self.printed(right), self.printed(room)
        if Counter(wanted) != Counter(held):
            raise BackendError("after the measured work the kernel doesn't hold the wanted rules")
        return () if wanted == held else ("a rule that was missing is back in another place",)


def measure(request: PeerRequest) -> PeerCell:
    """A peer in a scenario."""
    peer = PEERS[request.peer]
    stage = Stage(peer, request.scenario, request.rules)
    with ExitStack() as stack:
        run = _iptc if peer.module else _per_rule
        return run(request, stage, stack)


def _per_rule(request: PeerRequest, stage: Stage, stack: ExitStack) -> PeerCell:
    client = PerRule(stage.subject)

    def work() -> None:
        client.sync(stage.wanted)

    samples = []
    for _ in range(request.samples):
        with stage.room(stack).entered():
            samples.append(timed(work))
    room = stage.room(stack)
    with room.entered(), ProcessCounter() as counter:
        work()
    notes = stage.verdict(room, stack)
    commands = tuple(" ".join(command) for command in counter.count.commands[:4])
    return PeerCell(
        peer=request.peer,
        scenario=request.scenario,
        rules=request.rules,
        work=Work(samples=tuple(samples), processes=counter.count.forks, commands=commands),
        notes=notes,
    )


def _iptc(request: PeerRequest, stage: Stage, stack: ExitStack) -> PeerCell:
    trial = Task("first", (), stage.wanted)
    refused = _run_client(trial, stack.enter_context(Netns("meshfw-bench"))).refused
    stage.leave_out(refused)
    task = Task(request.scenario, stage.held, stage.wanted)
    done = [_run_client(task, stage.room(stack)) for _ in range(request.samples)]
    room = stage.room(stack)
    counted = _run_client(msgspec.structs.replace(task, count=True), room)
    reasons = Counter(f"{one.family} {one.table}: {one.reason}" for one in refused)
    return PeerCell(
        peer=request.peer,
        scenario=request.scenario,
        rules=request.rules,
        work=Work(samples=tuple(one.work for one in done), processes=counted.processes),
        start=Work(samples=tuple(one.start for one in done), processes=counted.start_processes),
        left_out=len(refused),
        notes=(
            *stage.verdict(room, stack),
            *(f"{count} rules can't be made: {reason}" for reason, count in reasons.items()),
        ),
    )


def _run_client(task: Task, room: Netns) -> Done:
    with room.entered():
        ended = subprocess.run(
            (sys.executable, "-m", "benchmarks.iptc_client"),
            input=msgspec.json.encode(task),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    if ended.returncode != 0:
        raise BackendError(f"python-iptables ended with {ended.returncode}: {ended.stderr.decode(errors='replace')}")
    return msgspec.json.decode(ended.stdout, type=Done)


if __name__ == "__main__":
    serve(measure, PeerRequest)
