"""The report of a run in Markdown: whole, or as the tables that a text like README.md has between its own words.

In such a text a table stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->``, and is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.looks import CONTESTANTS
from benchmarks.results import Cell, PeerCell, Run, Trial, Work, cpus, walls
from benchmarks.scenarios import BY_NAME
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import Table, all_tables, limits, milliseconds, trial_tables
from benchmarks.targets import Judged, excess

_WORDS: Final = {True: "met", False: "**missed**", None: ""}
_BLOCK: Final = re.compile(r"(<!-- results: ([a-z0-9 ]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
_MACHINE: Final = ("processor", "cores", "memory_gb", "kernel", "system", "nft", "python", "load")


def report(run: Run, judged: Sequence[Judged], *, pictures: Sequence[str]) -> str:
    """Everything about a run: the machine, the targets, each table, and the pictures, which lie beside it."""
    parts = ["# meshfw: what was measured", machine_line(run), targets_table(judged)]
    parts += [f"not measured: {note}" for note in run.notes]
    parts += [f"**too many processes:** {line}" for line in excess(run.cells)]
    parts += [f"**error:** {error}" for error in run.errors]
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in pictures]
    for table in all_tables(run):
        parts += [f"## {table.title}", markdown(table.columns, table.rows), table.note.replace("\n", "  \n")]
    facts = [f"{key}: {value}" for key, value in run.machine.items()]
    parts += ["## The machine", "\n".join(f"- {fact}" for fact in facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine_line(run: Run) -> str:
    """Where, with what and by which command it was measured, in a sentence."""
    facts = run.machine
    there = {key: facts[key] for key in _MACHINE if key in facts}
    words = [
        str(there.get("processor", "a machine of which nothing is known")),
        *([f"{there['cores']} cores"] if "cores" in there else []),
        *([f"{there['memory_gb']} GB"] if "memory_gb" in there else []),
        *([f"Linux {there['kernel']}"] if "kernel" in there else []),
        *([str(there["system"])] if "system" in there else []),
        *([str(facts[tool]) for tool in ("nft", "iptables-nft-restore") if facts.get(tool)]),
        *([f"Python {there['python']}"] if "python" in there else []),
    ]
    load = there.get("load")
    beside = "" if load is None else f" Other work on the machine when it began: load {load}."
    return (
        f"`{' '.join(run.command)}` on {', '.join(words)}. Numbers are medians, with the least and the most in "
        f"brackets.{beside}"
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its first column to the left and the rest to the right."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(word.replace("|", "\\|") for word in line) + " |" for line in lines)


def targets_table(judged: Sequence[Judged]) -> str:
    """The targets that were measured, with what became of them."""
    rows = [(line.subject, line.text, line.measured, _WORDS[line.met]) for line in judged if _was_measured(line)]
    if not rows:
        return ""
    head = ["| | target | measured | |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _was_measured(line: Judged) -> bool:
    return line.measured != "not measured"


# --- the tables of a text -------------------------------------------------------------------------------------


def fill(text: str, run: Run, judged: Sequence[Judged]) -> tuple[str, tuple[str, ...]]:
    """The text with its tables written anew, and the names of those that the run doesn't have: they stay as they are.

    Raises:
        ValueError: a table's name means nothing.
    """
    missing: list[str] = []

    def written(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        block = _block(name, run, judged)
        if not block:
            missing.append(name)
            return found[0]
        return f"{begin}{block}\n{end}"

    return _BLOCK.sub(written, text), tuple(missing)


def _block(name: str, run: Run, judged: Sequence[Judged]) -> str:
    kind, _, rest = name.partition(" ")
    if kind == "overview" and rest.isdigit():
        return overview(run.cells, run.peers, rules=int(rest))
    if kind == "spread" and rest.isdigit():
        return spread(run.cells, rules=int(rest))
    makers: Mapping[str, Callable[[], str]] = {
        "machine": lambda: machine_line(run),
        "targets": lambda: targets_table(judged),
        "limits": lambda: "\n\n".join(map(_plain, limits(run.cells))),
        "trials": lambda: trials(run.trials),
        "edits": lambda: _of_trial(run.trials, "edit"),
    }
    if name not in makers:
        raise ValueError(f"there is no table {name!r}: expected overview RULES, spread RULES, {', '.join(makers)}")
    return makers[name]() if run.cells or run.trials else ""


def _plain(table: Table) -> str:
    return markdown(table.columns, table.rows)


def overview(cells: Sequence[Cell], peers: Sequence[PeerCell], *, rules: int) -> str:
    """Processes and wall time of each contestant in each scenario, with so many rules; empty where there are none."""
    held: dict[str, dict[str, Work]] = {}
    for cell in cells:
        if cell.rules == rules:
            held.setdefault(f"meshfw, {cell.subject}", {})[cell.scenario] = cell.meshfw
            held.setdefault(f"plain, {cell.subject}", {})[cell.scenario] = cell.plain
    for peer in peers:
        if peer.rules == rules:
            held.setdefault(peer.peer, {})[peer.scenario] = peer.work
    names = [*(name for name in CONTESTANTS if name in held), *(name for name in held if name not in CONTESTANTS)]
    if not names:
        return ""
    rows = [
        (scenario.title, *(_short(held[name].get(scenario.name)) for name in names))
        for scenario in BY_NAME.values()
        if any(scenario.name in works for works in held.values())
    ]
    labels = [CONTESTANTS[name].label if name in CONTESTANTS else name for name in names]
    return markdown((f"{rules:,} rules: processes / wall ms", *labels), rows)


def _short(work: Work | None) -> str:
    return "" if work is None else f"{work.processes:,} / {milliseconds(walls(work).median)}"


def spread(cells: Sequence[Cell], *, rules: int) -> str:
    """Wall time, CPU time and peak memory of each backend in each scenario; empty where there are none."""
    held = {(cell.scenario, cell.subject): cell.meshfw for cell in cells if cell.rules == rules}
    subjects = list(dict.fromkeys(subject for _, subject in held))
    if not subjects:
        return ""
    columns = [f"{rules:,} rules: wall ms (least-most), CPU ms, peak MB over idle"]
    columns += [word for subject in subjects for word in (f"meshfw, {subject}", "CPU", "MB")]
    rows = []
    for scenario in BY_NAME.values():
        works = [held.get((scenario.name, subject)) for subject in subjects]
        if any(works):
            rows.append((scenario.title, *(word for work in works for word in _costs(work))))
    return markdown(columns, rows)


def _costs(work: Work | None) -> tuple[str, str, str]:
    if work is None:
        return "", "", ""
    wall = walls(work)
    ends = f"{milliseconds(wall.median)} ({milliseconds(wall.low)}-{milliseconds(wall.high)})"
    return ends, milliseconds(cpus(work).median), f"{work.memory / 1e6:.1f}"


def trials(held: Sequence[Trial]) -> str:
    """The tables of all trials but that of edits, which is long, each behind its title."""
    short = [trial for trial in held if trial.trial != "edit"]
    return "\n\n".join(f"**{table.title}**\n\n{_plain(table)}" for table in trial_tables(short))


def _of_trial(held: Sequence[Trial], name: str) -> str:
    return "\n\n".join(map(_plain, trial_tables([trial for trial in held if trial.trial == name])))


# --- several runs as one --------------------------------------------------------------------------------------


def joined(runs: Sequence[Run]) -> Run:
    """Several runs as one: what a later one has measured stands in place of what an earlier one has.

    A fact of the machine in which they differ is told of each.
    """
    first, *others = runs
    if not others:
        return first
    cells = {(cell.subject, cell.scenario, cell.rules): cell for run in runs for cell in run.cells}
    peers = {(cell.peer, cell.scenario, cell.rules): cell for run in runs for cell in run.peers}
    trials = {(trial.trial, trial.subject): trial for run in runs for trial in run.trials}
    return Run(
        machine={key: _fact(key, runs) for run in runs for key in run.machine},
        command=tuple(word for run in runs for word in ("and", *run.command))[1:],
        cells=tuple(sorted(cells.values(), key=_place)),
        peers=tuple(peers.values()),
        trials=tuple(trials.values()),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        errors=tuple(dict.fromkeys(error for run in runs for error in run.errors)),
    )


def _place(cell: Cell) -> tuple[int, int, int]:
    """Where a cell stands among others: by backend, scenario and size."""
    names, scenarios = list(SUBJECTS), list(BY_NAME)
    subject = names.index(cell.subject) if cell.subject in names else len(names)
    return subject, scenarios.index(cell.scenario), cell.rules


def _fact(key: str, runs: Sequence[Run]) -> Any:
    values = list(dict.fromkeys(run.machine[key] for run in runs if key in run.machine))
    return values[0] if len(values) == 1 else " and ".join(map(str, values))
