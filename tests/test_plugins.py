"""Laws of the plugins: hooks return data, a broken plugin is named and skipped, and only chosen ones take part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import meshfw
from meshfw import (
    API_VERSION,
    BackendError,
    BackendPlugin,
    Codec,
    CommandPlugin,
    ConfigError,
    Declaration,
    Extension,
    Match,
    MemoryBackend,
    Option,
    Outcome,
    PluginError,
    Plugins,
    Report,
    Site,
    SourcePlugin,
    hookimpl,
    hookspecs,
)
from meshfw.extensions import builtin_extensions
from meshfw.extensions.language import Language
from meshfw.plugins import BuiltIn

ROOT = Path(__file__).resolve().parent.parent
LANGUAGE = Language.of(builtin_extensions())
BUILT_IN_BACKENDS = ("nft", "iptables-nft", "iptables-legacy", "memory")
SITE = Site(owner="edge", language=LANGUAGE)
REPORT = Report(outcome=Outcome.CLEAN, backend="memory", cache="hit")


class Entry:
    """An entry point of an installed distribution, as importlib.metadata gives it."""

    def __init__(self, name: str, load: Callable[[], object], dist: str = "") -> None:
        self.name = name
        self.load = load
        self.dist = SimpleNamespace(name=dist or f"dist-{name}", version="1.0")


def entry(name: str, *, dist: str = "", **hooks: Callable[..., Any]) -> Entry:
    """A plugin with these hooks."""
    plugin = ModuleType(name)
    for hook, function in hooks.items():
        setattr(plugin, hook, hookimpl(function))
    return Entry(name, lambda: plugin, dist)


def nothing() -> tuple[BackendPlugin, ...]:
    return ()


def noted(heard: list[Report]) -> Callable[[Report], None]:
    """An implementation of meshfw_reconciled that remembers what it hears."""

    def note(report: Report) -> None:
        heard.append(report)

    return note


def broken(name: str, error: BaseException) -> Entry:
    """A plugin that can't be imported."""

    def load() -> object:
        raise error

    return Entry(name, load)


def installed(*entries: Entry, wanted: bool | tuple[str, ...] = ()) -> Plugins:
    return Plugins(wanted, find=lambda: entries)  # type: ignore[arg-type,return-value]  # Entry has what is used


def backend(name: str, **fields: Any) -> BackendPlugin:
    return BackendPlugin(name=name, factory=MemoryBackend, summary=f"backend {name}", **fields)


def verb(name: str, **fields: Any) -> CommandPlugin:
    return CommandPlugin(**{"name": name, "run": lambda arguments: 0, "summary": f"verb {name}", **fields})


class Word(Match, frozen=True):
    """A match that a plugin brings."""

    word: str


def extension(name: str = "word", value: type[Match] = Word) -> Extension:
    codec = Codec(parse=lambda text, context: text, format=str, expected="a word")
    return Extension(name=name, value=value, options=(Option(f"--{name}", "word", codec),))


# --- the hooks ---


def test_no_hook_stops_at_the_first_result() -> None:
    specs = [value for name, value in vars(hookspecs).items() if name.startswith("meshfw_")]
    assert len(specs) == 5
    assert not any(spec.meshfw_spec["firstresult"] for spec in specs)


def test_the_built_ins_come_through_the_hooks_that_plugins_have() -> None:
    built_in = BuiltIn()
    assert [offer.name for offer in built_in.meshfw_backends()] == list(BUILT_IN_BACKENDS)
    assert [offer.name for offer in built_in.meshfw_sources()] == ["rules", "iptables-save", "iptables-script"]
    assert tuple(built_in.meshfw_extensions()) == builtin_extensions()
    assert not hasattr(built_in, "meshfw_reconciled")


def test_a_plugin_brings_a_backend_a_source_and_extensions() -> None:
    source = SourcePlugin(name="mine", factory=lambda declaration: SimpleNamespace(), summary="")  # never made
    mine = entry(
        "mine",
        meshfw_backends=lambda: [backend("mine")],
        meshfw_sources=lambda: (source,),
        meshfw_extensions=lambda: iter([extension()]),
        meshfw_commands=lambda: [verb("mine")],
    )
    plugins = installed(mine)
    assert plugins.command("mine").summary == "verb mine"
    assert plugins.backend("mine").summary == "backend mine"
    assert plugins.source("mine") is source
    assert "word" in plugins.language().matches
    assert plugins.problems == ()


# --- when entry points are loaded ---


