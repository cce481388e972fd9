"""What nft lists of our tables, as snapshots: JSON read by meaning, and text compared with what was just written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.backends.layout import base_chain, dispatcher_of, logical_chain, logical_set, names_in
from meshfw.errors import ModelError
from meshfw.extensions.language import Language
from meshfw.kernel.netlink import NfChain
from meshfw.languages.nft import FAMILIES, UnreadableError, read_rule, reads_whole
from meshfw.model import (
    ChainKey,
    ElementType,
    Family,
    Policy,
    Rule,
    Set,
    SetKey,
    parse_address,
)
from meshfw.snapshot import ListKey, ObservedList, ObservedRule

_FAMILY: Final = {name: family for family, name in FAMILIES.items()}
POLICIES: Final = {
    "accept": frozenset({Policy.ACCEPT, Policy.RETURN}),
    "drop": frozenset({Policy.DROP}),
}
"""What a base chain's policy may be taken for: nft can't tell ``return`` from ``accept``."""
_RULE: Final = re.compile(r"^\t\t(.*?)counter packets (\d+) bytes (\d+)(.*) # handle (\d+)$", re.MULTILINE)
_CHAIN: Final = re.compile(r"^\tchain (\S+) \{[^\n]*\n", re.MULTILINE)
_END: Final = "\n\t}\n"
_LINE: Final = "\n\t\t"
_HEADER: Final = "\t\ttype "


class Listing:
    """What one reading found so far, or why a family's table can't be mended by edits."""

    def __init__(self) -> None:
        self.lists: dict[ListKey, ObservedList] = {}
        self.sets: dict[SetKey, Set] = {}
        self.broken: dict[Family, str] = {}


def list_key(family: Family, name: str) -> ListKey | None:
    """The list whose nft chain has the name; None for one that isn't ours."""
    dispatcher = dispatcher_of(family, name)
    if dispatcher is not None:
        return dispatcher
    found = logical_chain(name)
    return None if found is None else ChainKey(family, *found)


def chain_state(chain: NfChain, family: Family) -> tuple[ListKey, frozenset[Policy]] | str:
    """A chain of our table as a list and its policies, or why it is none of ours."""
    key = list_key(family, chain.name)
    if key is None:
        return f"chain {chain.name} is not one of meshfw's"
    if isinstance(key, ChainKey):
        return (key, frozenset()) if chain.hook is None else f"chain {chain.name} was attached to a hook"
    wanted = base_chain(key)
    if (chain.type, chain.hook_name, chain.priority) != (wanted.type, wanted.hook, wanted.priority):
        return f"chain {chain.name} was moved to another hook or priority"
    return key, POLICIES[chain.policy or "accept"]


# --- text --------------------------------------------------------------------------------------------------


class Expected(msgspec.Struct, frozen=True):
    """The texts and rules that a list was left with by our own commit."""

    texts: Sequence[str]
    rules: Sequence[Rule]


def prove(body: str, expected: Expected) -> tuple[ObservedRule, ...] | None:
    """The rules of a listed chain's body if they are, line by line, the expected ones; None where any differs."""
    found = _RULE.findall(body)
    lines = body.count(_LINE) + body.startswith("\t\t")
    if body.startswith(_HEADER):
        lines -= 1
    if len(found) != lines or len(found) != len(expected.rules):
        return None
    proven = []
    for (head, packets, octets, tail, handle), text, rule in zip(found, expected.texts, expected.rules, strict=True):
        if f"{head}counter{tail}" != text:
            return None
        proven.append(ObservedRule(rule, text, int(packets), int(octets), int(handle)))
    return tuple(proven)


def chain_bodies(listing: str) -> dict[str, str]:
    """The bodies of the chains in a text listing of one table, by nft name."""
    bodies = {}
    for found in _CHAIN.finditer(listing):
        end = listing.find(_END, found.end() - 1)
        bodies[found[1]] = listing[found.end() : end + 1]
    return bodies


# --- JSON --------------------------------------------------------------------------------------------------


