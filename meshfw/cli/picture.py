"""The way of packets through one owner's rules as a graph: hooks, dispatchers, chains and the jumps between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

import msgspec

from meshfw.model import ChainKey, DispatcherKey, Family, Goto, Hook, Jump, Policy, Table
from meshfw.printable import counted, whole
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A hook, a dispatcher or a chain.

    ``rules`` counts a list's rules, ``targets`` how many of them have each target but jumps and gotos; ``policy`` is a
    dispatcher's. ``reachable`` is whether packets can come there; ``faults`` what is wrong with it in the kernel.
    """

    id: str
    kind: str
    family: Family
    table: Table
    name: str
    rules: int = 0
    targets: Mapping[str, int] = {}
    policy: str = ""
    reachable: bool = True
    missing: bool = False
    faults: tuple[str, ...] = ()


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """A way from one node to another: ``hook``, ``jump`` or ``goto``, and the rules (from 1) that lead there."""

    start: str
    end: str
    kind: str
    rules: tuple[int, ...] = ()


class Graph(msgspec.Struct, frozen=True):
    """The nodes of both families, in the order in which packets meet hooks and tables, and the ways between them."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


def graph_of(snapshot: Snapshot) -> Graph:
    """The graph of what a kernel holds, or of what is wanted as a snapshot."""
    reached = _reached(snapshot)
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for key in sorted(snapshot.lists, key=_rank):
        held = snapshot.lists[key]
        node = _node(held, reachable=key in reached)
        if isinstance(key, DispatcherKey):
            hook = Node(id=_id("hook", key), kind="hook", family=key.family, table=key.table, name=key.hook.value)
            nodes.setdefault(hook.id, hook)
            edges.append(Edge(start=hook.id, end=node.id, kind="hook"))
        nodes[node.id] = node
        edges += _edges(held)
    for end in [edge.end for edge in edges if edge.end not in nodes]:
        nodes[end] = _missing(end)
    return Graph(tuple(nodes.values()), tuple(edges))


def _node(held: ObservedList, *, reachable: bool) -> Node:
    key = held.key
    dispatcher = isinstance(key, DispatcherKey)
    return Node(
        id=_id("list", key),
        kind="dispatcher" if dispatcher else "chain",
        family=key.family,
        table=key.table,
        name=f"{key.hook}/{key.place}" if isinstance(key, DispatcherKey) else key.name,
        rules=len(held.rules),
        targets=dict(Counter(filter(None, map(_target, held.rules)))),
        policy=_policy(held.policies) if dispatcher else "",
        reachable=reachable,
        faults=held.faults,
    )


def _missing(node_id: str) -> Node:
    """The node of a chain that a jump names and the kernel hasn't told of."""
    _, family, table, name = node_id.split(" ", 3)
    return Node(id=node_id, kind="chain", family=Family(family), table=Table(table), name=name, missing=True)


def _rank(key: ListKey) -> tuple[object, ...]:
    """Family, then table, then the hooks in the order in which packets meet them, and last the chains by name."""
    if isinstance(key, DispatcherKey):
        return _FAMILIES[key.family], _TABLES[key.table], 0, _HOOKS[key.hook], key.place.value
    return _FAMILIES[key.family], _TABLES[key.table], 1, 0, key.name


_FAMILIES: Final = {family: number for number, family in enumerate(Family)}
_TABLES: Final = {
    table: number for number, table in enumerate((Table.RAW, Table.MANGLE, Table.NAT, Table.FILTER, Table.SECURITY))
}
_HOOKS: Final = {
    hook: number
    for number, hook in enumerate((Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING))
}


def _id(kind: str, key: ListKey) -> str:
    """What names a node; never shown."""
    if isinstance(key, ChainKey):
        return f"chain {key.family} {key.table} {key.name}"
    place = "" if kind == "hook" else f" {key.place}"
    return f"{kind} {key.family} {key.table} {key.hook}{place}"


def _target(held: ObservedRule) -> str:
    """The target's name; empty for a jump, a goto, and a rule without one."""
    if held.rule is None:
        return "unknown"
    target = held.rule.target
    return "" if target is None or isinstance(target, Jump | Goto) else target.label


def _policy(policies: frozenset[Policy]) -> str:
    """A backend that can't tell return from accept names both: nothing is decided by either."""
    return Policy.RETURN.value if Policy.RETURN in policies else "/".join(sorted(policies))


