"""Small meshes for the tests: objects of Kubernetes, the rules they make, and what those rules are hook by hook."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from meshfw_kilo.objects import parse_objects
from meshfw_kilo.options import Firewall, Mesh
from meshfw_kilo.rules import ruleset_of
from meshfw_kilo.topology import Topology, topology_of

from meshfw import (
    Chain,
    ChainKey,
    Family,
    Hook,
    Jump,
    Language,
    Network,
    Rule,
    Ruleset,
    SetRef,
    Table,
    builtin_extensions,
    format_rule,
    parse_dump,
)
from meshfw.model import format_address

NOW: Final = 1_700_000_000
LANGUAGE: Final = Language.of(builtin_extensions())
KEY: Final = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
FULL: Final = os.environ.get("HYPOTHESIS_PROFILE") == "full"
Objects = list[dict[str, Any]]


def key_of(number: int) -> str:
    """A WireGuard key of its own for each number."""
    return base64.b64encode((number + 1).to_bytes(32, "big")).decode()


def node_object(name: str = "n1", *, spec: Any = None, labels: Any = None, **annotations: str) -> dict[str, Any]:
    """A Node with Kilo's annotations; underscores stand for dashes."""
    held = {f"kilo.squat.ai/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": held, "labels": labels or {}},
        "spec": {"podCIDR": "10.42.0.0/24"} if spec is None else spec,
    }


def ready_node(name: str, pods: str, internal: str = "", *, at: int = NOW, **more: Any) -> dict[str, Any]:
    """A Node that counts, private unless told otherwise."""
    endpoint = more.pop("endpoint", "192.168.1.1:51820")
    found = {"internal_ip": internal, "endpoint": endpoint, "key": KEY, "last_seen": str(at)}
    return node_object(name, spec={"podCIDR": pods}, **found, **more)


def peer_object(name: str = "p1", **spec: Any) -> dict[str, Any]:
    """A Peer, valid unless told otherwise."""
    return {
        "apiVersion": "kilo.squat.ai/v1alpha1",
        "kind": "Peer",
        "metadata": {"name": name},
        "spec": {"allowedIPs": ["10.5.0.1/32"], "publicKey": KEY} | spec,
    }


def large_mesh(nodes: int, *, locations: int = 4) -> Objects:
    """That many Nodes in some locations, and three Peers."""
    found = [
        ready_node(
            f"n{number:03}",
            f"10.{64 + number // 256}.{number % 256}.0/24",
            f"10.1.{number // 250}.{number % 250 + 1}/16",
            location=f"dc{number % locations}",
            endpoint=f"203.0.113.{number % 250 + 1}:51820",
        )
        for number in range(nodes)
    ]
    peers = [
        peer_object(f"p{number}", publicKey=key_of(number), allowedIPs=[f"10.5.0.{number}/32"]) for number in (1, 2, 3)
    ]
    return [*found, *peers]


def seen(objects: Iterable[Mapping[str, Any]], node: str, mesh: Mesh | None = None, *, now: int = NOW) -> Topology:
    """The topology of some objects as a node sees it."""
    return topology_of(parse_objects(objects), node, mesh or Mesh(), now=now)


def rules(objects: Iterable[Mapping[str, Any]], node: str, options: Firewall | None = None, **mesh: Any) -> Ruleset:
    """A node's rules."""
    return ruleset_of(seen(objects, node, Mesh(**mesh)), options or Firewall(), language=LANGUAGE)


def lines(ruleset: Ruleset, family: Family, chain: str) -> list[str]:
    """The rules of a chain as iptables-save has them."""
    table = Table.NAT if chain in ("KILO-NAT", "KILO-POSTROUTING") else Table.FILTER
    held = ruleset.chain(ChainKey(family, table, chain))
    return [] if held is None else [format_rule(rule, family=family, language=LANGUAGE) for rule in held.rules]


# --- hook by hook ------------------------------------------------------------------------------------------

Flat = tuple[tuple[Rule, ...], Rule]
"""A rule, without the chain it may jump to, and the conditions of the jumps that lead to it."""
Hooks = dict[tuple[Family, Table, Hook], list[Flat]]


