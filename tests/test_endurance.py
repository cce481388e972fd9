"""The trials, the limits and the report: what is measured is what is told, and a target can be missed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from benchmarks import plot
from benchmarks.__main__ import main, read
from benchmarks.bare import BareGeneration
from benchmarks.cell import Request
from benchmarks.measuring import CellError, TooLongError, measure, measure_all
from benchmarks.options import parser, requests, trial_requests
from benchmarks.report import fill, joined, report
from benchmarks.results import Cell, Figure, Run, Sample, Trial, Work
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import limits, number, trial_tables
from benchmarks.targets import judge
from benchmarks.timing import looped
from benchmarks.trials import MODEL, TRIALS, TrialRequest
from benchmarks.trials.__main__ import measure as make_trial
from benchmarks.trials.agent import AgentProcess, config_text, cpu_seconds, resident
from benchmarks.trials.goals import GOALS, judge_trials
from benchmarks.trials.outsiders import Pace, Rival, outsider, printed, run_steps
from benchmarks.trials.pulse import Pulse
from meshfw.backend import Site
from meshfw.errors import BackendError
from meshfw.extensions import Language, builtin_extensions
from meshfw.model import Ruleset
from meshfw.reconcile import apply
from meshfw.testing.mesh import mesh_ruleset
from meshfw.testing.netns import Netns
from meshfw.workshop import Workshop

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def language() -> Language:
    return Language.of(builtin_extensions())


@pytest.fixture
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


# --- the agent's configuration ---


@pytest.mark.parametrize("size", [10, 300])
def test_the_agent_is_told_the_very_ruleset_of_the_cells(size: int, tmp_path: Path, language: Language) -> None:
    mesh = mesh_ruleset(size, language=language)
    path = tmp_path / "meshfw.toml"
    path.write_text(config_text(mesh, language, settings={"rival_limit": 1000}), encoding="utf-8")
    shop = Workshop(Namespace(config=str(path), backend="memory", netns=None))
    assert shop.config.agent.rival_limit == 1000
    told = shop.rules()
    assert {chain.key: chain for chain in told.chains} == {chain.key: chain for chain in mesh.chains}
    assert set(told.sets) == set(mesh.sets)
    assert set(told.attachments) == set(mesh.attachments)


def test_an_agent_that_ends_at_once_says_why(tmp_path: Path) -> None:
    agent = AgentProcess("memory", netns="no-such-netns", config="owner = 7\n", directory=str(tmp_path))
    with pytest.raises(BackendError, match=r"ended with 1.*owner"), agent:
        pass


# --- targets ---


def trial(name: str, subject: str, /, *, short: bool = False, **figures: float | tuple[float, ...]) -> Trial:
    kind = TRIALS[name]
    samples = {
        quantity.replace("_", " "): Figure("", value if isinstance(value, tuple) else (value,))
        for quantity, value in figures.items()
    }
    amount = kind.short_amount if short else kind.amount
    return Trial(trial=name, subject=subject, rules=kind.rules, amount=amount, figures=samples)


def beside(processes: float) -> Trial:
    return trial("beside", "nft", processes=processes, CPU=1.0, CPU_a_write=0.1, writes=10.0)


def rival(commits: float = 10, events: float = 1, changed: float = 0) -> Trial:
    return trial("rival", "nft", commits=commits, contention_events=events, foreign_lines_changed=changed)


def rest(processes: float = 0, cpu: float = 0.09, peak: float = 80, gained: float = 1) -> Trial:
    return trial("rest", "nft", processes=processes, CPU=cpu, memory=(20.0, peak), memory_gained=gained)


def reconciles(gained: float = 1, processes: float = 0) -> Trial:
    return trial(
        "reconciles",
        "nft",
        memory=(20.0, 21.0),
        memory_gained=gained,
        idle_reconciles_counted=1000,
        processes_when_idle=processes,
    )


def diff(own: float, large: float) -> Trial:
    return trial("diff", MODEL, few=0.01, own=own, many=large)


def edit(alone: float, beside: float) -> Trial:
    figures = {"inserted": Figure("s", (0.001, alone, 9.0)), "inserted, beside chains": Figure("s", (beside,))}
    return Trial(trial="edit", subject="nft", rules=TRIALS["edit"].rules, amount=5, figures=figures)


@pytest.mark.parametrize(
    ("words", "met", "missed"),
    [
        (
            "within 100 ms",
            trial("latency", "nft", until_repaired=(0.01, 0.099, 9.0)),
            trial("latency", "nft", until_repaired=0.1),
        ),
        (
            "within 1,000 ms",
            trial("latency", "iptables-legacy", until_repaired=0.99),
            trial("latency", "iptables-legacy", until_repaired=1.0),
        ),
        ("no process beside", beside(0), beside(1)),
        ("a rival at 10 Hz", rival(), rival(commits=11)),
        ("a rival at 10 Hz", rival(), rival(events=0)),
        ("a rival at 10 Hz", rival(), rival(events=2)),
        ("a rival at 10 Hz", rival(), rival(changed=1)),
        ("at rest", rest(), rest(processes=1)),
        ("at rest", rest(), rest(cpu=0.1)),
        ("at rest", rest(), rest(peak=80.1)),
        ("at rest", rest(), rest(gained=1.1)),
        ("100,000 reconciles", reconciles(), reconciles(gained=1.1)),
        ("100,000 reconciles", reconciles(), reconciles(processes=1)),
        ("1 % different", diff(0.15, 1.5), diff(0.151, 1.5)),
        ("a rule of 100,000", diff(0.1, 1.5), diff(0.1, 1.51)),
        ("inserted or replaced", edit(0.005, 0.005), edit(0.0051, 0.005)),
        ("inserted or replaced", edit(0.005, 0.005), edit(0.005, 0.0051)),
        ("times as long", edit(0.001, 0.0012), edit(0.001, 0.00121)),
    ],
)
def test_each_target_of_a_trial_is_met_up_to_its_limit_and_missed_beyond(words: str, met: Trial, missed: Trial) -> None:
    (index,) = (i for i, goal in enumerate(GOALS) if goal.subject == met.subject and words in goal.text)
    assert judge_trials([met])[index].met is True
    assert judge_trials([missed])[index].met is False
    assert judge_trials([met, missed])[index].met is False, "the last one of a run is judged"


def test_a_short_run_can_miss_a_target_but_not_meet_it() -> None:
    (index,) = (i for i, goal in enumerate(GOALS) if (goal.subject, goal.trial) == ("nft", "latency"))
    judged = [judge_trials([trial("latency", "nft", short=True, until_repaired=one)])[index] for one in (0.01, 9.0)]
    assert [line.met for line in judged] == [None, False]
    assert all(line.measured.endswith("a short run") for line in judged)


def test_every_trial_has_a_target_for_each_of_its_subjects() -> None:
    assert {(goal.trial, goal.subject) for goal in GOALS} == {
        (kind.name, subject) for kind in TRIALS.values() for subject in kind.subjects
    }
    assert judge_trials([]) == ()
    assert {line.met for line in judge_trials([beside(0)]) if line.measured == "not measured"} == {None}


# --- options ---


def test_a_smoke_run_makes_every_trial_in_short_and_a_plain_one_none() -> None:
    assert trial_requests(parser().parse_args([])) == []
    short = trial_requests(parser().parse_args(["--smoke"]))
    assert len(short) == sum(len(kind.subjects) for kind in TRIALS.values())
    assert {request.amount for request in short if request.trial == "rest"} == {TRIALS["rest"].short_amount}
    full = trial_requests(parser().parse_args(["--trials", "all"]))
    assert {(one.trial, one.rules, one.amount) for one in full} == {
        (kind.name, kind.rules, kind.amount) for kind in TRIALS.values()
    }


def test_a_trial_goes_on_for_as_long_as_told() -> None:
    options = parser().parse_args(["--trials", "rest=3.5,diff", "--backends", "nft", "--trial-rules", "50"])
    assert trial_requests(options) == [TrialRequest("rest", "nft", 50, 3.5), TrialRequest("diff", MODEL, 50, 5)]


def test_the_largest_size_comes_on_top_of_the_others() -> None:
    assert {one.rules for one in requests(parser().parse_args(["--large"]))} == {10, 100, 1_000, 10_000, 100_000}
    assert {one.rules for one in requests(parser().parse_args(["--large", "--sizes", "10"]))} == {10, 100_000}
    assert requests(parser().parse_args(["--scenarios="])) == []


@pytest.mark.parametrize("words", ["nothing", "rest=", "rest=0", "rest=-1", "rest=x", "rest=1e99"])
def test_a_trial_that_there_is_not_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--trials", words])
    assert "argument --trials" in capsys.readouterr().err


# --- the report ---


def cell(scenario: str = "first", *, rules: int = 1_000, wall: float = 0.5) -> Cell:
    steps = {"once": 0.0015} if scenario == "idle" else {"commit": 0.1}
    return Cell(
        subject="nft",
        scenario=scenario,
        rules=rules,
        allowed=0,
        meshfw=Work(samples=(Sample(wall, wall, steps),), processes=0),
        plain=Work(samples=(Sample(0.25, 0.25),), processes=1),
        bare=Work(samples=(Sample(wall / 2, wall / 2),), processes=0) if scenario == "idle" else None,
    )


def run_of(*cells: Cell, trials: tuple[Trial, ...] = (), **more: object) -> Run:
    facts = {"processor": "a processor", "cores": 2, "load": 0.1}
    return Run(machine=facts, command=("python", "-m", "benchmarks"), cells=cells, trials=trials, **more)  # type: ignore[arg-type]  # as named


def verdicts(run: Run) -> tuple[object, ...]:
    return (*judge(run.cells), *judge_trials(run.trials))


def test_the_report_has_every_target_note_error_and_number() -> None:
    run = run_of(cell(), cell("idle"), trials=(beside(0), rest(gained=3)), notes=("a note",), errors=("an error",))
    judged = (*judge(run.cells), *judge_trials(run.trials))
    text = report(run, judged, pictures=["one.png"])
    measured = [line for line in judged if line.measured != "not measured"]
    assert len(measured) > 4
    assert all(f"| {line.text} | {line.measured} |" in text for line in measured)
    assert "**missed**" in text
    assert "not measured: a note" in text
    assert "**error:** an error" in text
    assert "![one](one.png)" in text
    assert "a processor, 2 cores" in text
    assert "| nft | 1,000 | 500,000 | 250,000 | 2.00 (2.00-2.00) | 1,500 | 250,000 |" in text, "the limits"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


README = "before\n<!-- results: overview 1000 -->\nold\n<!-- end of results -->\nbetween\n"
OTHER = "<!-- results: overview 10 -->\nkept\n<!-- end of results -->\nafter\n"


def test_tables_are_written_anew_and_nothing_else_is() -> None:
    run = run_of(cell())
    text, missing = fill(README + OTHER, run, judge(run.cells))
    assert missing == ("overview 10",)
    head, body = text.split("<!-- results: overview 1000 -->\n")
    assert head == "before\n"
    assert body.startswith("| 1,000 rules: processes / wall ms | ")
    assert "| first sync | 0 / 500 | 1 / 250 |\n<!-- end of results -->\nbetween\n" in body
    assert text.endswith(OTHER)
    assert fill(text, run, judge(run.cells)) == (text, missing), "a second time changes nothing"


@pytest.mark.parametrize("name", ["none", "overview", "overview x", "machines"])
def test_a_table_that_means_nothing_is_refused(name: str) -> None:
    run = run_of(cell())
    with pytest.raises(ValueError, match=f"there is no table '{name}'"):
        fill(f"<!-- results: {name} -->\n<!-- end of results -->\n", run, ())


def test_the_readme_of_the_benchmarks_asks_for_tables_that_there_are() -> None:
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    assert text.count("<!-- results: ") == text.count("<!-- end of results -->") > 5
    _, missing = fill(text, run_of(), ())
    assert len(missing) == text.count("<!-- results: "), "each name is known, and an empty run changes none"


def test_a_later_run_stands_in_place_of_an_earlier_one() -> None:
    first = run_of(cell(wall=1.0), cell("idle", rules=10), trials=(beside(1),), notes=("n",))
    second = msgspec.structs.replace(
        run_of(cell(wall=2.0), cell(rules=100_000), trials=(beside(0),), notes=("n",)),
        machine={"processor": "a processor", "cores": 4, "load": 0.1},
    )
    both = joined([first, second])
    assert [(one.scenario, one.rules) for one in both.cells] == [("first", 1_000), ("first", 100_000), ("idle", 10)]
    assert both.cells[0].meshfw.samples[0].wall == 2.0
    assert [one.figures["processes"].samples for one in both.trials] == [(0,)]
    assert both.machine == {"processor": "a processor", "cores": "2 and 4", "load": 0.1}
    assert both.notes == ("n",)
    assert joined([first]) is first


def test_the_report_comes_from_the_results_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(cell(), cell("idle"), trials=(beside(0),))
    results, text = tmp_path / "old.json", tmp_path / "text.md"
    results.write_bytes(msgspec.json.encode({"run": run, "targets": verdicts(run)}))
    text.write_text(README, encoding="utf-8")
    assert main(["--report", str(results), "--output", str(tmp_path / "out"), "--readme", str(text)]) == 0
    assert "first sync | 0 / 500" in text.read_text(encoding="utf-8")
    assert "no process beside a writer" in (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert msgspec.convert(json.loads((tmp_path / "out/results.json").read_text())["run"], Run) == run
    assert read([str(results)]) == run
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == ({"time.png", "processes.png", "limits.png", "endurance.png"} if not plot.missing() else set())
    capsys.readouterr()
    results.write_text("{}", encoding="utf-8")
    assert main(["--report", str(results)]) == 1
    assert capsys.readouterr().err.startswith(f"no report: {results}: ")
    assert main(["--report", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3.0, "3"), (1234.5, "1,234"), (12.34, "12.3"), (0.12345, "0.123"), (-1.5, "-1.50")]
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_tables_of_trials_and_limits_are_whole() -> None:
    tables = [*trial_tables([beside(0), rest(), edit(0.1, 0.2)]), *limits([cell("idle"), cell()])]
    assert len(tables) == 4
    assert tables[0].rows[0] == ("processes", "0")
    assert tables[2].columns == ("quantity", "nft", "beside chains")
    assert tables[2].rows == (("inserted, ms", "100 (1-9,000)", "200"),)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert [*limits([cell()])] == []


def test_trials_that_are_not_alike_say_so_in_their_columns() -> None:
    other = trial("beside", "iptables-nft", short=True, processes=1)
    (table,) = trial_tables([beside(0), other])
    assert table.columns == ("quantity", "nft, 10,000 rules, 60 seconds", "iptables-nft, 10,000 rules, 0.5 seconds")
    assert table.rows[0] == ("processes", "0", "1")
    assert table.rows[1][2] == "", "it wasn't measured"


# --- measuring ---


def dead_names() -> set[str]:
    """Namespaces whose maker has ended."""
    found = set()
    with suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            words = name.split("-")
            if name.startswith("meshfw-bench-") and not os.path.exists(f"/proc/{words[2]}"):
                found.add(name)
    return found


@pytest.mark.kernel
def test_what_takes_too_long_is_ended_and_leaves_nothing(requires: Callable[..., None]) -> None:
    requires("nft")
    before, request = dead_names(), Request("nft", "first", 3_000, 9)
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a shell starts in the background
    try:
        with pytest.raises(TooLongError, match=r"nft, first, 3,000 rules: no end after 1\.5 s"):
            measure(request, limit=1.5)
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert dead_names() <= before
    found, notes, errors = measure_all([request], at_once=1, limit=0.2)
    assert (found, errors) == ([], [])
    assert notes == ["nft, first, 3,000 rules: no end after 0.2 s"], "it's said, and is no error"


@pytest.mark.kernel
def test_an_interrupted_run_ends_at_once_and_leaves_nothing(requires: Callable[..., None], tmp_path: Path) -> None:
    requires("nft")
    before = dead_names()
    words = ("--scenarios", "first", "--sizes", "5000", "--backends", "nft", "--peers=", "--output", str(tmp_path))
    command = (sys.executable, "-m", "benchmarks", *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert not list(tmp_path.iterdir())
    assert dead_names() <= before


def test_what_fails_says_what_its_process_said() -> None:
    with pytest.raises(CellError, match=r"(?s)trial diff.*at least 10"):
        measure(TrialRequest("diff", MODEL, 5, 1), limit=60)


@pytest.mark.kernel
def test_the_bare_question_gets_the_generation(requires: Callable[..., None]) -> None:
    requires("nft")
    with Netns() as room, room.entered(), BareGeneration() as ask:
        before = ask.number()
        subprocess.run(("nft", "add", "table", "inet", "foreign"), check=True)
        assert ask.number() == before + 1
        ask()


def test_the_time_of_a_process_is_its_own_and_its_childrens() -> None:
    lines = (
        "import time, subprocess, sys",
        "end = time.process_time() + 0.3",
        "while time.process_time() < end: pass",
        "subprocess.run([sys.executable, '-c', 'for i in range(3_000_000): pass'])",
        "print(1, flush=True)",
        "input()",
    )
    program = "\n".join(lines)
    with subprocess.Popen((sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken, memory = cpu_seconds(process.pid), resident(process.pid)
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            ticks = sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")
        process.communicate(b"\n")
    assert taken > 0.3
    assert taken == pytest.approx(ticks, abs=0.05)
    assert 2e6 < memory < 100e6


def test_what_is_done_once_is_told_apart_from_what_each_call_takes() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        time.sleep(0.05 if len(calls) == 2 else 0.0001)

    sample = looped(work, 50)
    assert len(calls) > 20, "a slow first call doesn't make it a short one"
    assert sample.wall < 0.02
    assert sample.steps["once"] > 0.03


def test_a_pace_is_kept() -> None:
    start = time.monotonic()
    assert list(Pace(0.5)) == [0, 1, 2, 3, 4]
    assert time.monotonic() - start >= 0.4


# --- outsiders ---


@pytest.fixture(params=[name for name, subject in SUBJECTS.items() if not subject.distribution])
def shared(
    request: pytest.FixtureRequest, requires: Callable[..., None], language: Language
) -> Iterator[tuple[str, Netns, Ruleset]]:
    """A namespace in which a mesh ruleset and an outsider's rules stand side by side."""
    requires(request.param)
    mesh = mesh_ruleset(60, language=language)
    with Netns() as room:
        subject = SUBJECTS[request.param]
        run_steps(outsider(subject, mesh).settle, room)
        backend = subject.backend(Site(owner="meshfw", language=language, netns=room.path))
        apply(backend, mesh)
        yield request.param, room, mesh
        backend.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("own_lock")
