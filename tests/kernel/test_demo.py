"""Laws of the demonstration: it shows what it promises, as root and as an ordinary user, and it is a check."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import meshfw
from meshfw.cli import demo
from meshfw.config import load_rules, parse_config
from meshfw.errors import BackendError, ConfigError
from meshfw.model import Family
from meshfw.plugins import Plugins
from meshfw.testing import netns
from meshfw.testing.breakage import BREAKAGES
from meshfw.testing.gateway import gateway_toml, journeys

pytestmark = pytest.mark.kernel

ROOT: Final = Path(meshfw.__file__).parents[1]
COMMAND: Final = (sys.executable, "-m", "meshfw", "demo")


def arguments(**changed: object) -> Namespace:
    return Namespace(**{"json": False, "verbose": False, "backend": None, "config": None, "netns": None, **changed})


def shown(*before: str) -> dict[str, Any]:
    done = subprocess.run((*before, *COMMAND, "--json"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def test_the_gateway_is_a_realistic_dual_stack_ruleset() -> None:
    plugins = Plugins()
    ruleset = load_rules(parse_config(gateway_toml()), plugins=plugins, language=plugins.language())
    counts = {family: sum(len(chain.rules) for chain in ruleset.chains if chain.family is family) for family in Family}
    assert sum(counts.values()) >= 200
    assert min(counts.values()) >= 100
    assert {chain.table.value for chain in ruleset.chains} >= {"filter", "nat", "mangle", "raw"}


def test_the_story_is_told_within_seconds_and_ends_well(requires: Callable[..., None]) -> None:
    requires("nft", "ip")
    began = time.monotonic()
    data = shown()
    assert time.monotonic() - began < 15
    assert data["ok"]
    steps = data["backends"]["nft"]
    assert [step["wrong"] for step in steps] == [[]] * len(steps)
    assert [step["outcome"] for step in steps] == [
        *("changed", "idle", "clean", "clean"),
        *["changed"] * len(BREAKAGES),
        *("", "changed"),
    ]
    assert {step["processes"] for step in steps if step["outcome"]} == {0}
    assert all(step["commands"] for step in steps if step["title"].startswith("somebody"))


def test_it_works_inside_a_user_namespace(requires: Callable[..., None]) -> None:
    requires("nft", "ip", "unshare")
    assert shown("unshare", "--user", "--map-root-user", "--net")["ok"]


def test_it_tells_people_the_same(requires: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    requires("nft", "ip")
    assert demo.run(arguments()) == 0
    said = capsys.readouterr().out
    assert "everything went as it should" in said
    assert "+ ipv4 filter forward 7: -s 10.4.3.0/24 -i wg0 -j site-lisbon" in said
    assert "... " in said
    assert "0 processes" in said
    for family in Family:
        assert all(journey.story in said for journey in journeys(family))


def test_a_packet_that_goes_elsewhere_is_a_failure(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft", "ip")

    def wrong(family: Family) -> list[Any]:
        first, *others = journeys(family)
        return [msgspec.structs.replace(first, verdict="dropped"), *others]

    monkeypatch.setattr(demo, "journeys", wrong)
    assert demo.run(arguments()) == 1
    assert "! not as it should be: ipv4 a peer opens a web page: accepted" in capsys.readouterr().out


def test_a_foreign_table_that_changes_is_a_failure(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft", "ip")
    dumps = iter(range(1000))
    monkeypatch.setattr("meshfw.testing.breakage.NftTool.foreign", lambda _tool: str(next(dumps)))
    assert demo.run(arguments()) == 1
    assert "! not as it should be: the tables of the others have changed" in capsys.readouterr().out


def test_root_without_namespaces_gets_a_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "available", lambda: "make a network namespace: Operation not permitted")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(BackendError, match=r"no network namespace can be made here: .*not permitted.*as root"):
        demo.run(arguments())


def test_an_ordinary_user_goes_on_inside_a_user_namespace(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requires("unshare")
    started: list[tuple[str, ...]] = []

    class LeftError(Exception):
        pass

    def leave(_program: str, argv: tuple[str, ...]) -> None:
        started.append(argv)
        raise LeftError

    monkeypatch.setattr(netns, "available", lambda: "make a network namespace: Operation not permitted")
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    monkeypatch.setattr("os.execv", leave)
    with pytest.raises(LeftError):
        demo.run(arguments(json=True, backend="nft"))
    (argv,) = started
    assert argv == ("unshare", "--user", "--map-root-user", "--net", *COMMAND, "--json", "--backend", "nft")


def test_a_backend_that_no_packet_meets_is_refused(requires: Callable[..., None]) -> None:
    requires("nft", "ip")
    with pytest.raises(BackendError, match="no packet meets its rules"):
        demo.run(arguments(backend="memory"))
    with pytest.raises(ConfigError, match="there is no backend"):
        demo.run(arguments(backend="nonesuch"))
