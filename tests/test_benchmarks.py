"""The benchmarks: rulesets of the promised size, scenarios that change what they say, verdicts that can be missed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from benchmarks.__main__ import exit_code, main, parser, requests
from benchmarks.cell import Request, measure
from benchmarks.results import Cell, Run, Sample, Work, overheads, ratios
from benchmarks.scenarios import BY_NAME, SCENARIOS, edited_chain
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.tables import tables
from benchmarks.targets import TARGETS, excess, judge
from meshfw.backend import Site, Unsupported
from meshfw.backends.nft import NftBackend
from meshfw.errors import ModelError
from meshfw.extensions import Language, builtin_extensions
from meshfw.model import Family, Ruleset
from meshfw.testing.mesh import CHAIN_RULES, mesh_ruleset
from meshfw.testing.wrapping import Wrapped


@pytest.fixture(scope="module")
def language() -> Language:
    return Language.of(builtin_extensions())


# --- the ruleset ---


@pytest.mark.parametrize("rules", [10, 11, 99, 1000, 5000])
def test_mesh_has_exactly_its_size_in_bounded_chains_of_distinct_rules(rules: int, language: Language) -> None:
    mesh = mesh_ruleset(rules, language=language)
    sizes = {family: sum(len(c.rules) for c in mesh.chains if c.family is family) for family in Family}
    assert sum(sizes.values()) == rules
    assert sizes[Family.IPV4] == rules * 60 // 100
    assert max(len(chain.rules) for chain in mesh.chains) <= CHAIN_RULES
    assert all(len(set(chain.rules)) == len(chain.rules) for chain in mesh.chains)
    assert {entry.family for entry in mesh.sets} == set(Family)


def test_mesh_of_one_size_is_always_the_same(language: Language) -> None:
    assert mesh_ruleset(300, language=language) == mesh_ruleset(300, language=language)
    assert mesh_ruleset(300, language=language) != mesh_ruleset(301, language=language)


def test_mesh_below_its_least_size_is_refused(language: Language) -> None:
    with pytest.raises(ModelError, match="at least 10"):
        mesh_ruleset(9, language=language)


# --- the scenarios ---


def rules_of(ruleset: Ruleset) -> list[object]:
    return [(chain.key, rule) for chain in ruleset.chains for rule in chain.rules]


@pytest.mark.parametrize("size", [10, 1000])
def test_scenarios_change_what_their_titles_say(size: int, language: Language) -> None:
    mesh = mesh_ruleset(size, language=language)
    before = rules_of(mesh)
    chain = edited_chain(mesh)

    def after(name: str) -> Ruleset:
        return BY_NAME[name].wanted(mesh)

    assert after("first") is mesh
    assert after("idle") is mesh
    for name in ("end", "middle"):
        added = [rule for rule in rules_of(after(name)) if rule not in before]
        assert len(added) == 1
        assert len(rules_of(after(name))) == size + 1
    end, middle = after("end").chain(chain.key), after("middle").chain(chain.key)
    assert end is not None
    assert middle is not None
    assert end.rules[:-1] == chain.rules
    assert middle.rules[0] == chain.rules[0]
    assert middle.rules[-1] == chain.rules[-1]
    swapped = rules_of(after("order"))
    assert sum(old != new for old, new in zip(before, swapped, strict=True)) == 2
    assert set(swapped) == set(before)
    outside = BY_NAME["repair"].outside
    assert outside is not None
    assert len(rules_of(outside(mesh))) == size - 1
    elements = {entry.family: len(entry.elements) for entry in after("element").sets}
    assert sum(elements.values()) == sum(len(entry.elements) for entry in mesh.sets) + 1
    assert not after("clean")


# --- verdicts ---


def cell(
    scenario: str = "first",
    *,
    ours: tuple[float, ...] = (1.0,),
    plain: tuple[float, ...] = (1.0,),
    rules: int = 10_000,
    commit: float = 0.5,
    processes: int = 0,
) -> Cell:
    steps = {} if scenario == "idle" else {"commit": commit}
    return Cell(
        subject="nft",
        scenario=scenario,
        rules=rules,
        allowed=0,
        meshfw=Work(
            samples=tuple(Sample(wall, wall, steps) for wall in ours), processes=processes, commands=("nft -f -",)
        ),
        plain=Work(samples=tuple(Sample(wall, wall) for wall in plain), processes=1),
    )


def test_ratios_are_taken_pair_by_pair() -> None:
    # the medians' own ratio would be 1
    held = cell(ours=(1.0, 4.0, 9.0), plain=(9.0, 1.0, 4.0))
    assert ratios(held).median == 2.25
    assert (ratios(held).low, ratios(held).high) == (1 / 9, 4.0)
    assert overheads(held).median == pytest.approx(3.0 / 10_000)


@pytest.mark.parametrize(
    ("index", "met", "missed"),
    [
        (0, cell(), cell(processes=1)),
        (1, cell(commit=1.15), cell(commit=1.16)),
        (2, cell(ours=(1.25,)), cell(ours=(1.2501,))),
        (3, cell("idle", ours=(20e-6,)), cell("idle", ours=(21e-6,))),
    ],
)
def test_each_target_is_met_up_to_its_limit_and_missed_beyond(index: int, met: Cell, missed: Cell) -> None:
    assert len(TARGETS) == 4
    assert judge([met])[index].met is True
    assert judge([missed])[index].met is False
    assert judge([met, missed])[index].met is False, "the worst cell decides"
    assert judge([])[index].met is None


def test_idle_is_judged_with_the_most_rules() -> None:
    small, large = cell("idle", ours=(1e-6,), rules=10), cell("idle", ours=(1.0,))
    assert judge([small, large])[3].met is False


def run_of(*cells: Cell, errors: tuple[str, ...] = ()) -> Run:
    return Run(machine={}, command=(), cells=cells, errors=errors)


@pytest.mark.parametrize(
    ("run", "plain", "smoke", "check"),
    [
        (run_of(cell()), 0, 0, 0),
        (run_of(cell(commit=9.0)), 0, 0, 1),
        (run_of(cell(processes=1)), 0, 1, 1),
        (run_of(cell(), errors=("no",)), 1, 1, 1),
    ],
)
def test_exit_code_says_what_was_asked_for(run: Run, plain: int, smoke: int, check: int) -> None:
    judged = judge(run.cells)
    assert exit_code(run, judged, smoke=False, check=False) == plain
    assert exit_code(run, judged, smoke=True, check=False) == smoke
    assert exit_code(run, judged, smoke=False, check=True) == check


def test_too_many_processes_are_named_with_their_command() -> None:
    (line,) = excess([cell(), cell("clean", processes=3)])
    assert "clean, 10,000 rules: 3 processes, 0 allowed (nft -f -)" in line


def test_every_cell_has_a_row_of_costs_and_every_one_with_steps_a_row_of_them() -> None:
    costs, steps = tables([cell(), cell("idle")])
    assert [row[0] for row in costs.rows] == ["first sync", "idle"]
    assert [row[0] for row in steps.rows] == ["first sync"]
    assert all(len(row) == len(table.columns) for table in (costs, steps) for row in table.rows)


# --- the command line ---


def test_every_subject_is_measured_in_every_scenario_and_size() -> None:
    asked = requests(parser().parse_args([]))
    assert len(asked) == len(SUBJECTS) * len(SCENARIOS) * 4
    assert {request.rules for request in asked} == {10, 100, 1_000, 10_000}
    assert {request.rules for request in requests(parser().parse_args(["--smoke"]))} == {10, 100}


@pytest.mark.parametrize("words", [["--sizes", "9"], ["--scenarios", "none"], ["--backends", "no"], ["--pairs", "0"]])
def test_what_cannot_be_measured_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert "argument" in capsys.readouterr().err


# --- the real thing ---


@pytest.mark.kernel
@pytest.mark.parametrize("scenario", ["first", "idle", "repair"])
def test_nft_takes_no_process_where_the_plain_tool_takes_one(scenario: str, requires: Callable[..., None]) -> None:
    requires("nft")
    measured = measure(Request("nft", scenario, 10, 1))
    assert (measured.meshfw.processes, measured.plain.processes) == (0, 1)
    assert measured.plain.commands[0].split()[0].endswith("nft")
    assert measured.meshfw.samples[0].wall > 0
    assert measured.meshfw.idle_memory > 0
    assert measured.plain.memory > 0


class Spawning(Wrapped):
    """An nft backend that starts a process where it should only look."""

    def __init__(self, site: Site) -> None:
        super().__init__(NftBackend(site))

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        subprocess.run(["true"], check=True)
        return self.inner.check(ruleset)


@pytest.mark.kernel
def test_a_backend_that_starts_a_process_is_found_out(
    monkeypatch: pytest.MonkeyPatch, requires: Callable[..., None]
) -> None:
    requires("nft")
    spawning = Subject(name="spawning", plain="nft", factory=f"{__name__}:Spawning", reads=())
    monkeypatch.setitem(cast("dict[str, Subject]", SUBJECTS), "spawning", spawning)
    measured = measure(Request("spawning", "first", 10, 1))
    assert measured.meshfw.processes == 1
    assert excess([measured])[0].endswith("1 processes, 0 allowed (true)")


@pytest.mark.kernel
def test_a_run_writes_what_it_prints(
    tmp_path: Path, requires: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft")
    words = ["--sizes", "10", "--scenarios", "end", "--pairs", "1", "--output", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    run = msgspec.convert(written["run"], Run)
    assert [held.scenario for held in run.cells] == ["end"]
    assert run.command == ("python", "-m", "benchmarks", *words)
    assert all(target["measured"] in printed for target in written["targets"])
    assert "one rule at the end" in printed
    assert (tmp_path / "time.png").exists() or "matplotlib" in printed
