"""The tables and the verdicts on a terminal: with rich where it is one, as plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from benchmarks.results import Cell, PeerCell, Run, Trial, Work, cpus, ratios, steps, walls
from benchmarks.scenarios import BY_NAME
from benchmarks.subjects import SUBJECTS
from benchmarks.targets import Judged, excess
from benchmarks.timing import ONCE
from benchmarks.trials import BESIDE, TRIALS

STEPS: Final = ("check", "observe", "diff", "compile", "commit", "proof")
"""The steps of an apply, in their order."""


class Table(msgspec.Struct, frozen=True):
    """Columns and rows of text under a title, with what has to be said about them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def show(run: Run, judged: Sequence[Judged]) -> None:
    """Print everything for people."""
    print(f"\n{', '.join(f'{key} {value}' for key, value in run.machine.items())}")
    for table in all_tables(run):
        _show_table(table)
    print("\nTargets")
    for target in judged:
        word = {True: "ok", False: "missed", None: "-"}[target.met]
        print(f"  {word:<7} {target.subject}: {target.text}\n          {target.measured}")
    for note in run.notes:
        print(f"\nnot measured: {note}")
    for line in excess(run.cells):
        print(f"\ntoo many processes: {line}", file=sys.stderr)
    for error in run.errors:
        print(f"\nerror: {error}", file=sys.stderr)


def all_tables(run: Run) -> tuple[Table, ...]:
    """Everything that was measured."""
    return (
        *tables(run.cells),
        *limits(run.cells),
        *overviews(run.cells, run.peers),
        *peer_tables(run.peers),
        *trial_tables(run.trials),
    )


def tables(cells: Sequence[Cell]) -> Iterable[Table]:
    """For each subject a table of costs, and one of where the time goes."""
    for name in dict.fromkeys(cell.subject for cell in cells):
        held = [cell for cell in cells if cell.subject == name]
        yield _costs(name, held)
        yield _steps(name, held)


def _costs(name: str, cells: Sequence[Cell]) -> Table:
    tool = SUBJECTS[name].plain
    columns = ["scenario", "rules", "processes", "plain", "wall ms (least-most)", "plain", "ratio"]
    columns += ["CPU ms", "plain", "peak MB", "plain"]
    rows = []
    for cell in cells:
        ours, plain = walls(cell.meshfw), walls(cell.plain)
        rows.append(
            (
                BY_NAME[cell.scenario].title,
                f"{cell.rules:,}",
                str(cell.meshfw.processes),
                str(cell.plain.processes),
                f"{milliseconds(ours.median)} ({milliseconds(ours.low)}-{milliseconds(ours.high)})",
                f"{milliseconds(plain.median)} ({milliseconds(plain.low)}-{milliseconds(plain.high)})",
                f"{ratios(cell).median:.3g}",
                milliseconds(cpus(cell.meshfw).median),
                milliseconds(cpus(cell.plain).median),
                f"{cell.meshfw.memory / 1e6:.1f} + {cell.meshfw.idle_memory / 1e6:.0f}",
                f"{cell.plain.memory / 1e6:.1f}",
            )
        )
    note = (
        f"plain: {tool}, given the same transaction as text without the questions that prove it\n"
        f"(idle: {_reads(name)}); it neither looks before nor proves after. Times are medians of\n"
        "samples taken in turn, the tool's with its spawn; the ratio is that of wall times,\n"
        "pair by pair. Peak memory: what the reconcile adds + the process that was there before\n"
        "it, with ruleset and open backend; of the tool its largest process, which can't be told below some 9 MB."
    )
    return Table(f"meshfw, backend {name}, beside {tool}", tuple(columns), tuple(rows), note)


def _reads(name: str) -> str:
    return " and ".join(" ".join(command) for command in SUBJECTS[name].reads)