def test_a_look_beyond_is_at_plugins_that_take_no_part_and_places_not_seen_yet() -> None:
    def brings(*offers: BackendPlugin) -> Callable[[], tuple[BackendPlugin, ...]]:
        return lambda: offers

    entries = (
        entry("listed", meshfw_backends=brings(backend("a"))),
        entry("other", meshfw_backends=brings(backend("b"), backend("c", place="nft"), backend("d", place="a"))),
        broken("bad", ImportError("no")),
    )
    plugins = installed(*entries, wanted=("listed",))
    assert [found.offer.name for found in plugins.look_beyond(lambda _: SITE)] == ["b"]
    assert "a" in [found.offer.name for found in plugins.look(lambda _: SITE)], "and none takes part for it"
    assert "b" not in [found.offer.name for found in plugins.look(lambda _: SITE)]
    assert len(plugins.problems) == 1
    assert installed(*entries, wanted=True).look_beyond(lambda _: SITE) == ()


def test_a_built_in_name_loads_no_entry_point() -> None:
    def find() -> Iterable[Any]:
        raise AssertionError("the installed distributions were scanned")

    plugins = Plugins(find=find)
    assert plugins.backend("memory").name == "memory"
    assert plugins.source("rules").name == "rules"
    assert plugins.automatic().reason
    assert "tcp" in plugins.language().matches
    assert plugins.reconciled(REPORT) == ()


def test_an_entry_point_is_loaded_once() -> None:
    loads = []
    one = entry("one", meshfw_backends=lambda: [backend("one")])
    plugin = one.load()
    one.load = lambda: (loads.append(1), plugin)[1]  # type: ignore[func-returns-value]  # counts on the way
    plugins = installed(one)
    plugins.backend("one")
    plugins.listed()
    assert loads == [1]


def test_a_bystander_adds_nothing_to_the_language_and_hears_nothing() -> None:
    heard: list[str] = []
    bystander = entry(
        "bystander", meshfw_extensions=lambda: [extension()], meshfw_reconciled=lambda report: heard.append("bystander")
    )
    chosen = entry(
        "chosen", meshfw_backends=lambda: [backend("chosen")], meshfw_reconciled=lambda report: heard.append("chosen")
    )
    plugins = installed(bystander, chosen)
    plugins.backend("chosen")
    assert "word" not in plugins.language().matches
    plugins.reconciled(REPORT)
    assert heard == ["chosen"]


@pytest.mark.parametrize("wanted", [("one",), ("Dist_One",), True])
def test_a_wanted_plugin_takes_part(wanted: bool | tuple[str, ...]) -> None:
    heard: list[Report] = []
    one = entry("one", meshfw_extensions=lambda: [extension()], meshfw_reconciled=noted(heard))
    plugins = installed(one, wanted=wanted)
    assert "word" in plugins.language().matches
    plugins.reconciled(REPORT)
    assert heard == [REPORT]


def test_a_wanted_plugin_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"plugins: no plugin 'on' is installed \(did you mean one\?\); expected one"):
        installed(entry("one", meshfw_backends=nothing), wanted=("on",))


# --- broken ones ---


GARBLED: Any = 1


class UnsoundError(Exception):
    """What a broken plugin raises."""