class JsonReader:
    """Reads nft's JSON (libnftables-json(5)) of our tables into a listing, everything by meaning."""

    def __init__(self, listing: Listing, *, language: Language) -> None:
        self._listing = listing
        self._language = language

    def rules(self, text: str) -> dict[ListKey, tuple[ObservedRule, ...]]:
        """The rules of every chain in the output, sets read along the way."""
        found: dict[ListKey, list[ObservedRule]] = {}
        for entry in msgspec.json.decode(text)["nftables"]:
            ((kind, body),) = entry.items()
            if kind == "rule":
                self._rule(body, found)
            elif kind == "set":
                self._set(body)
            elif kind not in ("metainfo", "table", "chain"):
                self._foreign(body, f"{kind} {body.get('name', '')} is not one of meshfw's")
        return {key: tuple(rules) for key, rules in found.items()}

    def _foreign(self, body: Mapping[str, Any], reason: str) -> None:
        self._listing.broken.setdefault(_FAMILY[body["family"]], reason)

    def _rule(self, body: Mapping[str, Any], found: dict[ListKey, list[ObservedRule]]) -> None:
        family = _FAMILY[body["family"]]
        key = list_key(family, body["chain"])
        if key is None:
            return  # its chain is reported already
        found.setdefault(key, []).append(observed_rule(body, key, self._language))

    def _set(self, body: Mapping[str, Any]) -> None:
        family = _FAMILY[body["family"]]
        name = logical_set(body["name"])
        try:
            entry = None if name is None else _read_set(body, family, name)
        except (ModelError, KeyError, TypeError, ValueError):
            entry = None
        if entry is None:
            self._foreign(body, f"set {body['name']} is not one that meshfw makes")
        else:
            self._listing.sets[(family, entry.name)] = entry


def observed_rule(body: Mapping[str, Any], key: ListKey, language: Language) -> ObservedRule:
    """What a rule of nft's JSON means in a list."""
    packets, octets = _counter(body["expr"])
    text = ""
    rule: Rule | None = None
    try:
        _check_counter(body["expr"], language)
        rule = read_rule(
            body["expr"],
            family=key.family,
            language=language,
            names=names_in(key.table),
            comment=body.get("comment", ""),
        )
    except UnreadableError as error:
        text = str(error)
    return ObservedRule(rule, text, packets, octets, body["handle"])


def _check_counter(statements: Sequence[Mapping[str, Any]], language: Language) -> None:
    """Refuse a rule that doesn't count, or that counts packets which a later condition lets go: none is ours.

    A condition may be part of the target: a packet that doesn't meet it has met the rule, and goes on.
    """
    names = [next(iter(statement)) for statement in statements]
    behind = names.index("counter") + 1 if names.count("counter") == 1 else 0
    if not behind or ({"match", "limit"} & set(names[behind:]) and not reads_whole(statements[behind:], language)):
        raise UnreadableError("its counter is missing or stands before a condition")


def _counter(statements: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    for statement in statements:
        held = statement.get("counter")
        if isinstance(held, Mapping):
            return int(held.get("packets", 0)), int(held.get("bytes", 0))
    return 0, 0


_TYPES: Final = {
    ("ipv4_addr", Family.IPV4): ElementType.ADDRESS,
    ("ipv6_addr", Family.IPV6): ElementType.ADDRESS,
    ("inet_service", Family.IPV4): ElementType.PORT,
    ("inet_service", Family.IPV6): ElementType.PORT,
}
_KNOWN: Final = frozenset({"family", "name", "table", "handle", "type", "flags", "elem"})


def _read_set(body: Mapping[str, Any], family: Family, name: str) -> Set | None:
    """The set; None for one with timeouts, limits, maps or counters, which we never make."""
    kind = _TYPES.get((body["type"], family)) if isinstance(body["type"], str) else None
    flags = body.get("flags", [])
    if kind is None or set(body) - _KNOWN or set(flags) - {"interval"}:
        return None
    bounds = sorted(_bounds(element, kind) for element in body.get("elem", ()))
    return Set(family=family, name=name, type=kind, intervals="interval" in flags, elements=tuple(bounds))


def _bounds(element: Any, kind: ElementType) -> tuple[int, int]:
    if isinstance(element, Mapping):
        ((form, held),) = element.items()
        if form == "range":
            return _number(held[0], kind), _number(held[1], kind)
        if form != "prefix":
            raise ValueError(element)
        family, low = parse_address(held["addr"])
        return low, low | ((1 << (family.bits - held["len"])) - 1)
    value = _number(element, kind)
    return value, value


def _number(text: Any, kind: ElementType) -> int:
    return int(text) if kind is ElementType.PORT else parse_address(text)[1]