def _steps(name: str, cells: Sequence[Cell]) -> Table:
    columns = ("scenario", "rules", *(f"{step} ms" for step in STEPS), "commit / same text", "commit / plain")
    rows = []
    for cell in cells:
        held = steps(cell)
        if any(step in held for step in STEPS):
            same = f"{ratios(cell, 'commit', over=cell.same_text).median:.3g}" if "commit" in held else ""
            plain = f"{ratios(cell, 'commit').median:.3g}" if "commit" in held else ""
            times = (milliseconds(held[step]) if step in held else "" for step in STEPS)
            rows.append((BY_NAME[cell.scenario].title, f"{cell.rules:,}", *times, same, plain))
    note = (
        "Observe is the reading before the commit, proof the one behind it; diff is all that is not the backend's.\n"
        "The commit's ratios are to the plain tool on the very same text, and on it without the questions in it."
    )
    return Table(f"Where the time goes, backend {name}", columns, tuple(rows), note)


# --- side by side --------------------------------------------------------------------------------------------


def overviews(cells: Sequence[Cell], peers: Sequence[PeerCell]) -> Iterable[Table]:
    """For each size a table of all contestants, with processes and wall time in each scenario."""
    for rules in sorted({cell.rules for cell in cells}):
        yield overview([cell for cell in cells if cell.rules == rules], [peer for peer in peers if peer.rules == rules])


def overview(cells: Sequence[Cell], peers: Sequence[PeerCell]) -> Table:
    """All contestants in the scenarios of one size."""
    held: dict[str, dict[str, Work]] = {}
    for cell in cells:
        held.setdefault(f"meshfw, {cell.subject}", {})[cell.scenario] = cell.meshfw
    for cell in cells:
        held.setdefault(f"plain, {cell.subject}", {})[cell.scenario] = cell.plain
    for peer in peers:
        held.setdefault(peer.peer, {})[peer.scenario] = peer.work
    names = [name for name in BY_NAME if any(name in works for works in held.values())]
    rows = tuple((who, *(_short(works.get(name)) for name in names)) for who, works in held.items())
    columns = ("processes / wall ms", *(BY_NAME[name].title for name in names))
    sizes = {cell.rules for cell in cells}
    return Table(f"Side by side, {', '.join(f'{size:,}' for size in sizes)} rules", columns, rows, "")


def _short(work: Work | None) -> str:
    return "" if work is None else f"{work.processes:,} / {milliseconds(walls(work).median)}"


def peer_tables(peers: Sequence[PeerCell]) -> Iterable[Table]:
    """For each peer a table of its costs, with what it did otherwise than wanted."""
    for name in dict.fromkeys(cell.peer for cell in peers):
        held = [cell for cell in peers if cell.peer == name]
        columns = (
            "scenario",
            "rules",
            "processes",
            "wall ms (least-most)",
            "CPU ms",
            "left out",
            "to start: processes, ms",
        )
        rows = tuple(_peer_row(cell) for cell in held)
        notes = dict.fromkeys(f"{BY_NAME[cell.scenario].title}: {note}" for cell in held for note in cell.notes)
        yield Table(f"For comparison: {name}", columns, rows, "\n".join(notes))


def _peer_row(cell: PeerCell) -> tuple[str, ...]:
    wall = walls(cell.work)
    start = f"{cell.start.processes}, {milliseconds(walls(cell.start).median)}" if cell.start is not None else ""
    return (
        BY_NAME[cell.scenario].title,
        f"{cell.rules:,}",
        f"{cell.work.processes:,}",
        f"{milliseconds(wall.median)} ({milliseconds(wall.low)}-{milliseconds(wall.high)})",
        milliseconds(cpus(cell.work).median),
        f"{cell.left_out} rules" if cell.left_out else "",
        start,
    )


def limits(cells: Sequence[Cell]) -> Iterable[Table]:
    """A table of what an idle apply takes beside the least that it can, and beside the plain tool that looks."""
    held = [cell for cell in cells if cell.bare is not None]
    if not held:
        return
    columns = (
        "idle, µs",
        "rules",
        "meshfw",
        "bare question",
        "ratio (least-most)",
        "once after a commit",
        "plain tool",
    )
    rows = []
    for cell in held:
        ours, bare, ratio = walls(cell.meshfw), walls(cell.bare or cell.plain), ratios(cell, over=cell.bare)
        rows.append(
            (
                cell.subject,
                f"{cell.rules:,}",
                microseconds(ours.median),
                microseconds(bare.median),
                f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})",
                microseconds(steps(cell)[ONCE]) if ONCE in steps(cell) else "",
                microseconds(walls(cell.plain).median),
            )
        )
    note = (
        "bare question: the least that tells whether anything changed, on a kept socket and with nothing around it.\n"
        "Over nf_tables one GETGEN, on legacy tables GET_INFO and GET_ENTRIES of each. The ratio is pair by pair.\n"
        "once after a commit: what the first three idle applies behind it did besides, and no later one does again."
    )
    yield Table("An idle apply beside the limits themselves", columns, tuple(rows), note)


