"""What becomes of a commit whose tool fails: everything is put back, or an error says what stands where."""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.backends import iptables_tool
from meshfw.cli import main
from meshfw.errors import BackendError, CommandError, MeshfwError, PartialCommitError
from meshfw.kernel import command
from meshfw.kernel.command import Completed, find
from meshfw.model import Family, Ruleset
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from tests.kernel.damage import FOREIGN, ONE, OTHER, House

pytestmark = pytest.mark.kernel

ENDS: Final = {"exit 1": 1, "exit 4": 4, "exit 139": 139, "kill -SEGV $$": -11, "kill -KILL $$": -9}
MOMENTS: Final = {
    "before anything": "",
    "after everything": 'real < "$input" > {null}; ',
    "after the first table": """sed '/^COMMIT/q' "$input" | real > {null}; """,
}


@pytest.fixture
def changed(home: House) -> Iterator[House]:
    """The house with the first ruleset in it; foreign rules are what they were when the test ends."""
    before = home.foreign()
    with home.backend() as backend:
        apply(backend, ONE)
    yield home
    assert home.foreign() == before


def failed(home: House, wanted: Ruleset, **options: Any) -> MeshfwError:
    """The error with which an instance that knew the rules ends."""
    with home.backend(**options) as backend, pytest.raises(MeshfwError) as caught:
        apply(backend, wanted)
    return caught.value


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("end", ENDS)
def test_a_tool_that_fails_leaves_everything_as_it_was(
    changed: House, monkeypatch: pytest.MonkeyPatch, family: Family, end: str, moment: str
) -> None:
    before = changed.saved()
    script = f"if [ $call = 1 ]; then {MOMENTS[moment].format(null='/dev/null')}{end}; fi"
    with changed.damage(monkeypatch, {family: script}):
        error = failed(changed, OTHER)
    assert isinstance(error, CommandError)
    assert error.returncode == ENDS[end]
    assert error.command[0] == changed.tool(family, "-restore")
    told = [f"{one} {table}" for one, table in changed.own() if one is not family and family is Family.IPV6]
    if moment == "before anything" and family is Family.IPV4:
        assert str(error).endswith("nothing was changed)")
    else:
        assert "put back: " in str(error)
        assert all(name in str(error) for name in told)
    assert changed.saved() == before, "what stands after the error isn't what stood before"
    with changed.backend() as backend:
        apply(backend, OTHER)
    changed.assert_held(OTHER)


@pytest.mark.parametrize("warm", [False, True])
def test_an_instance_whose_commit_failed_can_go_on(changed: House, monkeypatch: pytest.MonkeyPatch, warm: bool) -> None:
    before = changed.saved()
    with changed.backend() as backend:
        if warm:
            apply(backend, ONE)
        with changed.damage(monkeypatch, {Family.IPV6: 'if [ $call = 1 ]; then real < "$input"; exit 1; fi'}):
            with pytest.raises(CommandError):
                apply(backend, OTHER)
            assert changed.saved() == before
            apply(backend, OTHER)  # the damage is spent
        changed.assert_held(OTHER)
        assert apply(backend, OTHER).outcome == "idle"


