"""Laws of the README: its configurations load, its plugin works, and its commands say what it shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from meshfw import Plugins, builtin_extensions, load_rules, parse_config
from meshfw.cli import main
from meshfw.cli.arguments import VERBS
from meshfw.config import Config
from meshfw.extensions.language import Language

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
LANGUAGE = Language.of(builtin_extensions())


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


CONFIGS = [text for text in blocks("toml") if "entry-points" not in text]


@pytest.mark.parametrize("text", CONFIGS)
def test_every_configuration_shown_is_one(text: str) -> None:
    assert parse_config(text) != Config()


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


def test_the_plugin_shown_works(tmp_path: Path) -> None:
    (code,) = blocks("python")
    plugin = ModuleType("meshfw_guests")
    exec(code, plugin.__dict__)  # noqa: S102 - the README's own code
    (entry_point,) = [tomllib.loads(text) for text in blocks("toml") if "entry-points" in text]
    assert entry_point["project"]["entry-points"]["meshfw"] == {"guests": "meshfw_guests"}
    entry = SimpleNamespace(name="guests", load=lambda: plugin, dist=None)
    plugins = Plugins(find=lambda: [entry])  # type: ignore[list-item]  # as much of an entry point as is used
    (tmp_path / "list").write_text("192.0.2.1\n192.0.2.8/29\n", encoding="utf-8")
    config = parse_config('[[source]]\ntype = "guests"\nfile = "list"\n', file=str(tmp_path / "meshfw.toml"))
    ruleset = load_rules(config, plugins=plugins, language=LANGUAGE)
    assert [len(entry.elements) for entry in ruleset.sets] == [2]
    assert plugins.problems == ()
