"""An nft rule over sets and verdict maps as several rules without: one for each element.

A packet is in one element of a set at most, so it meets at most one of the rules, and a verdict, a jump or a statement
that goes on does what it did in the one rule. What counts, remembers or draws lots can't be repeated, and a mark that
the rule itself changes, or the chain that it jumps to, could be in two elements, one after the other: such rules are
left as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final

Statement = Mapping[str, Any]

MOST: Final = 4096
"""The most rules that one may become."""
_COUNTING: Final = frozenset({"limit", "meter", "quota", "set", "map", "ct count", "last", "connlimit"})
_CHANGEABLE: Final = frozenset(
    {"mark", "priority", "label", "zone", "helper", "dscp", "ecn", "tos", "ttl", "hoplimit", "size"}
)
"""Keys and fields that the rules of a chain may change before a packet comes back from it."""
_ENDS: Final = frozenset({"accept", "drop", "return", "goto", "reject"})


def unfolded(
    statements: Sequence[Statement], sets: Mapping[str, Sequence[Any]], *, ports: bool
) -> list[list[Statement]]:
    """The rules that together mean the one; itself alone where there is nothing to unfold, or no way.

    ``sets`` are the elements of the table's named sets that nothing but its owner changes. Without ``ports`` a set of
    ports stays one, its elements in place of its name, as multiport may hold it.
    """
    ways = [_ways(statement, sets, ports=ports) for statement in statements]
    if prod(len(found) for found in ways) > MOST or not _repeatable(statements):
        return [list(statements)]
    return [[part for parts in chosen for part in parts] for chosen in product(*ways)]


def _repeatable(statements: Sequence[Statement]) -> bool:
    kinds = {kind for statement in statements for kind in statement}
    if kinds & _COUNTING or any(map(draws, statements)):
        return False
    mangled = [statement["mangle"]["key"] for statement in statements if "mangle" in statement]
    if not kinds & _ENDS and not all(_looks_at(key, _CHANGEABLE) for key in mangled):
        return False
    changing = bool(mangled and not kinds & _ENDS) or any(_jumps(statement) for statement in statements)
    return not changing or not any(map(_changeable, statements))


def draws(held: Any) -> bool:
    """Whether the number of a packet or chance has a part in a statement: asked again, it answers otherwise."""
    if isinstance(held, Mapping):
        return "numgen" in held or held.get("key") == "random" or any(map(draws, held.values()))
    return isinstance(held, list) and any(map(draws, held))


def _jumps(statement: Statement) -> bool:
    """Whether a packet may come back from the chain that the statement leads to."""
    vmap = statement.get("vmap")
    data = vmap["data"] if isinstance(vmap, Mapping) else None
    held = data.get("set", ()) if isinstance(data, Mapping) else ()
    return "jump" in statement or any("jump" in verdict for _, verdict in held)


def _changeable(statement: Statement) -> bool:
    """Whether a statement chooses between several values of what a chain may change."""
    match, vmap = statement.get("match"), statement.get("vmap")
    if isinstance(vmap, Mapping):
        return _looks_at(vmap["key"], _CHANGEABLE)
    if not isinstance(match, Mapping) or not _several(match["right"]):
        return False
    return _looks_at(match["left"], _CHANGEABLE)


def _several(right: Any) -> bool:
    return (isinstance(right, Mapping) and "set" in right) or (isinstance(right, str) and right.startswith("@"))


def _looks_at(held: Any, names: Collection[str]) -> bool:
    """Whether an expression looks at a key or field of these names, or at a place that may be one."""
    if isinstance(held, Mapping):
        if "base" in held and "offset" in held:
            return True
        told = (held.get("key"), held.get("field"))
        return any(isinstance(name, str) and name in names for name in told) or _looks_at(list(held.values()), names)
    return isinstance(held, list) and any(_looks_at(part, names) for part in held)


def _ways(statement: Statement, sets: Mapping[str, Sequence[Any]], *, ports: bool) -> list[list[Statement]]:
    """What stands in a statement's place in each of the rules."""
    match = statement.get("match")
    if isinstance(match, Mapping):
        elements = _elements(match["right"], sets)
        if elements is None or match["op"] not in ("==", "in"):
            return [[statement]]
        if not ports and _on_ports(match["left"]):
            return [[{"match": {**match, "right": {"set": list(elements)}}}]]
        return [[{"match": {**match, "right": element}}] for element in elements]
    vmap = statement.get("vmap")
    if isinstance(vmap, Mapping) and isinstance(vmap["data"], Mapping) and "set" in vmap["data"]:
        op = "in" if vmap["key"] == {"ct": {"key": "state"}} else "=="
        return [
            [{"match": {"op": op, "left": vmap["key"], "right": element}}, verdict]
            for element, verdict in vmap["data"]["set"]
        ]
    return [[statement]]


def _on_ports(left: Any) -> bool:
    payload = left.get("payload") if isinstance(left, Mapping) else None
    return isinstance(payload, Mapping) and payload.get("field") in ("sport", "dport")


def _elements(right: Any, sets: Mapping[str, Sequence[Any]]) -> Sequence[Any] | None:
    """The elements of a condition's right side; None where it's no set, or one that others may change."""
    if isinstance(right, str) and right.startswith("@"):
        return sets.get(right[1:])
    if isinstance(right, Mapping) and "set" in right:
        held = list(right["set"])
        return None if any(isinstance(item, Mapping) and "elem" in item for item in held) else held
    return None


def fixed_elements(body: Mapping[str, Any]) -> Sequence[Any] | None:
    """The elements of a declared set (libnftables-json(5), SET); None where packets or time change them."""
    if "timeout" in body or set(_flags(body)) - {"constant", "interval"}:
        return None
    held = body.get("elem", [])
    return None if any(isinstance(item, Mapping) and "elem" in item for item in held) else held


def _flags(body: Mapping[str, Any]) -> Iterator[str]:
    flags = body.get("flags", [])
    yield from [flags] if isinstance(flags, str) else flags