def test_an_outsider_touches_what_his_words_say(shared: tuple[str, Netns, Ruleset]) -> None:
    name, room, mesh = shared
    subject = SUBJECTS[name]
    other = outsider(subject, mesh)
    whole, foreign = printed(subject, room), printed(subject, room, foreign=True)
    assert len([line for line in foreign if "198.51.100." in line]) == 20
    assert not any("meshfw" in line for line in foreign)
    with Pulse(subject, room) as pulse:
        assert len(pulse.beats(lambda: run_steps(other.write[:1], room), quiet=0.1, longest=9)) >= 1
        assert printed(subject, room, foreign=True) != foreign
        run_steps(other.write[1:], room)
        assert printed(subject, room) == whole
        rival = Rival(other, room)
        assert not rival.there()
        rival.insist()
        rival.insist()
        assert rival.there()
        assert rival.inserts == 1
        assert printed(subject, room, foreign=True) == foreign, "his rule is in our chain"
        assert pulse.beats(lambda: None, quiet=0.1, longest=9) == []
    run_steps(other.flush, room)
    left = [line for line in printed(subject, room) if "mesh" in line]
    assert not [line for line in left if "-s " in line or "saddr" in line], "no rule is left"
    assert left, "but chains are"


# --- the real thing, in short ---