def test_the_first_commit_of_all_is_put_back_without_a_trace(
    home: House, kernel_room: Callable[[], Netns], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with kernel_room() as room:
        fresh = House(home.variant, room, tmp_path)
        with fresh.damage(monkeypatch, {Family.IPV6: "exit 1"}):
            error = failed(fresh, ONE)
        assert "put back: ipv4" in str(error)
        assert type(error) is CommandError, "it says that something couldn't be put back"
        assert fresh.saved() == {}


def test_what_others_write_before_an_error_is_neither_ours_nor_lost(
    changed: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = changed.own()
    intruder = f"XTABLES_LOCKFILE={tmp_path}/other {find(changed.tool(Family.IPV4))} -I INPUT -s 192.0.2.9 -j DROP"
    for family in Family:
        with changed.damage(monkeypatch, {family: f"{intruder}; exit 1"}):
            error = failed(changed, OTHER)
        assert type(error) is CommandError, f"it takes other people's rules for ours: {error}"
        assert changed.own() == own
        changed.iptables(Family.IPV4, "-D", "INPUT", "-s", "192.0.2.9", "-j", "DROP")


def test_counters_are_put_back_as_well(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with home.backend() as backend:
        apply(backend, ONE)
        home.restore("*filter\n-D meshfw-fw 3\n-I meshfw-fw 3 -c 7 700 -i lo -j ACCEPT\nCOMMIT\n", [Family.IPV4])
        counted = home.iptables(Family.IPV4, "-S", "meshfw-fw", "-v")
        assert "-c 7 700" in counted
        with home.damage(monkeypatch, {Family.IPV6: "exit 1"}), pytest.raises(CommandError):
            apply(backend, OTHER)
    assert home.iptables(Family.IPV4, "-S", "meshfw-fw", "-v") == counted


@pytest.mark.parametrize("missing", [(Family.IPV4, Family.IPV6), (Family.IPV6,)], ids=["both", "IPv6"])
def test_a_tool_that_is_not_installed_is_named_with_its_package(
    changed: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: tuple[Family, ...]
) -> None:
    before = changed.saved()
    for family in set(Family) - set(missing):
        name = changed.tool(family, "-restore")
        (tmp_path / name).symlink_to(find(name) or "")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setattr(command, "_ADMIN_DIRECTORIES", ())
        with changed.backend() as backend, pytest.raises(BackendError) as caught:
            apply(backend, OTHER)
    tool = changed.tool(missing[0], "-restore")
    assert f"{tool} is not installed (apt-get install iptables" in str(caught.value)
    assert changed.saved() == before


# --- putting back fails too --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["echo no more >&2; exit 3", "kill -KILL $$"])
def test_what_can_not_be_put_back_is_named_and_the_next_apply_converges(
    changed: House, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    with changed.backend() as backend:
        apply(backend, ONE)
        once = f"if [ $call != 1 ]; then {end}; fi"
        with (
            changed.damage(monkeypatch, {Family.IPV6: "exit 1", Family.IPV4: once}),
            pytest.raises(PartialCommitError) as caught,
        ):
            apply(backend, OTHER)
        error = caught.value
        assert {line.split(":")[0] for line in error.stands} == {"ipv4 nat", "ipv4 filter"}
        assert changed.tool(Family.IPV6, "-restore") in str(error.first)
        assert changed.tool(Family.IPV4, "-restore") in str(error.second)
        assert "the next apply makes everything what it should be" in str(error)
        assert "ipv4 filter fw" in str(error)
        apply(backend, OTHER)
    changed.assert_held(OTHER)


def test_the_command_line_ends_with_a_code_of_its_own_where_a_change_is_left_half_way(
    changed: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "meshfw.toml"
    config.write_text(
        '[[chain]]\nname = "fw"\nattach = { hook = "input" }\nrules = ["-i lo -j ACCEPT"]\n', encoding="utf-8"
    )
    with changed.backend() as backend:
        apply(backend, Ruleset())
    arguments = [f"--config={config}", f"--backend=iptables-{changed.variant}", f"--netns={changed.room.path}"]
    once = "if [ $call != 1 ]; then exit 3; fi"
    with changed.damage(monkeypatch, {Family.IPV6: "exit 1", Family.IPV4: once}):
        assert main(["apply", *arguments]) == 3
    said = capsys.readouterr().err
    assert "ipv4 filter: changed and not put back" in said
    assert "Traceback" not in said
    with changed.damage(monkeypatch, {Family.IPV6: "exit 1"}):
        assert main(["apply", *arguments]) == 1, "what was done is put back: an error like any other"
    assert main(["apply", *arguments]) == 0
    assert main(["check", *arguments]) == 0


def test_a_put_back_that_reports_success_and_does_nothing_is_noticed(
    changed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = "if [ $call != 1 ]; then exit 0; fi"
    with changed.damage(monkeypatch, {Family.IPV6: "exit 1", Family.IPV4: once}):
        error = failed(changed, OTHER)
    assert isinstance(error, PartialCommitError)
    assert error.second is None
    assert len(error.stands) == 2
    with changed.backend() as backend:
        apply(backend, ONE)
    changed.assert_held(ONE)


def test_a_commit_that_reports_success_and_does_nothing_is_noticed(
    changed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for family in Family:
        with changed.damage(monkeypatch, {family: "exit 0"}):
            assert isinstance(failed(changed, OTHER), BackendError)
        with changed.damage(monkeypatch, {family: "if [ $call = 1 ]; then exit 0; fi"}), changed.backend() as backend:
            apply(backend, OTHER)
        changed.assert_held(OTHER)
        with changed.backend() as backend:
            apply(backend, ONE)


# --- what the tool prints ----------------------------------------------------------------------------------

GARBAGE: Final = (
    "-A INPUT -j ACCEPT\n",
    "-N THEIRS\n",
    "-A THEIRS -p tcp -m tcp --dport 80 -j ACCEPT\n",
    "# Warning: iptables-legacy tables present, use iptables-legacy to see them\n",
    "-P INPUT ACCEPT\n",
    "-N meshfw-fw\n",
    "-A meshfw-fw -j ACCEPT\n",
    "\n",
    "\udcff\udcfe\n",
    '-A meshfw-fw -m comment --comment "meshfw:meshfw:other"\n',
)


def falsified(output: str, random_: random.Random) -> str:
    """An output as no tool should print it."""
    lines = output.splitlines(keepends=True)
    kind = random_.randrange(6)
    if kind == 0:
        return output[: random_.randrange(len(output) + 1)]
    if kind == 1:
        return ""
    if kind == 2:
        return output * 2
    if kind == 3:
        return "".join(line for line in lines if random_.random() < 0.8)
    if kind == 4:
        return output[random_.randrange(len(output) + 1) :]
    for _ in range(random_.randrange(1, 4)):
        lines.insert(random_.randrange(len(lines) + 1), random_.choice(GARBAGE))
    return "".join(lines)


def test_whatever_is_printed_nothing_wrong_is_called_well(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = secrets.randbits(32)
    random_ = random.Random(seed)  # noqa: S311 - a number to repeat the test with, no secret
    real = command.run
    wanted = [ONE, OTHER, Ruleset()]
    ends = {"well": 0, "an error": 0}
    for number in range(40):
        target, lies = wanted[random_.randrange(3)], random_.randrange(1, 5)

        def run(*arguments: Any, **options: Any) -> Completed:
            nonlocal lies
            done = real(*arguments, **options)
            lies -= 1
            if lies < 0 or not done.stdout:
                return done
            return Completed(falsified(done.stdout, random_), done.stderr, done.returncode)

        with home.backend() as backend:
            with monkeypatch.context() as patch:
                patch.setattr(iptables_tool, "run", run)
                try:
                    apply(backend, target)
                    end = "well"
                except MeshfwError:
                    end = "an error"
            ends[end] += 1
            if end == "well":
                todo = home.planned(target)
                assert not todo, f"seed {seed}, round {number}: all was said to be well"
            apply(backend, target)
        assert not home.planned(target), f"seed {seed}, round {number}: an honest tool doesn't mend it"
    assert ends["well"], ends


def test_a_foreign_set_up_is_what_the_tests_started_with(home: House) -> None:
    with home.backend() as backend:
        apply(backend, Ruleset())
    home.wipe()
    home.restore(FOREIGN)
    before = home.saved()
    with home.backend() as backend:
        apply(backend, OTHER)
        apply(backend, Ruleset())
    assert home.saved() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_command_has_what_was_done_put_back(
    changed: House,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    config = tmp_path / "meshfw.toml"
    text = '[[chain]]\nname = "fw"\nattach = { hook = "input" }\nrules = ["-i lo -j ACCEPT"]\n'
    config.write_text(text, encoding="utf-8")
    with changed.backend() as backend:
        apply(backend, Ruleset())
    before = changed.saved()
    arguments = [f"--config={config}", f"--backend=iptables-{changed.variant}", f"--netns={changed.room.path}"]
    with changed.damage(monkeypatch, {Family.IPV6: f"kill -{number.value} {os.getpid()}; sleep 5"}):
        assert main(["apply", *arguments]) == 128 + number
    assert f"ended by signal {number.value}" in capsys.readouterr().err
    assert changed.saved() == before
    assert signal.getsignal(number) is signal.SIG_DFL


def test_programs_that_say_all_is_well_and_do_nothing_are_told_apart_from_an_error_that_was_put_back(
    changed: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "meshfw.toml"
    config.write_text('[[chain]]\nname = "fw"\nrules = ["-i lo -j ACCEPT"]\n', encoding="utf-8")
    arguments = [f"--config={config}", f"--backend=iptables-{changed.variant}", f"--netns={changed.room.path}"]
    with changed.damage(monkeypatch, {Family.IPV6: "exit 0"}):
        assert main(["apply", *arguments]) == 3
    assert "every program said that all went well" in capsys.readouterr().err