GARBAGE: Mapping[str, tuple[Entry, str]] = {
    "import": (broken("bad", UnsoundError("no")), "it failed: UnsoundError: no"),
    "missing": (broken("bad", ModuleNotFoundError("No module named 'x'")), "it failed: ModuleNotFoundError"),
    "exit": (broken("bad", SystemExit(3)), "it failed: SystemExit: 3"),
    "own error": (broken("bad", ConfigError("hm")), "it failed: ConfigError: hm"),
    "raises": (entry("bad", meshfw_backends=lambda: 1 / 0), "meshfw_backends failed: ZeroDivisionError"),
    "no list": (entry("bad", meshfw_backends=lambda: 7), "meshfw_backends failed: TypeError"),
    "no backend": (entry("bad", meshfw_backends=lambda: ["nft"]), "returned 'nft', which is no BackendPlugin"),
    "name": (entry("bad", meshfw_backends=lambda: [backend("no good")]), "returned the name 'no good'"),
    "auto": (entry("bad", meshfw_backends=lambda: [backend("auto")]), "returned the name 'auto'"),
    "factory": (
        entry("bad", meshfw_sources=lambda: [SourcePlugin(name="x", factory=GARBLED, summary="")]),
        "a factory or api_version that is none",
    ),
    "presence": (
        entry("bad", meshfw_backends=lambda: [backend("x", presence=GARBLED)]),
        "x with a field presence that can't be called",
    ),
    "no verb": (
        entry("bad", meshfw_commands=lambda: [verb("Bad")]),
        "returned the verb 'Bad': a small letter, then such, digits and - are allowed",
    ),
    "no run": (entry("bad", meshfw_commands=lambda: [verb("bad", run=GARBLED)]), "bad with a run or add_arguments"),
    "no summary": (entry("bad", meshfw_commands=lambda: [verb("bad", summary=GARBLED)]), "bad with a summary"),
    "no command": (entry("bad", meshfw_commands=lambda: ["bad"]), "returned 'bad', which is no CommandPlugin"),
    "no hook": (entry("bad"), "implements no hook"),
    "unhashable": (Entry("bad", SimpleNamespace), "its registration failed: TypeError"),
    "unknown hook": (
        entry("bad", meshfw_backend=nothing),
        r"meshfw_backend is no hook (did you mean meshfw_backends?)",
    ),
    "arguments": (entry("bad", meshfw_reconciled=lambda nothing, such: None), "meshfw_reconciled"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_broken_plugin_is_named_with_its_distribution_and_skipped(what: str) -> None:
    bad, reason = GARBAGE[what]
    plugins = installed(bad, entry("good", meshfw_backends=lambda: [backend("good")]))
    assert plugins.backend("good").name == "good"
    assert [item.name for item in plugins.listed()] == [*BUILT_IN_BACKENDS, "good"]
    (problem,) = plugins.problems
    assert problem.startswith("plugin bad (from dist-bad 1.0): ")
    assert reason in problem


@pytest.mark.parametrize("what", GARBAGE)
def test_a_broken_plugin_that_was_chosen_is_an_error(what: str) -> None:
    bad, reason = GARBAGE[what]
    with pytest.raises(PluginError) as by_name:
        installed(bad).backend("bad")
    with pytest.raises(PluginError) as by_list:
        installed(bad, wanted=("bad",))
    for caught in (by_name, by_list):
        assert reason in str(caught.value)
        assert caught.value.distribution == "dist-bad 1.0"


def test_an_unknown_name_tells_of_the_plugins_that_were_skipped() -> None:
    with pytest.raises(ConfigError) as caught:
        installed(GARBAGE["import"][0]).backend("memry")
    assert "there is no backend 'memry' (did you mean memory?)" in str(caught.value)
    assert "skipped: plugin bad (from dist-bad 1.0)" in str(caught.value)


def test_broken_extensions_are_skipped_unless_their_plugin_was_chosen() -> None:
    bad = entry("bad", meshfw_extensions=lambda: 1 / 0)
    plugins = installed(bad, wanted=True)
    assert "tcp" in plugins.language().matches
    assert "meshfw_extensions failed: ZeroDivisionError" in plugins.problems[0]
    with pytest.raises(PluginError, match=r"plugin bad .*meshfw_extensions failed"):
        installed(bad, wanted=("bad",)).language()


def test_a_reconciled_hook_that_raises_is_a_warning_and_stops_no_other() -> None:
    heard: list[Report] = []
    plugins = installed(
        entry("bad", meshfw_reconciled=lambda report: 1 / 0),
        entry("good", meshfw_reconciled=noted(heard)),
        wanted=True,
    )
    (warning,) = plugins.reconciled(REPORT)
    assert warning == "plugin bad (from dist-bad 1.0): meshfw_reconciled failed: ZeroDivisionError: division by zero"
    assert heard == [REPORT]


# --- conflicts ---


def test_two_backends_of_one_name_are_an_error_that_names_both() -> None:
    plugins = installed(*(entry(name, meshfw_backends=lambda: [backend("same")]) for name in ("one", "two")))
    with pytest.raises(PluginError) as caught:
        plugins.backend("same")
    assert caught.value.distribution == "dist-one 1.0, dist-two 1.0"
    assert "one (from dist-one 1.0) and two (from dist-two 1.0)" in str(caught.value)


def test_nobody_replaces_a_built_in_backend() -> None:
    usurper = entry("usurper", meshfw_backends=lambda: [backend("memory")])
    assert installed(usurper).backend("memory").summary != "backend memory"
    with pytest.raises(PluginError, match=r"meshfw \(from meshfw\) and usurper \(from dist-usurper 1.0\)"):
        installed(usurper, wanted=True).backend("memory")


@pytest.mark.parametrize(
    ("name", "whose"), [("word", "dist-one 1.0 has one already"), ("tcp", "meshfw has one already")]
)
def test_two_extensions_of_one_name_are_an_error_that_names_both(name: str, whose: str) -> None:
    class Other(Match, frozen=True):
        word: str

    one = entry("one", meshfw_extensions=lambda: [extension()])
    two = entry("two", meshfw_extensions=lambda: [extension(name, Other)])
    with pytest.raises(PluginError) as caught:
        installed(one, two, wanted=("one", "two")).language()
    assert str(caught.value).startswith("plugin two (from dist-two 1.0): ")
    assert whose in str(caught.value)


def test_a_plugin_of_another_interface_version_is_refused_and_says_which() -> None:
    newer = entry("newer", meshfw_backends=lambda: [backend("newer", api_version=API_VERSION + 1, automatic=0)])
    plugins = installed(newer, wanted=True)
    with pytest.raises(PluginError) as caught:
        plugins.backend("newer")
    assert f"written for version {API_VERSION + 1} of the plugin interface" in str(caught.value)
    assert f"has version {API_VERSION}" in str(caught.value)
    assert plugins.automatic().name != "newer"
    assert next(item for item in plugins.listed() if item.name == "newer").reason is not None


# --- what is made ---


def test_a_factory_that_breaks_is_its_plugin_s_error() -> None:
    def factory(site: Site) -> MemoryBackend:
        raise UnsoundError("burst")

    bad = entry("bad", meshfw_backends=lambda: [BackendPlugin(name="bad", factory=factory, summary="")])
    plugins = installed(bad)
    with pytest.raises(
        PluginError, match=r"plugin bad \(from dist-bad 1.0\): its backend bad failed: UnsoundError: burst"
    ):
        plugins.open_backend(plugins.backend("bad"), Site(owner="test", language=LANGUAGE))


def test_a_backend_s_own_refusal_passes_as_it_is() -> None:
    def factory(site: Site) -> MemoryBackend:
        raise ConfigError("no file", key="backend.x.file")

    plugins = installed(entry("x", meshfw_backends=lambda: [BackendPlugin(name="x", factory=factory, summary="")]))
    with pytest.raises(ConfigError, match=r"backend\.x\.file: no file"):
        plugins.open_backend(plugins.backend("x"), Site(owner="test", language=LANGUAGE))


def test_what_is_no_backend_or_source_is_refused() -> None:
    thing: Any = lambda given: SimpleNamespace(api_version=1, name="x", close=lambda: None)  # noqa: E731 - a factory of garbage
    bad = entry(
        "bad",
        meshfw_backends=lambda: [BackendPlugin(name="bad", factory=thing, summary="")],
        meshfw_sources=lambda: [SourcePlugin(name="bad", factory=thing, summary="")],
    )
    plugins = installed(bad)
    with pytest.raises(PluginError, match="has no capabilities, cache, check, fingerprint, observe"):
        plugins.open_backend(plugins.backend("bad"), Site(owner="test", language=LANGUAGE))
    with pytest.raises(PluginError, match="has no load, changes"):
        plugins.open_source(plugins.source("bad"), Declaration(options={}, language=LANGUAGE))


# --- auto ---


def test_auto_never_takes_memory_nor_an_installed_backend_without_a_rank() -> None:
    plugins = installed(entry("mine", meshfw_backends=lambda: [backend("mine")]), wanted=True)
    assert plugins.automatic().name in ("nft", "iptables-nft", "iptables-legacy", None)


def test_auto_takes_the_lowest_rank_that_can_be_used_and_says_why() -> None:
    def unsound() -> str | None:
        raise UnsoundError("hm")

    offers = [
        backend("third", automatic=3),
        backend("first", automatic=1, unavailable=lambda: "no such kernel"),
        backend("second", automatic=2, unavailable=unsound),
    ]
    plugins = installed(entry("mine", meshfw_backends=lambda: offers), wanted=True)
    verdict = plugins.automatic()
    assert verdict.name == "third"
    assert "passed over: first: no such kernel; second: its check failed: UnsoundError: hm" in verdict.reason
    assert plugins.usable().name == "third"


def test_auto_without_a_usable_backend_names_the_reason_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BUILT_IN_BACKENDS[:3]:
        path = f"meshfw.backends.instance.{name.replace('-', '_')}_unavailable"
        monkeypatch.setattr(path, lambda name=name: f"{name} is missing (install it)")
    plugins = installed()
    assert plugins.automatic().name is None
    with pytest.raises(BackendError) as caught:
        plugins.usable()
    reasons = "".join(f"\n  {name}: {name} is missing (install it)" for name in BUILT_IN_BACKENDS[:3])
    assert str(caught.value) == f"auto: no backend can be used here{reasons}"


# --- the names that plugins are made of ---


def test_every_public_name_has_a_home_and_costs_nothing_until_it_is_asked_for() -> None:
    assert {*meshfw._HOMES, "iptables", "model", "reconcile"} == set(meshfw.__all__)
    code = (
        "import sys, meshfw; print([m for m in sys.modules if m.partition('.')[0] in ('meshfw', 'msgspec', 'pluggy')])"
    )
    done = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "['meshfw']\n", done.stderr
    with pytest.raises(AttributeError, match="'meshfw' has no attribute 'nope'"):
        meshfw.nope  # noqa: B018 - the attribute access is the test
