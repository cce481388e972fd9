"""Laws of the systemd units: what systemd says of them, and that they get to their place without loss."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from meshfw.cli import main
from meshfw.config import SYSTEM
from meshfw.errors import ConfigError
from meshfw.service.units import AGENT, DIRECTORY, HOMES, RESTORE, Start, units, untouched

ROOT = Path(__file__).resolve().parent.parent
START = Start(program=("/usr/bin/true",))
EXPOSURE = {AGENT: 25, RESTORE: 25}
"""What `systemd-analyze security` (252) may find of each at most, in tenths of its 10 points; it found 23."""
PROTECTED = {"NoNewPrivileges", "ProtectSystem", "SystemCallFilter", "MemoryDenyWriteExecute", "CapabilityBoundingSet"}


def analyzed(*argv: str, requires: Callable[..., None]) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze(1) says."""
    requires("systemd-analyze")
    return subprocess.run(("systemd-analyze", *argv), capture_output=True, text=True, check=False)


def written(directory: Path, made: Mapping[str, str]) -> list[str]:
    """The paths of units, written there."""
    for name, text in made.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [str(directory / name) for name in made]


def value(text: str, key: str) -> list[str]:
    """All values that a unit gives one key."""
    return [line.removeprefix(f"{key}=") for line in text.splitlines() if line.startswith(f"{key}=")]


# --- what systemd says ---


@pytest.mark.parametrize(
    "start",
    [
        START,
        Start(
            program=(sys.executable, "-m", "meshfw"), config="/etc/meshfw/a b$c%d\"e\\f'.toml", backend="nft", netns="x"
        ),
    ],
)
def test_systemd_finds_nothing_wrong(tmp_path: Path, requires: Callable[..., None], start: Start) -> None:
    done = analyzed("verify", "--man=no", *written(tmp_path, units(start)), requires=requires)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_a_planted_mistake(tmp_path: Path, requires: Callable[..., None]) -> None:
    wrong = {name: text.replace("WatchdogSec=", "WatchdogSecs=") for name, text in units(START).items()}
    assert "WatchdogSecs" in analyzed("verify", "--man=no", *written(tmp_path, wrong), requires=requires).stderr


@pytest.mark.parametrize("name", [AGENT, RESTORE])
def test_exposure_stays_below_its_bound(tmp_path: Path, requires: Callable[..., None], name: str) -> None:
    (path,) = written(tmp_path, {name: units(START)[name]})
    done = analyzed("security", "--offline=yes", f"--threshold={EXPOSURE[name]}", "--no-pager", path, requires=requires)
    assert done.returncode == 0, done.stdout + done.stderr
    at_once = analyzed("security", "--offline=yes", "--threshold=5", "--no-pager", path, requires=requires)
    assert at_once.returncode != 0  # a threshold does refuse


# --- what is filled in ---


def test_both_services_are_hardened_alike() -> None:
    made = units(START)
    keys = {line.partition("=")[0] for line in made[RESTORE].splitlines() if not line.startswith("#")}
    assert keys >= PROTECTED
    agent = made[AGENT][made[AGENT].index("UMask=") : made[AGENT].index("[Install]")]
    assert agent in made[RESTORE]
    assert "@agent@" not in made[AGENT] + made[RESTORE]
    assert [
        word for word in "agent restore hardening capabilities".split() if f"@{word}@" in "".join(made.values())
    ] == []


def test_a_service_starts_what_the_command_line_named() -> None:
    start = Start(program=("/usr/bin/meshfw",), config="/etc/x.toml", backend="nft", netns="blue")
    for name, verb in ((AGENT, "agent"), (RESTORE, "restore")):
        text = units(start)[name]
        assert value(text, "ExecStart") == [f"/usr/bin/meshfw {verb} --config /etc/x.toml --backend nft --netns blue"]


