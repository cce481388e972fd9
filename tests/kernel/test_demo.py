"""Laws of the demonstration: it shows what it promises, as root and as an ordinary user, and it is a check."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import pytest

import meshfw
from meshfw.cli import demo, demo_story
from meshfw.cli.demo_tell import Step, comparison
from meshfw.config import parse_config
from meshfw.errors import BackendError, ConfigError, KernelError
from meshfw.kernel.xtables import Xtables
from meshfw.model import Family
from meshfw.plugins import Plugins
from meshfw.testing import netns
from meshfw.testing.breakage import TOOLS
from meshfw.testing.gateway import gateway_toml, journeys
from meshfw.wanted import load_rules

pytestmark = pytest.mark.kernel

ROOT: Final = Path(meshfw.__file__).parents[1]
RESTORES: Final = [f"{name}-restore" for name in TOOLS if name.startswith("iptables-")]
COMMAND: Final = (sys.executable, "-m", "meshfw", "demo")


def arguments(**changed: object) -> Namespace:
    return Namespace(**{"json": False, "verbose": False, "backend": None, "config": None, "netns": None, **changed})


def shown(*argv: str) -> dict[str, Any]:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@pytest.fixture(scope="module")
def stories(requires: Callable[..., None]) -> dict[str, Any]:
    """What programs get inside a user namespace, without the client: it takes its time and needs no privilege more."""
    requires("nft", "ip", "unshare", *RESTORES)
    program = (
        "import sys; from meshfw.cli import demo, main; demo.rule_by_rule = lambda *_: []; "
        "sys.exit(main(['demo', '--json']))"
    )
    return shown("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program)


def outcomes(steps: list[dict[str, Any]], kind: str) -> set[tuple[str, int]]:
    """How the steps of a kind ended, and by how many processes."""
    return {(step["outcome"], step["processes"]) for step in steps if step["kind"] == kind}


def test_the_gateway_is_a_realistic_dual_stack_ruleset() -> None:
    plugins = Plugins()
    ruleset = load_rules(parse_config(gateway_toml()), plugins=plugins, language=plugins.language())
    counts = {family: sum(len(chain.rules) for chain in ruleset.chains if chain.family is family) for family in Family}
    assert sum(counts.values()) >= 200
    assert min(counts.values()) >= 100
    assert {chain.table.value for chain in ruleset.chains} >= {"filter", "nat", "mangle", "raw"}


def test_an_ordinary_user_sees_every_backend_do_as_it_should(stories: dict[str, Any]) -> None:
    assert stories["ok"]
    assert set(stories["backends"]) == set(TOOLS)
    assert next(iter(stories["skipped"])) == "memory"
    for steps in stories["backends"].values():
        assert [step["wrong"] for step in steps] == [[]] * len(steps)
        kinds = [step["kind"] for step in steps]
        repairs = kinds.count("repair")
        assert repairs >= 6
        assert kinds == ["apply", "idle", "adopt", "neighbours", *["repair"] * repairs, "hear", "packets", "clean"]
        assert all(step["commands"] and step["astray"] for step in steps if step["kind"] == "repair")


def test_packets_meet_the_same_verdicts_on_every_backend(stories: dict[str, Any]) -> None:
    told = [step["verdicts"] for steps in stories["backends"].values() for step in steps if step["kind"] == "packets"]
    assert len(told) == len(TOOLS)
    assert len(told[0]) >= 30
    assert told == [told[0]] * len(told)


def test_no_backend_starts_more_processes_than_it_may(stories: dict[str, Any]) -> None:
    for name, steps in stories["backends"].items():
        each = 0 if name == "nft" else 2  # a process for each family
        assert outcomes(steps, "apply") == {("changed", each)}
        assert outcomes(steps, "idle") == {("idle", 0)}
        assert outcomes(steps, "adopt") == {("clean", each)}
        assert {processes for _, processes in outcomes(steps, "neighbours")} == {0}
        assert outcomes(steps, "clean") == {("changed", each)}
        repairs = outcomes(steps, "repair")
        assert {outcome for outcome, _ in repairs} == {"changed"}
        assert max(processes for _, processes in repairs) <= each


def test_a_client_that_asks_for_each_rule_starts_a_process_for_each(requires: Callable[..., None]) -> None:
    requires("nft", "ip", *RESTORES)
    whole = shown(*COMMAND, "--json")
    assert whole["ok"]
    assert set(whole["rule_by_rule"]) == {"iptables-nft", "iptables-legacy"}
    for name, (sync, again) in whole["rule_by_rule"].items():
        written, made = int(sync["outcome"].split()[0]), again["processes"]
        assert sync["processes"] == made + written
        assert again["outcome"] == "0 rules written"
        assert made > 250 * whole["backends"][name][0]["processes"]
    # ip6tables-legacy takes a rule for another of the same shape (1.8.9), and leaves it out.
    assert whole["rule_by_rule"]["iptables-nft"][1]["changes"] == []


def test_it_tells_people_the_same(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft", "ip", *RESTORES)
    monkeypatch.setattr(demo, "rule_by_rule", lambda *_: [])
    assert demo.run(arguments()) == 0
    said = capsys.readouterr().out
    assert "everything went as it should" in said
    assert "+ ipv4 filter forward 7: -s 10.4.3.0/24 -i wg0 -j site-lisbon" in said
    assert "... " in said
    assert "0 processes" in said
    assert "packet for packet where they went on backend nft" in said
    assert re.search(r"^iptables-nft +2 +[0-9.]+ +0 +[0-9.]+ +1 +[0-9.]+ +2 +[0-9.]+$", said, re.MULTILINE)
    for family in Family:
        assert all(journey.story in said for journey in journeys(family))
    assert max(map(len, said.splitlines())) <= 100


def test_the_client_is_compared_with_the_backends() -> None:
    steps = [
        Step(kind="apply", title="", processes=2, milliseconds=50.0),
        Step(kind="idle", title="", processes=0, milliseconds=5.0),
    ]
    client = [Step(kind="client", title="", processes=count, milliseconds=count * 4.0) for count in (1200, 600)]
    assert comparison({"one": steps}, {}) == []
    _, _, backend, other, _ = comparison({"one": steps}, {"one": client})
    assert backend.split() == ["one", "2", "50.0", "0", "0.0050"]
    assert other.split() == ["rule", "by", "rule,", "one", "1200", "4800.0", "600", "2400.0"]


def test_a_backend_that_cannot_read_here_is_not_shown(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft", "ip", *RESTORES)

    def refuse(_self: Xtables) -> NoReturn:
        raise KernelError("read ip_tables_names: Permission denied", errno=errno.EACCES, remedy="run as root")

    monkeypatch.setattr(Xtables, "tables", refuse)
    monkeypatch.setattr(demo, "rule_by_rule", lambda *_: [])
    monkeypatch.setattr(demo, "TOOLS", {name: TOOLS[name] for name in ("nft", "iptables-legacy")})
    assert demo.run(arguments()) == 0
    said = capsys.readouterr().out
    assert "not shown: iptables-legacy: read ip_tables_names: Permission denied (run as root)" in said
    assert "Backend nft" in said


def test_a_packet_that_goes_elsewhere_is_a_failure(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft", "ip")

    def wrong(family: Family) -> list[Any]:
        first, *others = journeys(family)
        return [msgspec.structs.replace(first, verdict="dropped"), *others]

    monkeypatch.setattr(demo_story, "journeys", wrong)
    assert demo.run(arguments(backend="nft")) == 1
    assert "! not as it should be: ipv4 a peer opens a web page: accepted" in capsys.readouterr().out


def test_a_foreign_table_that_changes_is_a_failure(
    requires: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("nft", "ip")
    dumps = iter(range(1000))
    monkeypatch.setattr("meshfw.testing.breakage.NftTool.foreign", lambda _tool: str(next(dumps)))
    assert demo.run(arguments(backend="nft")) == 1
    assert "! not as it should be: the rules of the others have changed" in capsys.readouterr().out


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