def flat_ruleset(ruleset: Ruleset) -> Hooks:
    """The rules that packets meet on each hook, jumps followed and sets taken apart."""
    chains = {chain.key: chain for chain in ruleset.chains}
    elements = {(entry.family, entry.name): entry.elements for entry in ruleset.sets}
    hooks: Hooks = {}
    for item in ruleset.attachments:
        chain = chains[ChainKey(item.family, item.table, item.chain)]
        found = hooks.setdefault((item.family, item.table, item.hook), [])
        found += _followed(chain, chains, elements, ())
    return hooks


def flat_save(text: str, family: Family) -> Hooks:
    """The same, of what iptables-save printed; jumps that only lead somewhere, and marks, are left out."""
    dump = parse_dump(text, family=family, language=LANGUAGE)
    chains = {
        ChainKey(family, table.table, chain.name): Chain(
            family=family, table=table.table, name=chain.name, rules=tuple(entry.rule for entry in chain.rules)
        )
        for table in dump.tables
        for chain in table.chains
    }
    hooks = {}
    for key, chain in chains.items():
        if key.name in {hook.upper() for hook in Hook}:
            found = list(_followed(chain, chains, {}, ()))
            if found:
                hooks[family, key.table, Hook(key.name.lower())] = found
    return hooks


def _followed(
    chain: Chain, chains: Mapping[ChainKey, Chain], sets: Mapping[Any, Any], way: tuple[Rule, ...]
) -> Iterator[Flat]:
    for whole in chain.rules:
        for rule in _apart(whole, chain.family, sets):
            if rule.target is None and rule.comment.startswith("meshfw:"):
                continue
            if not isinstance(rule.target, Jump):
                yield way, rule
                continue
            there = chains[ChainKey(chain.family, chain.table, rule.target.chain)]
            condition = msgspec.structs.replace(rule, target=None)
            if condition == Rule():
                yield from _followed(there, chains, sets, way)
            else:
                yield way, condition
                yield from _followed(there, chains, sets, (*way, condition))


def _apart(rule: Rule, family: Family, sets: Mapping[Any, Any]) -> Iterator[Rule]:
    """The rule, or one for each element of the set that it names."""
    for field in ("source", "destination"):
        held = getattr(rule, field)
        if isinstance(held, SetRef):
            for low, high in sets[family, held.name]:
                length = family.bits - (high - low + 1).bit_length() + 1
                network = Network.parse(f"{format_address(low, family)}/{length}")
                assert network.last == high
                yield msgspec.structs.replace(rule, **{field: network})
            return
    yield rule


def counted(hooks: Hooks) -> dict[Any, Counter[Flat]]:
    """How often each rule is met on each hook, whatever the order."""
    return {key: Counter(found) for key, found in hooks.items()}


def assert_in_order(hooks: Hooks) -> None:
    """What the order of Kilo's rules must keep: what is excepted from NAT before NAT, IPIP's jump before its drop."""
    for (family, table, hook), found in hooks.items():
        comments = [rule.comment for _, rule in found]
        if (table, hook) == (Table.NAT, Hook.POSTROUTING):
            for way in {way for way, _ in found if way}:
                inside = [rule.comment for held, rule in found if held == way]
                assert inside.index("Kilo: NAT remaining packets") == len(inside) - 1, family
        if (table, hook) == (Table.FILTER, Hook.INPUT) and "Kilo: jump to IPIP chain" in comments:
            assert comments.index("Kilo: jump to IPIP chain") < comments.index("Kilo: reject other IPIP traffic")


def without(hooks: Hooks, comment: str) -> Hooks:
    """The hooks without the rules of that comment."""
    return {key: [flat for flat in found if flat[1].comment != comment] for key, found in hooks.items()}


# --- what Kilo itself made ---------------------------------------------------------------------------------


def recorded(beside: str) -> Path:
    """A directory of what Kilo itself made, if this machine has one; else the test is skipped."""
    named = os.environ.get("MESHFW_KILO_GOLDEN", "")
    places = [Path(named)] if named else [parent / "shared/kilo/golden" for parent in Path(beside).resolve().parents]
    found = next((place for place in places if (place / "examples.json").is_file()), None)
    if found is None:
        pytest.skip("no rules made by Kilo itself here; MESHFW_KILO_GOLDEN names their directory")
    return found