def test_only_another_namespace_takes_a_capability_more() -> None:
    here, there = units(START)[AGENT], units(Start(program=START.program, netns="blue"))[AGENT]
    assert value(here, "CapabilityBoundingSet") == ["CAP_NET_ADMIN CAP_NET_RAW"]
    assert value(there, "CapabilityBoundingSet") == ["CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN"]
    assert (value(here, "RestrictNamespaces"), value(there, "RestrictNamespaces")) == (["yes"], ["net"])


def test_homes_are_hidden_unless_something_needed_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    home, root, _ = HOMES
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr("meshfw.service.units.__file__", "/usr/lib/meshfw/service/units.py")
    assert value(units(START)[AGENT], "ProtectHome") == ["yes"]
    for start in (Start(program=(f"{home}/x/meshfw",)), Start(program=START.program, config=f"{root}/x.toml")):
        assert value(units(start)[AGENT], "ProtectHome") == ["read-only"]
    monkeypatch.setattr(sys, "base_prefix", f"{root}/python")  # as a virtual environment's is
    assert value(units(START)[AGENT], "ProtectHome") == ["read-only"]
    assert Start(program=(f"{home}ly/meshfw",)).hidden == ()
    assert Start(program=("/tmp/meshfw",)).hidden == ("/tmp/meshfw",)


@pytest.mark.parametrize("word", ["a\nExecStart=/bin/false", "a\0", "\udcff"])
def test_a_word_that_no_unit_can_hold_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="can't stand in a unit"):
        units(Start(program=START.program, config=word))


def test_a_unit_knows_whether_it_was_changed() -> None:
    text = units(START)[AGENT]
    assert untouched(text)
    assert untouched(text.replace("meshfw 0", "meshfw 99"))  # of another version, and as that one made it
    assert not untouched(text.replace("WatchdogSec=180", "WatchdogSec=18"))
    assert not untouched(text.partition("\n")[2])
    assert not untouched("")


def test_units_are_data_of_the_package(tmp_path: Path) -> None:
    code = "import meshfw.service.units as u; print(*u.units(u.Start(program=('/usr/bin/true',))))"
    done = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [AGENT, RESTORE]


# --- the verb ---


def install(root: Path, *options: str) -> int:
    """The verb's exit code when it installs below a directory."""
    return main(["service", "--install", "--root", str(root), *options])


def place(root: Path, name: str) -> Path:
    """Where a unit is below a directory."""
    return root / DIRECTORY.lstrip("/") / name


