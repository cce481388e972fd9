"""Laws of the graph: what leads where, what nobody reaches, and that Graphviz draws it whatever names there are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from meshfw import Chain, Family, Ruleset, Table, builtin_extensions
from meshfw.cli import main
from meshfw.cli.listing import as_snapshot
from meshfw.cli.picture import Graph, Node, dot_text, graph_of
from meshfw.extensions.language import Language
from meshfw.model import ChainKey, Jump, Rule
from meshfw.snapshot import ObservedList, ObservedRule, Snapshot
from meshfw.testing.strategies import rulesets

CONFIG = """\
owner = "graphtest"

[[chain]]
name = "input"
families = "ipv4"
attach = { hook = "input", policy = "drop" }
rules = ["-i lo -j ACCEPT", "-p tcp -j web", "-p udp -j web", "-s 192.0.2.0/24 -g blocked"]

[[chain]]
name = "web"
families = "ipv4"
rules = ["-j ACCEPT"]

[[chain]]
name = "blocked"
families = "ipv4"
rules = ["-j LOG", "-j DROP"]

[[chain]]
name = "<b>&%|,"
families = "ipv4"
rules = ["-j also"]

[[chain]]
name = "also"
families = "ipv4"

[[chain]]
name = "masq"
table = "nat"
families = "ipv6"
attach = { hook = "postrouting" }
rules = ["-o eth0 -j MASQUERADE"]
"""
LANGUAGE = Language.of(builtin_extensions())
ODD = "<b>&%|,"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("meshfw.config.SYSTEM", str(tmp_path / "none"))
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@pytest.fixture
def graph(house: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["graph", "--wanted", "--json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def nodes(graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{node['kind']} {node['family']} {node['table']} {node['name']}": node for node in graph["nodes"]}


def test_each_hook_dispatcher_and_chain_is_a_node(graph: dict[str, Any]) -> None:
    assert list(nodes(graph)) == [
        "hook ipv4 filter input",
        "dispatcher ipv4 filter input/first",
        f"chain ipv4 filter {ODD}",
        "chain ipv4 filter also",
        "chain ipv4 filter blocked",
        "chain ipv4 filter input",
        "chain ipv4 filter web",
        "hook ipv6 nat postrouting",
        "dispatcher ipv6 nat postrouting/first",
        "chain ipv6 nat masq",
    ]


def test_nodes_have_policies_counts_and_targets(graph: dict[str, Any]) -> None:
    found = nodes(graph)
    assert found["dispatcher ipv4 filter input/first"]["policy"] == "drop"
    assert found["dispatcher ipv6 nat postrouting/first"]["policy"] == "return"
    assert found["chain ipv4 filter input"]["rules"] == 4
    assert found["chain ipv4 filter input"]["targets"] == {"ACCEPT": 1}
    assert found["chain ipv4 filter blocked"]["targets"] == {"LOG": 1, "DROP": 1}


def test_edges_say_by_which_rules(graph: dict[str, Any]) -> None:
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    edges = {(names[edge["start"]], names[edge["end"]], edge["kind"]): edge["rules"] for edge in graph["edges"]}
    assert edges == {
        ("input", "input/first", "hook"): [],
        ("input/first", "input", "jump"): [1],
        ("input", "web", "jump"): [2, 3],
        ("input", "blocked", "goto"): [4],
        (ODD, "also", "jump"): [1],
        ("postrouting", "postrouting/first", "hook"): [],
        ("postrouting/first", "masq", "jump"): [1],
    }


def test_what_no_packet_reaches_is_marked_with_all_behind_it(
    graph: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [node["name"] for node in graph["nodes"] if not node["reachable"]] == [ODD, "also"]
    assert main(["graph", "--wanted"]) == 0
    assert capsys.readouterr().out.count("unreachable") == 2


def test_what_is_not_as_it_should_be_is_shown() -> None:
    key = ChainKey(Family.IPV4, Table.FILTER, "web")
    held = ObservedList(
        key, (ObservedRule(Rule(target=Jump("gone"))), ObservedRule(None, "odd")), faults=("a jump <lost>",)
    )
    graph = graph_of(Snapshot({key: held}))
    text = dot_text(graph, title="x")
    assert [(node.name, node.missing, dict(node.targets)) for node in graph.nodes] == [
        ("web", False, {"unknown": 1}),
        ("gone", True, {}),
    ]
    assert "a jump &lt;lost&gt;" in text
    assert "not there" in text


def svg_of(text: str) -> ET.Element:
    done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, check=True)
    assert not re.search("error|not well-formed", done.stderr, re.IGNORECASE)  # of fonts that aren't there it may warn
    return ET.fromstring(done.stdout)  # noqa: S314 - what dot made here and now


def texts(svg: ET.Element) -> list[str]:
    return ["".join(element.itertext()).strip() for element in svg.iter() if element.tag.endswith("}text")]


def test_the_picture_shows_every_name(
    house: Path, capsys: pytest.CaptureFixture[str], requires: Callable[..., None]
) -> None:
    requires("dot")
    assert main(["graph", "--wanted", "--svg"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    shown = texts(ET.fromstring(said.out))  # noqa: S314 - what dot made here and now
    for text in ("IPv4", "IPv6", "nat", "filter", "input/first", ODD, "web", "4 rules", "rules 2, 3", "goto by rule 4"):
        assert text in shown, text
    assert shown.count("unreachable") == 2


@pytest.mark.parametrize(
    "name",
    ["\\N\\G", '"', "]]>", "<!--", "&amp;", "\x1b[2J", "\n", "é\u202e", "\udcff", "x" * 300, "--", "\ufffe\ud800"],
)
def test_no_name_breaks_the_picture(name: str, requires: Callable[..., None]) -> None:
    requires("dot")
    made = [
        Node(
            id=str(number), kind=kind, family=Family.IPV4, table=Table.FILTER, name=name, targets={name: 1}, policy=name
        )
        for number, kind in enumerate(("hook", "dispatcher", "chain"))
    ]
    shown = texts(svg_of(dot_text(Graph(tuple(made)), title=name)))
    assert "filter" in shown
    assert "1 rule" not in shown


def test_hundreds_of_interwoven_chains_are_drawn(requires: Callable[..., None]) -> None:
    requires("dot")
    count = 250
    chains = [
        Chain(
            family=Family.IPV4,
            table=Table.FILTER,
            name=f"c{at}",
            rules=tuple(Rule(target=Jump(f"c{to}")) for to in (2 * at + 1, 2 * at + 2, at + 7) if to < count),
        )
        for at in range(count)
    ]
    shown = texts(svg_of(dot_text(graph_of(as_snapshot(Ruleset(chains=tuple(chains)))), title="x")))
    assert {f"c{at}" for at in range(count)} <= set(shown)


@settings(max_examples=15)  # each is a whole ruleset, and the law is a plain one
@given(rulesets(LANGUAGE))
def test_a_graph_is_whole_for_any_ruleset(ruleset: Ruleset) -> None:
    graph = graph_of(as_snapshot(ruleset))
    ids = {node.id for node in graph.nodes}
    assert len(ids) == len(graph.nodes)
    assert {end for edge in graph.edges for end in (edge.start, edge.end)} <= ids
    assert not any(node.missing for node in graph.nodes)
    assert sum(node.rules for node in graph.nodes if node.kind == "chain") == sum(len(c.rules) for c in ruleset.chains)


def test_without_graphviz_its_package_is_named(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfw.kernel.command._ADMIN_DIRECTORIES", ())
    monkeypatch.setitem(os.environ, "PATH", str(house))
    assert main(["graph", "--wanted", "--svg"]) == 1
    assert capsys.readouterr() == ("", "meshfw: error: dot is not installed (apt-get install graphviz)\n")


def test_nothing_declared_or_held_is_said(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "--backend", "memory"]) == 0
    said = capsys.readouterr()
    assert said.err == "owner graphtest has nothing in the kernel\n"
    assert said.out.startswith("digraph meshfw {")
