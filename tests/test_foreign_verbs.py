"""Laws of the verbs that plugins bring: they are like meshfw's own, replace none, and what breaks is named."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from meshfw import API_VERSION, CommandPlugin, ConfigError, hookimpl
from meshfw.cli import PIPE_CLOSED, main
from meshfw.cli.streams import OutputError
from tests.said import Said


class Shelf:
    """The plugins that the command line finds installed, each with some verbs."""

    def __init__(self, put: Callable[[Callable[[], Iterable[object]]], None]) -> None:
        self._entries: list[SimpleNamespace] = []
        self.scans = 0
        put(self._find)

    def _find(self) -> list[SimpleNamespace]:
        self.scans += 1
        return self._entries

    def add(self, name: str, *verbs: object) -> None:
        plugin: Any = ModuleType(name)
        plugin.meshfw_commands = hookimpl(specname="meshfw_commands")(lambda: verbs)
        dist = SimpleNamespace(name=f"dist-{name}", version="1.0")
        self._entries.append(SimpleNamespace(name=name, load=lambda: plugin, dist=dist))

    def add_broken(self, name: str) -> None:
        def load() -> object:
            raise OSError("burst")

        dist = SimpleNamespace(name=f"dist-{name}", version="1.0")
        self._entries.append(SimpleNamespace(name=name, load=load, dist=dist))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    def put(find: Callable[[], Iterable[object]]) -> None:
        from meshfw.plugins import Plugins

        monkeypatch.setattr("meshfw.cli.foreign.Plugins", lambda: Plugins(find=cast("Any", find)))

    return Shelf(put)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*argv: str) -> Said:
        return Said(main(argv), *capsys.readouterr())

    return call


def toy(name: str = "toy", run: Callable[[Namespace], Any] = lambda arguments: 0, **fields: Any) -> CommandPlugin:
    return CommandPlugin(name=name, run=run, **{"summary": f"play with a {name}", **fields})


def noted(seen: list[Namespace], *, code: int = 0) -> Callable[[Namespace], int]:
    """A run that remembers what it gets."""

    def run(arguments: Namespace) -> int:
        seen.append(arguments)
        return code

    return run


def with_actions(parser: ArgumentParser) -> None:
    """A verb with verbs of its own below it."""
    actions = parser.add_subparsers(dest="action", required=True)
    push = actions.add_parser("push", usage="meshfw toy push [options] FILE")
    push.add_argument("file")
    push.add_argument("--stages")


def test_a_verb_of_a_plugin_has_the_options_of_all_verbs_and_its_exit_code_counts(shelf: Shelf, cli: Any) -> None:
    seen: list[Namespace] = []
    run = noted(seen, code=7)
    shelf.add("one", toy(run=run, add_arguments=lambda parser: parser.add_argument("--far", type=int, default=1)))
    assert cli("--config", "x", "toy", "--far", "3", "--json").code == 7
    (given,) = seen
    assert (given.config, given.far, given.json, given.backend, given.verbose) == ("x", 3, True, None, False)


def test_verbs_below_a_verb_have_the_options_of_all_verbs_and_their_own_usage(shelf: Shelf, cli: Any) -> None:
    seen: list[Namespace] = []
    shelf.add("one", toy(run=noted(seen), add_arguments=with_actions))
    assert cli("toy", "push", "rules", "--json", "--config", "y").code == 0
    assert (seen[0].action, seen[0].file, seen[0].json, seen[0].config) == ("push", "rules", True, "y")
    said = cli("toy", "push", "rules", "--stage")
    assert said.err.splitlines() == [
        "usage: meshfw toy push [options] FILE",
        "meshfw: error: there is no option --stage (did you mean --stages?); meshfw toy push --help tells more",
    ]
    assert "toy push takes no 'more'" in cli("toy", "push", "rules", "more").err
    assert cli("toy", "--help").code == 0


def test_a_built_in_verb_scans_nothing_and_is_never_replaced(shelf: Shelf, cli: Any) -> None:
    shelf.add("usurper", toy("history", run=lambda arguments: 9))
    assert cli("history", "--config", "/nowhere").code == 1
    assert shelf.scans == 0
    said = cli("--verbs")
    assert said.out == "no installed plugin brings a verb\n"
    assert "plugin usurper (from dist-usurper 1.0): its verb history is one of meshfw's own" in said.err


def test_verbs_of_plugins_are_listed_with_their_origin(shelf: Shelf, cli: Any) -> None:
    shelf.add("one", toy("top-up"), toy())
    shelf.add_broken("bad")
    said = cli("--verbs")
    assert said.out == (
        "top-up  play with a top-up  [one (from dist-one 1.0)]\ntoy     play with a toy  [one (from dist-one 1.0)]\n"
    )
    assert "plugin bad (from dist-bad 1.0): it failed: OSError: burst" in said.err
    assert "--verbs" in cli("--help").out
    assert "meshfw --verbs" in cli("plan", "--help").out + cli("--help").out


def test_an_unknown_verb_s_suggestion_includes_those_of_plugins_and_names_broken_ones(shelf: Shelf, cli: Any) -> None:
    shelf.add("one", toy("fleet"))
    shelf.add_broken("bad")
    said = cli("flet")
    assert said.code == 1
    assert "there is no verb 'flet' (did you mean fleet?); skipped: plugin bad (from dist-bad 1.0)" in said.err


def test_a_broken_plugin_is_an_error_by_its_own_name_and_else_a_warning(shelf: Shelf, cli: Any) -> None:
    shelf.add("one", toy())
    shelf.add_broken("bad")
    said = cli("bad", "--json")
    assert (said.code, said.data["error"]["type"]) == (1, "PluginError")
    assert "meshfw: error: plugin bad (from dist-bad 1.0): it failed: OSError: burst" in said.err
    said = cli("toy")
    assert said.code == 0
    assert said.err.startswith("meshfw: warning: plugin bad (from dist-bad 1.0)")


def test_two_plugins_with_one_verb_are_an_error_that_names_both(shelf: Shelf, cli: Any) -> None:
    shelf.add("one", toy())
    shelf.add("two", toy())
    for argv in (("toy",), ("--verbs",)):
        assert "one (from dist-one 1.0) and two (from dist-two 1.0)" in cli(*argv).err
    assert cli("toy").code == 1


def test_a_verb_of_another_interface_version_is_refused(shelf: Shelf, cli: Any) -> None:
    shelf.add("newer", toy(api_version=API_VERSION + 1))
    assert f"written for version {API_VERSION + 1} of the plugin interface" in cli("toy").err


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"run": lambda arguments: 1 / 0}, "toy failed: ZeroDivisionError"),
        ({"run": lambda arguments: sys.exit(0)}, "toy failed: SystemExit"),
        ({"run": lambda arguments: None}, "toy failed: TypeError: it returned None, which is no exit code"),
        ({"run": lambda arguments: 256}, "it returned 256, which is no exit code"),
        ({"run": lambda arguments: os.stat("nowhere")}, "toy failed: FileNotFoundError"),
        ({"add_arguments": lambda parser: parser.add_argument("--json")}, "toy failed: ArgumentError"),
    ],
)
def test_what_breaks_in_a_verb_is_its_plugin_s_error(
    shelf: Shelf, cli: Any, fields: dict[str, Any], reason: str
) -> None:
    shelf.add("one", toy(**fields))
    said = cli("toy")
    assert said.code == 1
    assert "meshfw: error: plugin one (from dist-one 1.0): " in said.err
    assert reason in said.err
    assert "Traceback" not in said.err


def test_a_verb_s_own_refusal_passes_as_it_is(shelf: Shelf, cli: Any) -> None:
    def refuse(arguments: Namespace) -> int:
        raise ConfigError("no such toy", key="toy", expected="another")

    shelf.add("one", toy(run=refuse))
    said = cli("toy", "--json")
    assert said.err == "meshfw: error: toy: no such toy; expected another\n"
    assert said.data["error"]["key"] == "toy"


def test_nobody_reading_a_verb_s_output_is_no_fault_of_its_plugin(shelf: Shelf, cli: Any) -> None:
    def close(arguments: Namespace) -> int:
        raise OutputError(BrokenPipeError())

    shelf.add("one", toy(run=close))
    assert cli("toy").code == PIPE_CLOSED