def test_the_verb_prints_units_that_systemd_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith(f"# {DIRECTORY}/")] == [
        f"# {DIRECTORY}/{AGENT}",
        f"# {DIRECTORY}/{RESTORE}",
    ]
    assert main(["service", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    for name in (AGENT, RESTORE):
        assert data["units"][name] in said
        reader = configparser.RawConfigParser(strict=False)
        reader.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation has it
        reader.read_string(data["units"][name])
        assert reader.sections() == ["Unit", "Service", "Install"]


def test_a_service_is_started_by_an_absolute_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(called: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [called])
        assert main(["service", "--json", "--config", "m.toml"]) == 0
        return value(json.loads(capsys.readouterr().out)["units"][AGENT], "ExecStart")

    monkeypatch.chdir(tmp_path)
    tool = tmp_path / "bin" / "meshfw"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    options = f"agent --config {tmp_path}/m.toml"
    assert started("bin/meshfw") == [f"{tool} {options}"]
    monkeypatch.setenv("PATH", str(tool.parent))
    assert started("meshfw") == [f"{tool} {options}"]
    assert started("meshfw/__main__.py") == [f"{sys.executable} -m meshfw {options}"]
    assert started("/usr/nowhere/meshfw") == [f"{sys.executable} -m meshfw {options}"]


def test_installing_writes_both_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path) == 0
    said = capsys.readouterr().out
    for name in (AGENT, RESTORE):
        path = place(tmp_path, name)
        assert f"{path}: written" in said
        assert path.stat().st_mode & 0o777 == 0o644
        assert untouched(path.read_text(encoding="utf-8"))
    assert f"systemctl --root={tmp_path} enable {RESTORE} {AGENT}" in said
    assert sorted(os.listdir(place(tmp_path, AGENT).parent)) == [AGENT, RESTORE]
    assert install(tmp_path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["installed"] == {str(place(tmp_path, name)): "unchanged" for name in (AGENT, RESTORE)}


def test_what_somebody_changed_stays_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path) == 0
    mine = place(tmp_path, RESTORE).read_text(encoding="utf-8") + "# mine\n"
    place(tmp_path, RESTORE).write_text(mine, encoding="utf-8")
    place(tmp_path, AGENT).unlink()
    capsys.readouterr()
    assert install(tmp_path) == 1
    said = capsys.readouterr().err
    assert str(place(tmp_path, RESTORE)) in said
    assert "--force" in said
    assert "nothing was written" in said
    assert not place(tmp_path, AGENT).exists()
    assert place(tmp_path, RESTORE).read_text(encoding="utf-8") == mine
    assert install(tmp_path, "--force") == 0
    assert untouched(place(tmp_path, RESTORE).read_text(encoding="utf-8"))


def test_what_meshfw_made_earlier_is_made_anew(tmp_path: Path) -> None:
    assert install(tmp_path, "--config", "/etc/meshfw/old.toml") == 0
    assert install(tmp_path, "--config", "/etc/meshfw/new.toml") == 0
    assert "new.toml" in place(tmp_path, AGENT).read_text(encoding="utf-8")


def test_a_masked_unit_is_not_unmasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place(tmp_path, AGENT).parent.mkdir(parents=True)
    place(tmp_path, AGENT).symlink_to("/dev/null")
    assert install(tmp_path) == 1
    assert place(tmp_path, AGENT).is_symlink()
    assert not place(tmp_path, RESTORE).exists()


def test_a_place_that_cant_be_written_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc").write_text("", encoding="utf-8")
    assert install(tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"meshfw: error: {tmp_path}/etc")
    assert "Traceback" not in said


# --- what somebody should know who installs ---


@pytest.mark.parametrize(("words", "option"), [(("--force",), "--force"), (("--root", "/"), "--root")])
def test_what_only_an_installation_takes_is_refused_without_one(
    words: tuple[str, ...], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", *words]) == 1
    said = capsys.readouterr()
    assert f"{option} goes with --install" in said.err
    assert said.out == ""


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path / "nowhere") == 1
    assert f"--root: there is no directory {tmp_path}/nowhere" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_installation_without_a_configuration_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(tmp_path) == 0
    assert f"{SYSTEM} isn't there below {tmp_path}, and the service reads it" in capsys.readouterr().err
    assert install(tmp_path, "--config", "/etc/edge.toml") == 0
    assert "/etc/edge.toml isn't there" in capsys.readouterr().err
    (tmp_path / "etc" / "edge.toml").touch()
    assert install(tmp_path, "--config", "/etc/edge.toml") == 0
    assert "isn't there" not in capsys.readouterr().err


def test_a_configuration_here_that_the_service_does_not_read_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc" / "meshfw.toml"
    monkeypatch.setattr("meshfw.cli.service.SYSTEM", str(system))
    monkeypatch.setattr("meshfw.cli.service.DIRECTORY", str(tmp_path / "units"))
    monkeypatch.chdir(tmp_path)

    def warned(*options: str) -> str:
        assert main(["service", "--install", *options]) == 0
        return capsys.readouterr().err

    assert "./meshfw.toml" not in warned()
    (tmp_path / "meshfw.toml").touch()
    told = f"the service reads {system}, not ./meshfw.toml: name that by --config, or move it there"
    assert told in (said := warned())
    assert f"{system} isn't there, and" in said
    assert "./meshfw.toml" not in warned("--config", "meshfw.toml")
    system.parent.mkdir()
    system.touch()
    assert told in warned()
    system.unlink()
    (tmp_path / "meshfw.toml").rename(system)
    (tmp_path / "meshfw.toml").symlink_to(system)
    assert "meshfw.toml" not in warned()
