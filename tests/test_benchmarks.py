"""The benchmarks: rulesets of the promised size, scenarios that change what they say, verdicts that can be missed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import msgspec
import pytest

from benchmarks.__main__ import exit_code, main
from benchmarks.bare import BareRead
from benchmarks.cell import Request, measure
from benchmarks.looks import CONTESTANTS
from benchmarks.options import parser, peer_requests, requests
from benchmarks.peers import PEERS, PeerRequest
from benchmarks.peers import measure as measure_peer
from benchmarks.plain import plain_steps, verbatim_steps, without_questions
from benchmarks.results import Cell, PeerCell, Run, Sample, Work, overheads, ratios
from benchmarks.rules import plain_tables, restore_steps
from benchmarks.scenarios import BY_NAME, ONE_CHANGE, SCENARIOS, edited_chain
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.tables import overview, peer_tables, tables
from benchmarks.targets import TARGETS, excess, judge
from meshfw.backend import Site, Step, Unsupported
from meshfw.backends.nft import NftBackend
from meshfw.errors import ModelError
from meshfw.extensions import Language, builtin_extensions
from meshfw.model import Family, Ruleset
from meshfw.reconcile import apply, plan
from meshfw.testing.mesh import CHAIN_RULES, mesh_ruleset
from meshfw.testing.netns import Netns
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
    deleted = after("delete").chain(chain.key)
    assert deleted is not None
    assert len(deleted.rules) == len(chain.rules) - 1
    assert set(rules_of(after("delete"))) < set(before)
    swapped = rules_of(after("order"))
    assert sum(old != new for old, new in zip(before, swapped, strict=True)) == 2
    assert set(swapped) == set(before)
    outside = BY_NAME["repair"].outside
    assert outside is not None
    assert len(rules_of(outside(mesh))) == size - 1
    elements = {entry.family: len(entry.elements) for entry in after("element").sets}
    assert sum(elements.values()) == sum(len(entry.elements) for entry in mesh.sets) + 1
    assert not after("clean")


def test_budgets_are_those_of_the_families_that_a_scenario_touches() -> None:
    budgets = {scenario.name: scenario.processes(1) for scenario in SCENARIOS}
    assert ONE_CHANGE == ("end", "middle", "delete", "order", "element")
    assert budgets == {"first": 2, "idle": 0, "repair": 2, "clean": 2, **dict.fromkeys(ONE_CHANGE, 1)}
    assert {scenario.processes(0) for scenario in SCENARIOS} == {0}


# --- the plain tools ---

_TABLE = "*filter\n:meshfw-a - [0:0]\n-A meshfw-a -j ACCEPT\nCOMMIT\n"
_QUESTION = "*filter\n-S meshfw-a\n-S meshfw.input.first\nCOMMIT\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (_TABLE + _QUESTION, _TABLE),
        (_TABLE + _QUESTION + _QUESTION, _TABLE),
        (_QUESTION + _TABLE, _TABLE),
        (_TABLE, _TABLE),
        ("*filter\n-S a\n-F a\nCOMMIT\n", "*filter\n-S a\n-F a\nCOMMIT\n"),
        ("add table ip meshfw\n", "add table ip meshfw\n"),
        ("", ""),
    ],
)
def test_questions_are_blocks_that_only_ask(text: str, left: str) -> None:
    assert without_questions(text) == left


# --- verdicts ---


def cell(
    scenario: str = "first",
    *,
    ours: tuple[float, ...] = (1.0,),
    plain: tuple[float, ...] = (1.0,),
    rules: int = 10_000,
    commit: float = 0.5,
    processes: int = 0,
    subject: str = "nft",
    verbatim: tuple[float, ...] = (),
    bare: tuple[float, ...] = (),
) -> Cell:
    steps = {} if scenario == "idle" else {"commit": commit}
    return Cell(
        subject=subject,
        scenario=scenario,
        rules=rules,
        allowed=0,
        verbatim=Work(samples=tuple(Sample(wall, wall) for wall in verbatim), processes=1) if verbatim else None,
        bare=Work(samples=tuple(Sample(wall, wall) for wall in bare), processes=0) if bare else None,
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


LEGACY, NFT_TABLES = "iptables-legacy", "iptables-nft"


@pytest.mark.parametrize(
    ("words", "met", "missed"),
    [
        ("no process in any", cell(), cell(processes=1)),
        ("nft -f -` of", cell(commit=1.15), cell(commit=1.16)),
        ("nft -f -` + 25", cell(ours=(1.25,)), cell(ours=(1.2501,))),
        ("most 20 µs", cell("idle", ours=(20e-6,)), cell("idle", ours=(21e-6,))),
        ("when idle", cell("idle", subject=LEGACY), cell("idle", subject=LEGACY, processes=1)),
        ("exactly one", cell("end", subject=LEGACY, processes=1), cell("end", subject=LEGACY, processes=2)),
        ("exactly one", cell("delete", subject=LEGACY, processes=1), cell("delete", subject=LEGACY)),
        ("a family", cell("repair", subject=LEGACY, processes=2), cell("repair", subject=LEGACY, processes=3)),
        ("a family", cell("first", subject=LEGACY, processes=4), cell("first", subject=LEGACY, processes=5)),
        (
            "bare reading",
            cell("idle", subject=LEGACY, ours=(1.6,), bare=(1.0,)),
            cell("idle", subject=LEGACY, ours=(1.61,), bare=(1.0,)),
        ),
        (
            "bare GETGEN",
            cell("idle", subject=NFT_TABLES, ours=(3.0,), bare=(1.0,)),
            cell("idle", subject=NFT_TABLES, ours=(3.01,), bare=(1.0,)),
        ),
        ("bare GETGEN", cell("idle", ours=(3.0,), bare=(1.0,)), cell("idle", ours=(3.01,), bare=(1.0,))),
        (
            "the same text",
            cell(subject=NFT_TABLES, commit=1.15, plain=(0.1,), verbatim=(1.0,)),
            cell(subject=NFT_TABLES, commit=1.16, plain=(9.0,), verbatim=(1.0,)),
        ),
        ("that one line", cell("end", subject=LEGACY, ours=(1.2,)), cell("delete", subject=LEGACY, ours=(1.21,))),
    ],
)
def test_each_target_is_met_up_to_its_limit_and_missed_beyond(words: str, met: Cell, missed: Cell) -> None:
    (index,) = (i for i, held in enumerate(TARGETS) if held.subject == met.subject and words in held.text)
    assert judge([met])[index].met is True
    assert judge([missed])[index].met is False
    assert judge([met, missed])[index].met is False, "the worst cell decides"
    assert judge([])[index].met is None


def test_every_target_has_a_limit_that_is_tested() -> None:
    of_one = {held.text.replace("legacy", "nft") for held in TARGETS if held.subject == LEGACY}
    of_other = {held.text for held in TARGETS if held.subject == NFT_TABLES}
    assert len(TARGETS) == 22
    assert len(of_one ^ of_other) == 3, "they differ in what an idle apply may take, and in nothing else"


def test_more_processes_with_more_rules_are_a_missed_target() -> None:
    (index,) = (i for i, held in enumerate(TARGETS) if held.subject == LEGACY and "no more processes" in held.text)
    few, many = (cell("end", subject=LEGACY, rules=rules, processes=1) for rules in (10, 10_000))
    more = cell("end", subject=LEGACY, processes=2)
    assert judge([few])[index].met is None
    assert judge([few, many])[index].met is True
    assert judge([few, more])[index].met is False


def test_one_change_is_judged_in_the_large_ruleset_alone() -> None:
    (index,) = (i for i, held in enumerate(TARGETS) if held.subject == LEGACY and "that one line" in held.text)
    assert judge([cell("end", subject=LEGACY, rules=1_000, ours=(9.0,))])[index].met is None
    assert judge([cell("middle", subject=LEGACY, ours=(9.0,))])[index].met is None


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


def peer_cell(scenario: str = "first", **more: object) -> PeerCell:
    work = Work(samples=(Sample(2.0, 1.0),), processes=2246)
    return PeerCell(peer="per-rule-nft", scenario=scenario, rules=10_000, work=work, **more)  # type: ignore[arg-type]  # as named


def test_contestants_stand_side_by_side() -> None:
    table = overview([cell(processes=2), cell("idle")], [peer_cell()])
    assert table.columns == ("processes / wall ms", "first sync", "idle")
    assert [row[0] for row in table.rows] == ["meshfw, nft", "plain, nft", "per-rule-nft"]
    assert [row[1] for row in table.rows] == ["2 / 1,000", "1 / 1,000", "2,246 / 2,000"]
    assert table.rows[-1][2] == ""


def test_what_a_peer_cannot_do_is_said() -> None:
    (table,) = peer_tables([peer_cell(left_out=3, notes=("3 rules can't be made: no target",))])
    assert "3 rules" in table.rows[0]
    assert table.note == "first sync: 3 rules can't be made: no target"
    assert all(len(row) == len(table.columns) for row in table.rows)


# --- the command line ---


def test_every_subject_is_measured_in_every_scenario_and_size() -> None:
    asked = requests(parser().parse_args([]))
    here = [subject for subject in SUBJECTS.values() if subject.missing is None]
    assert len(asked) == len(here) * len(SCENARIOS) * 4
    assert {request.rules for request in asked} == {10, 100, 1_000, 10_000}
    assert {request.rules for request in requests(parser().parse_args(["--smoke"]))} == {10, 100}


def test_a_peer_is_left_out_where_it_takes_minutes_or_is_missing_and_that_is_said() -> None:
    asked, notes = peer_requests(parser().parse_args(["--peers", "per-rule-nft"]))
    assert {request.rules for request in asked} == {10, 100, 1_000}
    assert notes == ["per-rule-nft with 10,000 rules, which takes minutes a sample"]


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


@pytest.fixture
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


IPTABLES = ("iptables-nft", "iptables-legacy")


@pytest.mark.kernel
@pytest.mark.parametrize("name", IPTABLES)
@pytest.mark.parametrize(
    ("scenario", "count", "plain"), [("first", 2, 2), ("idle", 0, 2), ("delete", 1, 1), ("repair", 1, 1)]
)
@pytest.mark.usefixtures("own_lock")
def test_iptables_take_a_process_for_each_family_that_changes(
    name: str, scenario: str, count: int, plain: int, requires: Callable[..., None]
) -> None:
    requires(name)
    measured = measure(Request(name, scenario, 10, 1))
    assert (measured.meshfw.processes, measured.plain.processes) == (count, plain)
    assert not excess([measured])
    assert (measured.verbatim is not None) == (scenario != "idle"), "a change asks for what it has made"
    assert (measured.bare is not None) == (scenario == "idle")


def saved(subject: Subject, room: Netns) -> list[str]:
    with room.entered():
        printed = [subprocess.run(read, check=True, capture_output=True, text=True).stdout for read in subject.reads]
    return [line for text in printed for line in text.splitlines() if line.startswith(("*", "-A"))]


def run_steps(steps: tuple[Step, ...], room: Netns) -> str:
    with room.entered():
        return "".join(
            subprocess.run(step.command, input=step.input, check=True, capture_output=True, text=True).stdout
            for step in steps
        )


@pytest.mark.kernel
@pytest.mark.parametrize("name", IPTABLES)
@pytest.mark.usefixtures("own_lock")
def test_what_is_left_without_the_questions_makes_the_same_rules(
    name: str, requires: Callable[..., None], language: Language
) -> None:
    requires(name)
    subject, mesh = SUBJECTS[name], mesh_ruleset(60, language=language)
    with ExitStack() as stack:
        rooms = [stack.enter_context(Netns()) for _ in range(3)]
        backend = subject.backend(Site(owner="meshfw", language=language, netns=rooms[0].path))
        stack.callback(backend.close)
        transaction = backend.compile(plan(backend, mesh))
        apply(backend, mesh)
        assert run_steps(verbatim_steps(transaction, subject.tools), rooms[1])
        assert run_steps(plain_steps(transaction, subject.tools), rooms[2]) == "", "nothing is asked"
        assert saved(subject, rooms[0]) == saved(subject, rooms[1]) == saved(subject, rooms[2])
        assert len(saved(subject, rooms[0])) > 60


@pytest.mark.kernel
@pytest.mark.usefixtures("own_lock")
def test_a_backend_of_a_plugin_is_measured_beside_the_tool_for_the_same_tables(requires: Callable[..., None]) -> None:
    requires("iptables-legacy")
    if SUBJECTS["iptc"].missing:
        pytest.skip("meshfw-iptc is not installed")
    for scenario, plain in (("first", 2), ("repair", 1), ("idle", 2)):
        measured = measure(Request("iptc", scenario, 10, 1))
        assert (measured.meshfw.processes, measured.plain.processes) == (0, plain)
        assert not excess([measured])


@pytest.mark.kernel
@pytest.mark.usefixtures("own_lock")
def test_the_bare_reading_is_of_all_legacy_tables(requires: Callable[..., None]) -> None:
    requires("iptables-legacy")
    with Netns() as room, room.entered():
        with BareRead() as read:
            read()
            assert read.size == 0
        for tool in ("iptables-legacy", "ip6tables-legacy"):
            for table in ("filter", "nat"):
                subprocess.run((tool, "-t", table, "-N", "own"), check=True)
        with BareRead() as read:
            read()
            small = read.size
        subprocess.run(("iptables-legacy", "-A", "own", "-j", "ACCEPT"), check=True)
        with BareRead() as read:
            read()
            assert 100 < read.size - small < 300, "a struct ipt_entry with its target"
            assert small > 4 * 3 * 100


# --- the peers ---


@pytest.mark.kernel
@pytest.mark.parametrize("name", IPTABLES)
@pytest.mark.usefixtures("own_lock")
def test_peers_get_the_rules_of_the_backend_but_for_its_marks(
    name: str, requires: Callable[..., None], language: Language
) -> None:
    requires(name)
    subject, mesh = SUBJECTS[name], mesh_ruleset(60, language=language)
    with Netns() as ours, Netns() as theirs:
        backend = subject.backend(Site(owner="meshfw", language=language, netns=ours.path))
        apply(backend, mesh)
        backend.close()
        run_steps(restore_steps(plain_tables(subject, mesh, language), subject.tools), theirs)
        marked = [line for line in saved(subject, ours) if "meshfw:meshfw:" in line]
        assert len(marked) == 12, "six chains, and as many hooks"
        assert saved(subject, theirs) == [line for line in saved(subject, ours) if line not in marked]


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.usefixtures("own_lock")
def test_a_client_that_starts_a_process_for_each_rule_starts_that_many(
    variant: str, requires: Callable[..., None]
) -> None:
    requires(f"iptables-{variant}")
    first, idle, repair = (
        measure_peer(PeerRequest(f"per-rule-{variant}", scenario, 10, 1)) for scenario in ("first", "idle", "repair")
    )
    chains = 12
    rules = idle.work.processes - chains
    assert rules > 10
    assert first.work.processes == 2 * rules + chains
    assert repair.work.processes == idle.work.processes + 1
    assert repair.notes == ("a rule that was missing is back in another place",)
    assert first.notes == idle.notes == ()


@pytest.mark.kernel
@pytest.mark.parametrize("scenario", ["first", "idle", "end", "repair"])
@pytest.mark.usefixtures("own_lock")
def test_python_iptables_says_what_it_cannot_make(scenario: str, requires: Callable[..., None]) -> None:
    requires("iptables-legacy")
    if PEERS["python-iptables"].missing:
        pytest.skip("python-iptables is not installed")
    measured = measure_peer(PeerRequest("python-iptables", scenario, 100, 1))
    assert measured.work.processes == 0
    assert measured.start is not None
    assert measured.start.processes > 0, "importing it looks for libraries with the linker and a compiler"
    assert bool(measured.left_out) == any("can't be made" in note for note in measured.notes)


def test_every_contestant_has_a_colour_of_its_own_or_its_backends() -> None:
    names = {f"{who}, {subject}" for who in ("meshfw", "plain") for subject in SUBJECTS} | set(PEERS)
    assert set(CONTESTANTS) == names
    assert len({CONTESTANTS[name].colour for name in names if not name.startswith("plain")}) == 7


# --- whole runs ---


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
    spawning = Subject(name="spawning", tools=("nft",), factory=f"{__name__}:Spawning", reads=())
    monkeypatch.setitem(cast("dict[str, Subject]", SUBJECTS), "spawning", spawning)
    measured = measure(Request("spawning", "first", 10, 1))
    assert measured.meshfw.processes == 1
    assert excess([measured])[0].endswith("1 processes, 0 allowed (true)")


@pytest.mark.kernel
def test_a_run_writes_what_it_prints(
    tmp_path: Path, requires: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft")
    words = ["--backends", "nft", "--sizes", "10", "--scenarios", "end", "--pairs", "1", "--output", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    run = msgspec.convert(written["run"], Run)
    assert [held.scenario for held in run.cells] == ["end"]
    assert run.command == ("python", "-m", "benchmarks", *words)
    assert all(target["measured"] in printed for target in written["targets"])
    assert "one rule at the end" in printed
    for picture in ("time.png", "processes.png"):
        assert (tmp_path / picture).exists() or "matplotlib" in printed
