"""How the demonstration is told: its steps on a terminal, and the tables that compare what they took."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshfw.cli.output import counted

SHOWN: Final = 8
"""Lines of a plan that are shown; the others are counted."""
TICKS: Final = 1000
"""How often nothing is to be done in the step ``idle``."""
_WIDTH: Final = 100
_STYLES: Final = {"+": "green", "~": "yellow", "-": "red", "$": "cyan", "!": "bold red"}


class Step(msgspec.Struct, kw_only=True):
    """One step of the story: what was done, by which commands of others, and what came of it."""

    kind: str
    """``apply``, ``idle``, ``adopt``, ``neighbours``, ``repair``, ``packets``, ``clean``; ``client`` is another's."""
    title: str
    commands: Sequence[str] = ()
    astray: Sequence[str] = ()
    """The packets that went elsewhere than they should before it."""
    changes: Sequence[str] = ()
    outcome: str = ""
    transactions: int = 0
    processes: int | None = None
    """Processes that were spawned; None where they could not be counted."""
    milliseconds: float = 0.0
    verdicts: Sequence[str] = ()
    same_as: str = ""
    """The backend on which every packet met the same verdict."""
    notes: list[str] = []
    wrong: list[str] = []
    """What is not as it should be."""


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

    def chapter(self, *lines: str) -> None:
        """What begins now; its steps are counted from 1."""
        self._number = 0
        self.line()
        for line in lines:
            self.line(line)

    def step(self, step: Step) -> None:
        """One step, numbered."""
        self._number += 1
        self.line()
        self.line(f"{self._number:2}  {step.title}")
        for command in step.commands:
            self.line(_cut(f"$ {command}"), indent=4)
        if step.astray:
            led, *others = step.astray
            count = f"{counted(1 + len(others), 'packet')} {'go' if others else 'goes'} astray"
            self.line(f"{count}{', such as' if others else ':'} {led}", indent=4)
        for change in _foremost(step.changes):
            self.line(_cut(change), indent=4)
        if len(step.changes) > SHOWN:
            self.line(f"... {len(step.changes) - SHOWN} more", indent=4)
        if step.outcome:
            made = f" by {counted(step.transactions, 'transaction')}" if step.transactions else ""
            self.line(f"{step.outcome}{made}: {processes(step.processes)}, {step.milliseconds:.1f} ms", indent=4)
        for verdict in () if step.same_as else step.verdicts:
            self.line(verdict, indent=4)
        for note in step.notes:
            self.line(note, indent=4)
        for line in step.wrong:
            self.line(f"! not as it should be: {line}", indent=4)


def _cut(line: str) -> str:
    """A line that fits behind its indent; the whole is in the JSON."""
    most = _WIDTH - 4
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _foremost(changes: Sequence[str]) -> Sequence[str]:
    """The lines of a plan that are shown: of many, those of chains rather than of sets."""
    if len(changes) <= SHOWN:
        return changes
    return sorted(changes, key=lambda line: line.split()[2] == "set")[:SHOWN]


def processes(number: int | None) -> str:
    """``0 processes``, ``1 process``."""
    if number is None:
        return "processes not counted"
    return f"{number} process{'' if number == 1 else 'es'}"


# --- tables ------------------------------------------------------------------------------------------------


def totals(told: Mapping[str, Sequence[Step]]) -> list[str]:
    """What the backends took, one row each: processes, and how long."""
    if not told:
        return []
    columns = ("apply", "idle", "repair", "clean")
    heads = ("first apply", f"{TICKS} idle ticks", "one repair", "clean")
    units = [f"{'processes':>11}{'µs each' if kind == 'idle' else 'ms':>8}" for kind in columns]
    lines = [f"{'':18}{''.join(f'{head:>19}' for head in heads)}", f"{'':18}{''.join(units)}"]
    for name, steps in told.items():
        first = {step.kind: step for step in reversed(steps)}
        cells = [f"{_number(first[kind].processes):>11}{_time(first[kind]):>8}" for kind in columns]
        lines.append(f"{name:18}{''.join(cells)}")
    return lines


def comparison(told: Mapping[str, Sequence[Step]], clients: Mapping[str, Sequence[Step]]) -> list[str]:
    """The backends beside clients that keep the same rules one by one: a row each, first sync and one idle pass."""
    if not clients:
        return []
    lines = [
        f"{'':32}{'first sync':>22}{'one idle pass':>26}",
        f"{'':32}{'processes':>11}{'ms':>11}{'processes':>15}{'ms':>11}",
    ]
    for name, steps in told.items():
        first = {step.kind: step for step in reversed(steps)}
        idle = first["idle"]
        lines.append(_row(name, first["apply"], idle.processes, idle.milliseconds / TICKS))
    for name, (sync, again) in clients.items():
        lines.append(_row(f"rule by rule, {name}", sync, again.processes, again.milliseconds))
    return [*lines, "each process was followed to be counted, which costs it some tenths of a millisecond"]


def _row(name: str, sync: Step, idle: int | None, took: float) -> str:
    times = f"{sync.milliseconds:>11.1f}", f"{took:>11.4f}" if took < 1 else f"{took:>11.1f}"
    return f"{name:32}{_number(sync.processes):>11}{times[0]}{_number(idle):>15}{times[1]}"


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _time(step: Step) -> str:
    return f"{step.milliseconds * 1000 / TICKS if step.kind == 'idle' else step.milliseconds:.1f}"
