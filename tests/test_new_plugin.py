"""Laws of the author's kit: what it writes works as it is, and a name that can't be is refused before anything is."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshfw import ConfigError, Plugins, run_tool
from meshfw.authoring.distribution import LONGEST, Kind, NewPlugin, pin
from meshfw.cli import main
from meshfw.testing.netns import Netns
from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parent.parent
KINDS = list(Kind)
CONFIG = """
backend = "toy"

[[chain]]
name = "input"
attach = { hook = "input", policy = "drop" }
rules = ["-i lo -j ACCEPT", "-p tcp --dport 443 -j ACCEPT"]

"""


def run(*command: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment without this interpreter's own settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))} | extra
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


def done(*command: str | Path, cwd: Path, **extra: str) -> str:
    """The output of a command that has to work."""
    ended = run(*command, cwd=cwd, **extra)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


# --- a stranger's path -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a stranger works: an environment of his own, with meshfw and what its test kit needs."""
    for tool in ("hatchling", "hypothesis"):
        if importlib.util.find_spec(tool) is None:
            cannot_run(f"not installed: {tool}", "pip install --editable '.[test]'")
    made = tmp_path_factory.mktemp("stranger")
    venv.create(made / "venv", with_pip=False, symlinks=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(done(made / "venv/bin/python", "-c", code, cwd=made).strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n", encoding="utf-8")
    return made


class Clock:
    """The seconds of each step, printed as it ends: ``pytest -s`` shows them, and nothing is asserted of them."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def lap(self, step: str) -> None:
        now = time.monotonic()
        print(f"\n{now - self._begun:6.1f} s  {step}", end="")  # noqa: T201 - the figures of the README come from here
        self._begun = now


def made_and_installed(home: Path, kind: Kind, name: str, clock: Clock) -> Path:
    """The place of a new plugin that was installed by pip as it was written."""
    python = home / "venv/bin/python"
    said = json.loads(done(python, "-m", "meshfw", "new-plugin", kind, name, "--json", cwd=home))
    place = home / str(said["directory"])
    assert sorted(said["files"]) == sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
    clock.lap(f"meshfw new-plugin {kind} {name}")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    done(*pip, "--no-build-isolation", place, cwd=home)
    clock.lap("pip install .")
    return place


def own_tests_pass(home: Path, place: Path, clock: Clock) -> dict[str, Any]:
    """The part of the conformance report that a new plugin's own tests wrote, after all of them passed."""
    report = home / f"{place.name}.json"
    words = ("-q", "-p", "no:cacheprovider", "--meshfw-report", report)
    said = done(home / "venv/bin/python", "-m", "pytest", *words, cwd=place, CI="true")
    clock.lap(f"pytest: {said.strip().splitlines()[-1].strip('= ')}")
    (made,) = json.loads(report.read_text(encoding="utf-8"))["reports"]
    assert isinstance(made, dict)
    return made


def laws_by_outcome(report: dict[str, Any]) -> dict[str, set[str]]:
    """The names of the laws that ended in each way."""
    found: dict[str, set[str]] = {}
    for finding in report["findings"]:
        found.setdefault(finding["outcome"], set()).add(finding["law"])
    return found


@pytest.mark.kernel
def test_a_stranger_gets_a_backend_that_works(home: Path, netns: Netns, requires: Callable[..., None]) -> None:
    requires("nft")
    clock = Clock()
    place = made_and_installed(home, Kind.BACKEND, "toy", clock)
    report = own_tests_pass(home, place, clock)
    subject = report["subject"]
    assert (subject["name"], subject["distribution"], subject["version"]) == ("toy", "meshfw-toy", "0.1.0")
    assert report["tool_versions"]["nft"].startswith("nftables v")
    outcomes = laws_by_outcome(report)
    assert set(outcomes) == {"held", "narrowed"}
    assert outcomes["narrowed"] == {
        "idle_apply_reads_nothing",
        "fingerprint_moves_with_every_write",
        "fingerprint_is_of_what_was_read",
        "digest_tells_of_every_change",
        "moved_names_every_list_that_differs",
        "stale_commit_is_refused",
        "watch_tells_of_foreign_writes",
        "own_commits_are_own",
        "closing_ends_the_watch",
        "watching_spawns_nothing",
    }
    (home / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    meshfw = (home / "venv/bin/python", "-m", "meshfw")
    states = {name: str(home / name.lower()) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY")}
    assert "(toy)" in done(*meshfw, "apply", "--netns", netns.path, cwd=home, **states)
    clock.lap("meshfw apply")
    listed = run_tool(("nft", "list", "ruleset"), netns=netns.path).stdout
    assert "type filter hook input priority filter - 5; policy drop;" in listed
    assert "tcp dport 443 counter packets 0 bytes 0 accept" in listed
    done(*meshfw, "check", "--netns", netns.path, cwd=home, **states)
    own = "table ip meshfw-toy, table ip6 meshfw-toy"

    def says(backend: str, *words: str) -> subprocess.CompletedProcess[str]:
        (home / "meshfw.toml").write_text(CONFIG.replace('backend = "toy"', backend), encoding="utf-8")
        return run(*meshfw, *words, "--netns", netns.path, cwd=home, **states)

    # Who would double its rules sees them where the plugin takes part, who looks for all of them sees them anyhow.
    for backend, words in (('backend = "toy"', ("--backend", "nft")), ('backend = "nft"\nplugins = ["toy"]', ())):
        refused = says(backend, "apply", *words)
        assert refused.returncode == 1
        assert f"rules of meshfw stand in toy ({own})" in refused.stderr
    seen = {item["name"]: item for item in json.loads(says('backend = "nft"', "backends", "--json").stdout)["backends"]}
    assert (seen["toy"]["own"], seen["nft"]["own"], seen["nft"]["others"]) == (own, None, None)
    moved = says('backend = "nft"', "migrate", "--to", "nft")
    assert moved.returncode == 0, moved.stderr
    listed = run_tool(("nft", "list", "tables"), netns=netns.path).stdout
    assert listed.splitlines() == ["table ip meshfw", "table ip6 meshfw"]
    moved = says('backend = "toy"', "migrate", "--to", "toy")
    assert moved.returncode == 0, moved.stderr
    cleaned = says('backend = "nft"', "clean", "--all-backends")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "(toy)" in cleaned.stdout
    assert run_tool(("nft", "list", "ruleset"), netns=netns.path).stdout == ""


def test_a_stranger_gets_a_source_that_works(home: Path) -> None:
    clock = Clock()
    place = made_and_installed(home, Kind.SOURCE, "friends", clock)
    report = own_tests_pass(home, place, clock)
    subject = report["subject"]
    assert (subject["name"], subject["distribution"], subject["version"]) == (
        "FriendsSource",
        "meshfw-friends",
        "0.1.0",
    )
    assert set(laws_by_outcome(report)) == {"held"}


# --- what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [(Kind.BACKEND, "toy"), (Kind.SOURCE, "friends")])
def test_what_is_written_is_what_style_and_types_are_checked_of(kind: Kind, name: str) -> None:
    """The golden is made by ``meshfw new-plugin KIND NAME --directory tests/golden/new_plugin``."""
    made = NewPlugin.named(kind, name)
    golden = ROOT / "tests/golden/new_plugin" / made.distribution
    paths = {str(path.relative_to(golden)) for path in golden.rglob("*") if path.is_file()}
    there = {path for path in paths if "cache" not in path}  # tools leave theirs beside what they check
    texts = made.files()
    assert there == set(texts)
    for path, text in texts.items():
        assert (golden / path).read_text(encoding="utf-8") == text, path


@pytest.mark.parametrize("name", ["a", "my-fw", "x" * LONGEST])
@pytest.mark.parametrize("kind", KINDS)
def test_every_name_makes_modules_of_moderate_lines(kind: Kind, name: str) -> None:
    made = NewPlugin.named(kind, name)
    for path, text in made.files().items():
        assert "$" not in text.replace("\n$ p", ""), path
        if path.endswith(".py"):
            compile(text, path, "exec")
            assert max(map(len, text.splitlines())) <= 120, path
    project = tomllib.loads(made.files()["pyproject.toml"])["project"]
    assert project["entry-points"] == {"meshfw": {name: made.package}}


def test_no_two_plugins_have_test_modules_of_one_name() -> None:
    paths = [path for name in ("a", "b") for kind in KINDS for path in NewPlugin.named(kind, name).files()]
    tests = [path for path in paths if path.startswith("tests/") and "plugin" not in path]
    assert len(tests) == len(set(tests)) > 0


@pytest.mark.parametrize(
    ("version", "releases"), [("0.1.0", ">=0.1,<0.2"), ("1.4.2", ">=1.4,<2"), ("0.3.0rc1", ">=0.3,<0.4")]
)
def test_a_plugin_is_for_the_releases_that_keep_their_names(version: str, releases: str) -> None:
    assert pin(version) == releases


# --- names and places --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "Toy", "1st", "a_b", "a.b", "a--b", "-a", "a-", "a b", "ä", "../a", "meshfw-", "a/b"]
)
def test_a_name_that_no_package_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^NAME: .* can't name a plugin; expected small letters"):
        NewPlugin.named(Kind.BACKEND, name)


def test_the_prefix_may_be_given_or_not() -> None:
    assert NewPlugin.named(Kind.BACKEND, "meshfw-my-fw") == NewPlugin.named(Kind.BACKEND, "my-fw")
    made = NewPlugin.named(Kind.BACKEND, "my-fw")
    assert (made.distribution, made.package, made.title) == ("meshfw-my-fw", "meshfw_my_fw", "MyFw")


@pytest.mark.parametrize("name", ["nft", "iptables-nft", "memory", "rules", "iptables-save"])
def test_what_is_built_in_is_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^NAME: '{name}' is installed already"):
        NewPlugin.named(Kind.SOURCE, name, taken=Plugins(find=list).names())


def test_names_are_compared_as_packages_are() -> None:
    for taken in ("my-fw", "meshfw-my-fw", "My_Fw", "meshfw.my.fw"):
        with pytest.raises(ConfigError, match="installed already"):
            NewPlugin.named(Kind.SOURCE, "my-fw", taken=[taken])


@pytest.mark.parametrize("name", ["auto", "testing", "meshfw-auto", "x" * (LONGEST + 1)])
def test_words_of_meshfw_and_long_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^NAME: "):
        NewPlugin.named(Kind.BACKEND, name)


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["new-plugin", "source", "friends-of-mine", "--directory", str(tmp_path)]
    assert main(arguments) == 0
    path = tmp_path / "meshfw-friends-of-mine"
    (path / "README.md").write_text("mine", encoding="utf-8")
    assert main(arguments) == 1
    assert "is there already; expected a place without it; nothing was written" in capsys.readouterr().err
    assert (path / "README.md").read_text(encoding="utf-8") == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["new-plugin", "source", "friends-of-mine", "--directory", str(tmp_path / "file")]) == 1
    said = capsys.readouterr()
    assert said.err == (
        f"meshfw: error: DIRECTORY: {tmp_path / 'file'} can't be written: File exists; "
        "expected a directory for the new plugin\n"
    )


def test_the_command_says_what_it_wrote_and_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "backend", "mine", "--directory", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'meshfw-mine'}: a backend called mine, in ")
    assert "\n  meshfw_mine/backend.py\n" in said
    python = shlex.quote(sys.executable)  # another pip may be in PATH, which doesn't know this meshfw
    assert said.endswith(f"      {python} -m pip install --editable '.[test]'\n      {python} -m pytest\n")
