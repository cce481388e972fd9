"""Lists of rules as text: in the manner of iptables-save, in nft's language, and as data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshfw.backend import Unsupported
from meshfw.backends.layout import base_chain, names_in, nft_set
from meshfw.backends.nft_text import chain_name, set_type
from meshfw.cli.output import one_line
from meshfw.errors import InexpressibleError, UnsupportedError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.languages.nft import FAMILIES, render_rule
from meshfw.model import ChainKey, DispatcherKey, Family, Policy, Ruleset, Set, Table
from meshfw.plan import Formatter
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot


def as_snapshot(ruleset: Ruleset) -> Snapshot:
    """The snapshot of a kernel that holds the ruleset."""
    lists: dict[ListKey, ObservedList] = {}
    for chain in ruleset.chains:
        lists[chain.key] = ObservedList(chain.key, tuple(map(ObservedRule, chain.rules)))
    for dispatcher in ruleset.dispatchers():
        rules = tuple(map(ObservedRule, dispatcher.rules))
        lists[dispatcher.key] = ObservedList(dispatcher.key, rules, frozenset({dispatcher.policy}))
    return Snapshot(lists, {(entry.family, entry.name): entry for entry in ruleset.sets})


def _families(snapshot: Snapshot) -> list[Family]:
    held = {key.family for key in snapshot.lists} | {key[0] for key in snapshot.sets}
    return [family for family in Family if family in held]


def _lists(snapshot: Snapshot, family: Family) -> list[ObservedList]:
    """The dispatchers and then the chains of a family, each in the order of their names."""
    held = [item for key, item in snapshot.lists.items() if key.family is family]
    return sorted(held, key=lambda item: (isinstance(item.key, ChainKey), str(item.key)))


def _sets(snapshot: Snapshot, family: Family) -> list[Set]:
    return [snapshot.sets[key] for key in sorted(snapshot.sets) if key[0] is family]


def _list_name(key: ListKey) -> str:
    """A chain's name, or a dispatcher's hook and place, which no chain is called."""
    return f"{key.hook}/{key.place}" if isinstance(key, DispatcherKey) else key.name


# --- in the manner of iptables-save ------------------------------------------------------------------------


def iptables_text(snapshot: Snapshot, formatter: Formatter) -> str:
    """Each family's tables; a dispatcher stands as a chain named by hook and place, a set as a comment."""
    lines: list[str] = []
    for family in _families(snapshot):
        lines.append(f"# {family}")
        for entry in _sets(snapshot, family):
            elements = ", ".join(entry.text(low, high) for low, high in entry.elements)
            lines.append(f"# set {entry.name}: {entry.type} {{ {elements} }}")
        for table in Table:
            held = [item for item in _lists(snapshot, family) if item.key.table is table]
            if held:
                lines += [f"*{table}", *(f":{_list_name(item.key)} {_policy(item)}" for item in held)]
                lines += [one_line(line) for item in held for line in _iptables_rules(item, formatter)]
                lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _policy(held: ObservedList) -> str:
    names = sorted(policy.upper() for policy in held.policies if policy is not Policy.RETURN)
    return "/".join(names) if names and Policy.RETURN not in held.policies else "-"


def _iptables_rules(held: ObservedList, formatter: Formatter) -> Iterator[str]:
    name = _list_name(held.key)
    for entry in held.rules:
        if entry.rule is None:
            yield f"# in {name}, not a rule of meshfw: {entry.text}"
            continue
        counted = f"[{entry.packets}:{entry.bytes}] " if entry.packets or entry.bytes else ""
        yield f"{counted}-A {name} {formatter(entry.rule, held.key.family)}".rstrip()


# --- in nft's language -------------------------------------------------------------------------------------


def nft_text(snapshot: Snapshot, *, owner: str, language: Language) -> str:
    """Each family's table, as the nft backend lays it out.

    Raises:
        UnsupportedError: rules that nft has no way to say.
    """
    refused: list[Unsupported] = []
    lines: list[str] = []
    for family in _families(snapshot):
        lines.append(f"table {FAMILIES[family]} {owner} {{")
        for entry in _sets(snapshot, family):
            lines += _nft_set(entry)
        for held in _lists(snapshot, family):
            lines += [f"\tchain {chain_name(held.key)} {{"]
            if isinstance(held.key, DispatcherKey):
                policy = "drop" if held.policies == {Policy.DROP} else "accept"
                lines.append(f"\t\t{base_chain(held.key)} policy {policy};")
            lines += [f"\t\t{line}" for line in _nft_rules(held, language, refused)]
            lines.append("\t}")
        lines.append("}")
    if refused:
        raise UnsupportedError("nft", refused)
    return "".join(f"{line}\n" for line in lines)


def _nft_set(entry: Set) -> Iterator[str]:
    yield f"\tset {nft_set(entry.name)} {{"
    yield f"\t\ttype {set_type(entry)}"
    if entry.intervals:
        yield "\t\tflags interval"
    if entry.elements:
        yield f"\t\telements = {{ {', '.join(entry.text(low, high) for low, high in entry.elements)} }}"
    yield "\t}"


def _nft_rules(held: ObservedList, language: Language, refused: list[Unsupported]) -> Iterator[str]:
    names = names_in(held.key.table)
    for index, entry in enumerate(held.rules, 1):
        if entry.rule is None:
            yield f"# not a rule of meshfw: {entry.text}"
            continue
        try:
            text = render_rule(entry.rule, family=held.key.family, language=language, names=names)
        except InexpressibleError as error:
            shown = format_rule(entry.rule, family=held.key.family, language=language)
            refused.append(Unsupported(f"{held.key}, rule {index}", error.reason, shown))
            continue
        yield text.counting_from(entry.packets, entry.bytes) if entry.packets else str(text)


# --- as data -----------------------------------------------------------------------------------------------


def listing_data(snapshot: Snapshot, formatter: Formatter) -> dict[str, Any]:
    """The same for programs: for each family its sets, chains and dispatchers with rules and counters."""
    return {family.value: _family_data(snapshot, family, formatter) for family in _families(snapshot)}


def _family_data(snapshot: Snapshot, family: Family, formatter: Formatter) -> dict[str, Any]:
    sets = [
        {
            "name": entry.name,
            "type": entry.type,
            "elements": [entry.text(low, high) for low, high in entry.elements],
        }
        for entry in _sets(snapshot, family)
    ]
    data: dict[str, Any] = {"sets": sets, "dispatchers": [], "chains": []}
    for held in _lists(snapshot, family):
        rules = [
            {
                "rule": None if entry.rule is None else formatter(entry.rule, family),
                **({"text": entry.text} if entry.rule is None else {}),
                "packets": entry.packets,
                "bytes": entry.bytes,
            }
            for entry in held.rules
        ]
        if isinstance(held.key, ChainKey):
            data["chains"].append({"table": held.key.table, "name": held.key.name, "rules": rules})
        else:
            key, policies = held.key, sorted(held.policies)
            place = {"table": key.table, "hook": key.hook, "place": key.place}
            data["dispatchers"].append({**place, "policy": policies, "rules": rules})
    return data