def _ways(held: ObservedList) -> Iterator[tuple[str, ChainKey, int]]:
    """Each rule that leads elsewhere: jump or goto, the chain, and the rule's number."""
    for number, entry in enumerate(held.rules, 1):
        target = entry.rule.target if entry.rule is not None else None
        if isinstance(target, Jump | Goto):
            kind = "jump" if isinstance(target, Jump) else "goto"
            yield kind, ChainKey(held.key.family, held.key.table, target.chain), number


def _edges(held: ObservedList) -> Iterator[Edge]:
    """One edge for each kind and chain, however many rules lead there."""
    found: dict[tuple[str, ChainKey], list[int]] = {}
    for kind, key, number in _ways(held):
        found.setdefault((kind, key), []).append(number)
    for (kind, key), numbers in found.items():
        yield Edge(start=_id("list", held.key), end=_id("list", key), kind=kind, rules=tuple(numbers))


def _reached(snapshot: Snapshot) -> set[ListKey]:
    """The lists where packets can come."""
    todo: list[ListKey] = [key for key in snapshot.lists if isinstance(key, DispatcherKey)]
    reached: set[ListKey] = set()
    while todo:
        key = todo.pop()
        if key not in reached:
            reached.add(key)
            todo += [end for _, end, _ in _ways(snapshot.lists[key]) if end in snapshot.lists]
    return reached


# --- as Graphviz reads it (dot(1), and its manual of the DOT language) --------------------------------------

_INK, _PALE, _LINE, _GREEN, _RED, _AMBER = "#1f2937", "#6b7280", "#9ca3af", "#15803d", "#b91c1c", "#b45309"
_TINTS: Final = {
    Table.RAW: ("#faf5ff", "#7e22ce"),
    Table.MANGLE: ("#fff7ed", "#c2410c"),
    Table.NAT: ("#ecfeff", "#0e7490"),
    Table.FILTER: ("#eff6ff", "#1d4ed8"),
    Table.SECURITY: ("#fdf2f8", "#be185d"),
}
"""For each table its ground and its edge."""
_VERDICTS: Final = {"ACCEPT": _GREEN, "DROP": _RED, "REJECT": _RED, "unknown": _AMBER}
_UNWRITABLE: Final = re.compile("[\ufffe\uffff]")
"""What no XML may hold (XML 1.0, Char) and isn't an escape by then."""
_NAME_SHOWN: Final = 40
_NUMBERS_SHOWN: Final = 3
_HEAD: Final = """\
  graph [rankdir=LR, bgcolor="white", fontname="Helvetica,Arial,sans-serif", fontsize=13, fontcolor="#1f2937",
         labeljust=l, labelloc=t, nodesep=0.22, ranksep=0.7, pad=0.3, splines=spline, compound=true];
  node [fontname="Helvetica,Arial,sans-serif", fontsize=11, fontcolor="#1f2937", shape=box, style="rounded,filled",
        fillcolor="white", color="#9ca3af", penwidth=1.1, margin="0.16,0.08"];
  edge [fontname="Helvetica,Arial,sans-serif", fontsize=9, fontcolor="#6b7280", color="#6b7280", arrowsize=0.7,
        penwidth=1.1];
"""
_PLAIN_EDGES: Final = 300
_HASTE: Final = "  graph [splines=line, nslimit=1, nslimit1=1, mclimit=0.1];"
"""What bounds dot's search for a better picture, which takes minutes for some hundred interwoven chains."""


def dot_text(graph: Graph, *, title: str) -> str:
    """The graph in Graphviz's language; a cluster for each family, and in it one for each table."""
    names = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["digraph meshfw {", _HEAD.rstrip("\n"), f"  label={_quoted(title)};"]
    if len(graph.edges) > _PLAIN_EDGES:
        lines.append(_HASTE)
    for family in reversed(Family):  # what is said first is drawn lowest
        held = [node for node in graph.nodes if node.family is family]
        if held:
            lines += _cluster(family, held, names)
    lines += [_edge(edge, names) for edge in graph.edges]
    return "\n".join([*lines, "}", ""])


