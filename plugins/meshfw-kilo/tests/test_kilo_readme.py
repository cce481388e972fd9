"""What the README shows is what is there: its example's rules, and the keys of its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kilo_meshes import LANGUAGE

from meshfw import ConfigError, MemoryBackend, Plugins, Site, format_rule, load_rules, parse_config, reconcile

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(1)


def test_the_example_makes_the_rules_that_are_shown(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(block("yaml"))
    config = parse_config(block("toml"), file=str(tmp_path / "meshfw.toml"))
    ruleset = load_rules(config, plugins=Plugins(), language=LANGUAGE)
    plan = reconcile.plan(MemoryBackend(Site(owner="meshfw", language=LANGUAGE)), ruleset)
    made = [str(edit) for edit in plan.edits(lambda rule, family: format_rule(rule, family=family, language=LANGUAGE))]
    shown = block("diff").splitlines()
    assert len(shown) == 6
    for line in shown:
        assert line in made


def test_the_table_has_every_key() -> None:
    table = README.split("## Configuration")[1].split("###")[0]
    documented = {
        key for row in table.splitlines() for key in re.findall(r"`([a-z-]+)`", row.split("|")[1] if "|" in row else "")
    }
    told = '[[source]]\ntype = "kilo"\nnode = "x"\nobjects = "y"\nnothing = 1\n'
    with pytest.raises(ConfigError) as caught:
        load_rules(parse_config(told, file="meshfw.toml"), plugins=Plugins(), language=LANGUAGE)
    known = set(caught.value.expected.replace(" or ", ", ").split(", "))
    assert known <= documented
    assert documented - known == {"kubeconfig", "context", "server", "token-file", "ca-file"}  # with kubernetes = true
