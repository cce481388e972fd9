"""Laws of the README: its configurations load, its plugin works, and its commands say what it shows."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args, get_type_hints

import pytest

import meshfw
from meshfw import (
    BackendPlugin,
    Capabilities,
    ConfigError,
    Family,
    ParseError,
    Plugins,
    Ruleset,
    Site,
    builtin_extensions,
    hookspecs,
    load_rules,
    parse_config,
)
from meshfw.authoring.distribution import Kind, NewPlugin, pin
from meshfw.backends.remembered import DIRECTORY
from meshfw.cli import INTERRUPTED, PIPE_CLOSED, main
from meshfw.cli.apply import SHOWN
from meshfw.cli.arguments import LOCK_TIMEOUT, VERBS, parse
from meshfw.config import Config
from meshfw.extensions.language import Language
from meshfw.kernel.lock import _RUN
from meshfw.languages.iptables import parse_rule
from meshfw.languages.lexer import split
from meshfw.plugins import BuiltIn
from meshfw.testing.book import LAWS
from meshfw.testing.netns import Netns
from tests.extensions.cases import UNSAYABLE

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
LANGUAGE = Language.of(builtin_extensions())


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


CONFIGS = [text for text in blocks("toml") if "entry-points" not in text]


@pytest.mark.parametrize("text", CONFIGS)
def test_every_configuration_shown_is_one(text: str) -> None:
    assert parse_config(text) != Config()


def test_every_configuration_that_a_plugin_shows_is_one() -> None:
    shown = {
        f"{path.parent.name}: {text}": text
        for path in (Path(__file__).parents[1] / "plugins").glob("*/README.md")
        for text in re.findall(r"^```toml\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    }
    assert shown
    for text in shown.values():
        if "[project" not in text:
            parse_config(text)


def test_the_rules_shown_are_rules() -> None:
    texts = [text for text in CONFIGS if "[[chain]]" in text]
    assert len(texts) == 2
    for text in texts:
        assert load_rules(parse_config(text), plugins=Plugins(find=list), language=LANGUAGE).chains


def test_every_key_is_in_a_table() -> None:
    for name in (
        "owner",
        "backend",
        "ipv6",
        "plugins",
        "name",
        "table",
        "families",
        "rules",
        "attach",
        "hook",
        "place",
        "rank",
        "policy",
        "when",
        "type",
        "elements",
        "intervals",
        "rules",
        "iptables-save",
    ):  # fmt: skip - a list of words
        assert re.search(rf"^\| `{name}`", README, re.MULTILINE), name


def test_every_verb_is_told() -> None:
    for verb in VERBS:
        assert re.search(rf"^\| `{verb}` \|", README, re.MULTILINE), verb


def test_the_translation_shown_is_the_translation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("meshfw.config.SYSTEM", str(tmp_path / "none"))
    found = re.search(r"^\$ meshfw translate (.*)\n(.*)\n", README, re.MULTILINE)
    assert found is not None
    assert main(["translate", *found[1].split()]) == 0
    assert capsys.readouterr().out == f"{found[2]}\n"


@pytest.fixture
def guests(tmp_path: Path) -> Callable[[], Ruleset]:
    """The loading of the rules of a configuration whose source is the plugin shown, with ``list`` beside it."""
    (code,) = blocks("python")
    plugin = ModuleType("meshfw_guests")
    exec(code, plugin.__dict__)  # noqa: S102 - the README's own code
    entry = SimpleNamespace(name="guests", load=lambda: plugin, dist=None)
    config = parse_config('[[source]]\ntype = "guests"\nfile = "list"\n', file=str(tmp_path / "meshfw.toml"))

    def load() -> Ruleset:
        plugins = Plugins(find=lambda: [entry])  # type: ignore[list-item]  # as much of an entry point as is used
        ruleset = load_rules(config, plugins=plugins, language=LANGUAGE)
        assert plugins.problems == ()
        return ruleset

    return load


def test_the_plugin_shown_works(tmp_path: Path, guests: Callable[[], Ruleset]) -> None:
    (entry_point,) = [tomllib.loads(text) for text in blocks("toml") if "entry-points" in text]
    assert entry_point["project"]["entry-points"]["meshfw"] == {"guests": "meshfw_guests"}
    (tmp_path / "list").write_text("192.0.2.1\n192.0.2.8/29\n", encoding="utf-8")
    assert [len(entry.elements) for entry in guests().sets] == [2]


def test_the_plugin_shown_names_the_place_of_what_is_wrong(tmp_path: Path, guests: Callable[[], Ruleset]) -> None:
    path = tmp_path / "list"
    with pytest.raises(ConfigError, match=f"^{path}: can't be read: .*No such file"):
        guests()
    path.write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match=f"^{path}: can't be read: .*invalid start byte"):
        guests()
    path.write_text("192.0.2.1\n192.0.2.300\n", encoding="utf-8")
    with pytest.raises(ParseError, match=f"^{path}, line 2: '192.0.2.300' is not an IPv4"):
        guests()


def test_what_is_said_of_limits_and_locks_is_so() -> None:
    assert "| head -1`),\nmeans that the rules were applied" in README
    assert f"`{_RUN}`" in README
    assert f"of many changes it shows {SHOWN}," in README
    assert f"So {PIPE_CLOSED}," in README
    assert f"`--lock-timeout` seconds ({LOCK_TIMEOUT:g} by default)" in README
    assert f"An interrupt is {INTERRUPTED}." in README


def test_what_is_said_of_the_choice_of_a_backend_is_so() -> None:
    offers = list(BuiltIn().meshfw_backends())
    ranked = sorted((offer.automatic, offer.name) for offer in offers if offer.automatic is not None)
    assert f"4. the first of {', '.join(f'`{name}`' for _, name in ranked)}.\n" in README
    names = ", ".join(f'`"{offer.name}"`' for offer in offers)
    assert f'| `backend` | `"auto"`, {names} or an installed plugin\'s.' in README
    assert f"else in `{DIRECTORY}`, a small file" in README
    assert all(f"`{field}`" in README for field in BackendPlugin.__struct_fields__)


HOOKS = dict(re.findall(r"^\| `(meshfw_\w+\(\w*\))` \| (.*) \|$", README, re.MULTILINE))


def test_the_hooks_told_are_the_hooks_with_their_arguments() -> None:
    specified = {name: getattr(hookspecs, name) for name in vars(hookspecs) if name.startswith("meshfw_")}
    assert list(HOOKS) == [
        f"{name}({', '.join(inspect.signature(hook).parameters)})" for name, hook in specified.items()
    ]


def test_what_each_hook_returns_is_told_field_by_field() -> None:
    returned = set()
    for name, row in HOOKS.items():
        annotation = get_type_hints(getattr(hookspecs, name.partition("(")[0]))["return"]
        (kind,) = get_args(annotation) or (None,)
        if kind is None:
            assert row.startswith("nothing; ")
            continue
        returned.add(kind)
        assert row.startswith(f"`{kind.__name__}` values: "), name
        assert kind.__name__ in meshfw.__all__
        if kind.__module__ == hookspecs.__name__:
            told = re.findall(r"`([a-z_]+)`", row)
            assert [field for field in kind.__struct_fields__ if field not in told] == [], name
            assert [word for word in told if word not in {*kind.__struct_fields__, "auto", "type"}] == [], name
    offers = {
        value for value in vars(hookspecs).values() if isinstance(value, type) and value.__name__.endswith("Plugin")
    }
    assert offers <= returned


def test_the_capabilities_shown_are_those_of_each_backend(netns: Netns, requires: Callable[..., None]) -> None:
    requires(
        "nft", "iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore"
    )
    section = README.partition("### Proving a backend")[2].partition("\n## ")[0]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*", section, re.MULTILINE)
    ]
    plugins = Plugins(find=list)
    for column, name in enumerate(header[1:], 1):
        offer = plugins.backend(name)
        backend = plugins.open_backend(offer, Site(owner="meshfw", language=LANGUAGE, netns=netns.path))
        try:
            found = {field: shown(getattr(backend.capabilities, field)) for field in Capabilities.__struct_fields__}
        finally:
            backend.close()
        assert found == {row[0].strip("`"): row[column] for row in rows}, name


def shown(value: object) -> str:
    """A capability as the table has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def test_the_way_of_an_author_is_told_as_it_is() -> None:
    section = README.partition("### Writing a plugin")[2].partition("\n### ")[0]
    made = NewPlugin.named(Kind.BACKEND, "toy")
    lines = len(made.files()["meshfw_toy/backend.py"].splitlines())
    assert f"in {lines // 10 * 10} lines" in section
    assert f"`meshfw{pin(meshfw.__version__)}`" in section
    assert f"some {round(len(LAWS), -1)} laws" in README
    for words in re.findall(r"^# meshfw (.*?)(?:  +#.*)?$", section, re.MULTILINE):
        parse(words.split())


def test_host_bits_are_masked_off_as_shown() -> None:
    found = re.search(r"as iptables does: `(.*)` is `(.*)`\.", README)
    assert found is not None
    texts = [parse_rule(split(f"-s {word}"), family=Family.IPV4, language=LANGUAGE) for word in found.groups()]
    assert texts[0] == texts[1]


def test_what_nft_can_not_say_is_told_by_its_extension() -> None:
    section = README.partition("## What is known, and what nft can't say")[2].partition("\n## ")[0]
    known = set(re.findall(r"`([A-Za-z0-9]+)", section))
    untold = [text for text, _ in UNSAYABLE if not known & set(re.findall(r"-[mjp] (\S+)", text))]
    assert untold == []