def _cluster(family: Family, held: Sequence[Node], names: Mapping[str, str]) -> Iterator[str]:
    label = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}[family]
    yield f"  subgraph cluster_{family} {{"
    yield f'    label=<<b>{label}</b>>; fontsize=15; style="rounded"; color="#d1d5db"; margin=14;'
    for table in _TABLES:
        nodes = [node for node in held if node.table is table]
        if nodes:
            ground, edge = _TINTS[table]
            yield f"    subgraph cluster_{family}_{table} {{"
            yield f'      label=<<b>{table}</b>>; fontsize=12; fontcolor="{edge}"; style="rounded,filled";'
            yield f'      color="{edge}40"; fillcolor="{ground}"; margin=12;'
            yield from (f"      {names[node.id]} [{_DRAWN[node.kind](node)}];" for node in nodes)
            yield "    }"
    yield "  }"


def _hook(node: Node) -> str:
    color = _TINTS[node.table][1]
    shape = f'shape=cds, style=filled, fillcolor="{color}", color="{color}", fontcolor=white, width=1.4'
    shape += ', margin="0.2,0.1"'
    return f"{shape}, label=<<b>{_shown(node.name)}</b>>"


def _dispatcher(node: Node) -> str:
    color = {"drop": _RED, "accept": _GREEN}.get(node.policy, _PALE)
    policy = f'<font color="{color}">policy <b>{_shown(node.policy)}</b></font>'
    label = "<br/>".join([f"<b>{_shown(node.name)}</b>", policy, *_faults(node)])
    return f'style="filled", penwidth=1.4, color="{_RED if node.faults else color}", label=<{label}>{_tooltip(node)}'


def _chain(node: Node) -> str:
    if node.missing:
        label = f'{_shown(node.name)}<br/><font point-size="9">not there</font>'
        return f'style="rounded,dashed", color="{_RED}", fontcolor="{_RED}", label=<{label}>{_tooltip(node)}'
    count = f'<font point-size="9" color="{_PALE}">{counted(node.rules, "rule")}</font>'
    lines = [f"<b>{_shown(node.name)}</b>", count, *_targets(node.targets), *_faults(node)]
    if node.reachable:
        look = f'color="{_RED if node.faults else _LINE}"'
    else:
        look = f'style="rounded,dashed,filled", fillcolor="#f3f4f6", fontcolor="{_PALE}"'
        lines.append(f'<font point-size="9" color="{_AMBER}"><i>unreachable</i></font>')
    return f"{look}, label=<{'<br/>'.join(lines)}>{_tooltip(node)}"


_DRAWN: Final = {"hook": _hook, "dispatcher": _dispatcher, "chain": _chain}


def _targets(targets: Mapping[str, int]) -> list[str]:
    """A line with how many rules have each target, the most common first."""
    most = sorted(targets.items(), key=lambda item: (-item[1], item[0]))
    words = [
        f'<font color="{_VERDICTS.get(name, _PALE)}">{count} {_shown(name).lower()}</font>' for name, count in most[:3]
    ]
    more = sum(count for _, count in most[3:])
    words += [f'<font color="{_PALE}">{more} other</font>'] if more else []
    return [f'<font point-size="9">{" &#183; ".join(words)}</font>'] if words else []


def _faults(node: Node) -> list[str]:
    return [f'<font point-size="9" color="{_RED}">{_shown(fault)}</font>' for fault in node.faults]


def _edge(edge: Edge, names: Mapping[str, str]) -> str:
    looks = {"hook": "penwidth=1.6", "jump": "style=solid", "goto": "style=dashed, arrowhead=empty"}
    label = ""
    if edge.rules:
        more = len(edge.rules) - _NUMBERS_SHOWN
        numbers = ", ".join(map(str, edge.rules[:_NUMBERS_SHOWN])) + (f" +{more}" if more > 0 else "")
        kind = "goto by rule" if edge.kind == "goto" else "rule"
        label = f', label=" {kind}{"s" if len(edge.rules) > 1 else ""} {numbers} "'
    return f"  {names[edge.start]} -> {names[edge.end]} [{looks[edge.kind]}{label}];"


def _shown(text: str) -> str:
    """Text for a label that is like HTML, shortened."""
    plain = _UNWRITABLE.sub("?", whole(text))
    return escape(plain if len(plain) <= _NAME_SHOWN else f"{plain[: _NAME_SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}")


def _tooltip(node: Node) -> str:
    return f", tooltip={_quoted(f'{node.family} {node.table} {node.name}')}"


def _quoted(text: str) -> str:
    """Text for a label in quotes, in which a backslash begins an escape."""
    return '"' + _UNWRITABLE.sub("?", whole(text)).replace("\\", "\\\\").replace('"', '\\"') + '"'