def trial_tables(trials: Sequence[Trial]) -> Iterable[Table]:
    """For each kind of trial a table of everything that it gave, a column for each backend."""
    for name in dict.fromkeys(trial.trial for trial in trials):
        held = [trial for trial in trials if trial.trial == name]
        extents = dict.fromkeys(extent(trial) for trial in held)
        alike = len(extents) == 1
        title = f"Trial: {TRIALS[name].title}" + (f" ({next(iter(extents))})" if alike else "")
        columns = ["quantity", *(trial.subject if alike else f"{trial.subject}, {extent(trial)}" for trial in held)]
        quantities = dict.fromkeys(quantity for trial in held for quantity in trial.figures)
        rows = [(_named(quantity, held), *(_shown(trial, quantity) for trial in held)) for quantity in quantities]
        if len(held) == 1:
            columns, rows = _paired(columns, rows)
        notes = [f"{trial.subject}: {note}" for trial in held for note in trial.notes]
        yield Table(title, tuple(columns), tuple(rows), "\n".join(notes))


def extent(trial: Trial) -> str:
    """How many rules a trial had, and how long it went on."""
    return f"{trial.rules:,} rules, {trial.amount:,g} {TRIALS[trial.trial].unit}"


def _named(quantity: str, trials: Sequence[Trial]) -> str:
    """A quantity and its unit; seconds are shown as milliseconds."""
    unit = next(trial.figures[quantity].unit for trial in trials if quantity in trial.figures)
    unit = "ms" if unit == "s" else unit
    return f"{quantity}, {unit}" if unit else quantity


def _shown(trial: Trial, quantity: str) -> str:
    """The median of a quantity, with the least and the most where there are several samples."""
    figure = trial.figures.get(quantity)
    if figure is None:
        return ""
    scale = 1e3 if figure.unit == "s" else 1.0
    spread = figure.spread
    text = number(spread.median * scale)
    if len(figure.samples) > 1:
        text += f" ({number(spread.low * scale)}-{number(spread.high * scale)})"
    return text


def _paired(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """A table of one trial, with what was measured ``beside`` something as a column behind what was measured alone."""
    beside = {name: value for name, value in rows if BESIDE in name}
    if not beside:
        return list(columns), list(rows)
    circumstance = next(iter(beside)).partition(BESIDE)[2].rpartition(",")[0]
    found: list[tuple[str, ...]] = []
    for name, value in rows:
        quantity, _, unit = name.rpartition(", ")
        if BESIDE not in name:
            found.append((name, value, beside.get(f"{quantity}{BESIDE}{circumstance}, {unit}", "")))
    return [*columns, f"beside {circumstance}"], found


def number(value: float) -> str:
    """A number with three or four digits that count; a whole one as such."""
    if value == round(value):
        return f"{value:,.0f}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def microseconds(seconds: float) -> str:
    """Microseconds with three or four digits that count."""
    return milliseconds(seconds * 1e3)


def milliseconds(seconds: float) -> str:
    """Milliseconds with three or four digits that count."""
    value = seconds * 1e3
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:,.{digits}f}"


def _show_table(table: Table) -> None:
    if sys.stdout.isatty():
        _show_rich(table)
        return
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    print(f"\n{table.title}")
    for row in (table.columns, *table.rows):
        words = (
            word.ljust(width) if index < 1 else word.rjust(width)
            for index, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(words).rstrip())
    if table.note:
        print(table.note)


def _show_rich(table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable

    grid = RichTable(title=table.title, caption=table.note, box=SIMPLE_HEAD, caption_justify="left")
    for index, column in enumerate(table.columns):
        grid.add_column(column, justify="left" if index < 1 else "right", no_wrap=index < 1)
    before = ""
    for row in table.rows:
        grid.add_row(*((row[0] if row[0] != before else ""), *row[1:]))
        before = row[0]
    Console().print(grid)