@pytest.mark.kernel
@pytest.mark.usefixtures("own_lock")
@pytest.mark.parametrize("name", ["nft", "iptables-legacy"])
def test_a_flush_is_seen_to_be_repaired(name: str, requires: Callable[..., None]) -> None:
    requires(name)
    found = make_trial(TrialRequest("latency", name, 20, 1))
    (taken,) = found.figures["until repaired"].samples
    assert 0 < taken < 60


@pytest.mark.kernel
def test_an_agent_is_watched_at_rest_and_beside_a_writer(requires: Callable[..., None]) -> None:
    requires("nft")
    rest = make_trial(TrialRequest("rest", "nft", 20, 0.5))
    assert rest.figures["processes"].spread.high == 0
    assert 5 < rest.figures["memory"].spread.low < 200
    beside = make_trial(TrialRequest("beside", "nft", 20, 0.5))
    assert beside.figures["processes"].spread.high == 0
    assert beside.figures["writes"].spread.median > 1


@pytest.mark.kernel
def test_a_rivals_inserts_tell_the_repairs(requires: Callable[..., None]) -> None:
    requires("nft")
    figures = make_trial(TrialRequest("rival", "nft", 20, 1)).figures
    assert figures["inserts of the rival"].spread.median >= 1
    assert figures["commits"].samples == figures["repairs"].samples
    assert figures["foreign lines changed"].spread.high == 0


def in_its_process(request: TrialRequest) -> Trial:
    found = measure(request, limit=120)
    assert isinstance(found, Trial)
    return found


@pytest.mark.kernel
def test_trials_without_an_agent_give_all_their_numbers(requires: Callable[..., None]) -> None:
    requires("nft")
    reconciles = in_its_process(TrialRequest("reconciles", "nft", 20, 300))
    assert reconciles.figures["processes when idle"].spread.high == 0
    assert reconciles.figures["memory"].spread.low > 5
    edits = in_its_process(TrialRequest("edit", "nft", 60, 1))
    assert len(edits.figures) == 2 * 2 * 3 * 3
    assert all(figure.samples[0] > 0 for figure in edits.figures.values())
    assert list(in_its_process(TrialRequest("diff", MODEL, 100, 1)).figures) == ["10 rules", "100 rules", "1,000 rules"]
