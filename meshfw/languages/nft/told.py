"""Parts of nft's JSON as a person reads them: nft's own words where they are simple, else the JSON itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_SIGNS: Final = {"==": "", "in": ""}


def told(held: Any) -> str:
    """A statement, a list of statements, or a part of one."""
    if isinstance(held, str):
        return held
    if isinstance(held, list | tuple) and held and all(isinstance(part, Mapping) for part in held):
        return " ".join(map(told, held))
    words = _statement(held) if isinstance(held, Mapping) and held else None
    return _json(held) if words is None else words


def _json(held: Any) -> str:
    return msgspec.json.encode(held).decode()


def _statement(held: Mapping[str, Any]) -> str | None:
    """A statement or condition in words; None where it has more than a few."""
    if set(held) == {"op", "left", "right"}:
        left = _expression(held["left"])
        sign = _SIGNS.get(held["op"], f"{held['op']} ")
        return f"{left} {sign}{_value(held['right'])}"
    if len(held) > 1:
        return _json(held)
    ((kind, body),) = held.items()
    if kind == "match":
        return _statement(body)
    if body is None:
        return kind
    if kind in ("jump", "goto"):
        return f"{kind} {body['target']}"
    if kind == "mangle":
        return f"{_expression(body['key'])} set {_value(body['value'])}"
    if kind == "vmap":
        return f"{_expression(body['key'])} vmap {_value(body['data'])}"
    if kind == "limit" and "per" in body:
        over = "over " if body.get("inv") else ""
        unit = f" {body['rate_unit']}" if body.get("rate_unit", "packets") != "packets" else ""
        return f"limit rate {over}{body['rate']}{unit}/{body['per']}"
    return None


def _expression(held: Any) -> str:
    if not isinstance(held, Mapping) or len(held) != 1:
        return _value(held)
    ((kind, body),) = held.items()
    if kind in ("&", "|", "^", "<<", ">>"):
        return f" {kind} ".join(map(_expression, body))
    if kind == "concat":
        return " . ".join(map(_expression, body))
    if kind == "numgen":
        return f"numgen {body['mode']} mod {body['mod']}"
    if kind == "fib":
        flags = body["flags"]
        return f"fib {' . '.join([flags] if isinstance(flags, str) else flags)} {body['result']}"
    if kind == "payload" and "field" in body:
        return f"{body['protocol']} {body['field']}"
    if kind == "payload":
        return f"@{body['base']},{body['offset']},{body['len']}"
    if kind in ("meta", "ct", "rt") and set(body) <= {"key", "dir"}:
        return " ".join((kind, *([body["dir"]] if "dir" in body else ()), body["key"]))
    if kind in ("tcp option", "exthdr", "ip option") and set(body) <= {"name", "field"}:
        head = () if kind == "exthdr" else (kind,)
        return " ".join((*head, *body.values()))
    return _value(held)


def _value(held: Any) -> str:
    if isinstance(held, str | int) and not isinstance(held, bool):
        return str(held)
    if isinstance(held, list):
        if len(held) == 2 and isinstance(held[1], Mapping):  # of a map: what stands for the key
            return f"{_value(held[0])} : {told(held[1])}"
        return ",".join(map(_value, held))
    if isinstance(held, Mapping) and len(held) == 1:
        ((kind, body),) = held.items()
        if kind == "set" and isinstance(body, list):
            return f"{{ {', '.join(map(_value, body))} }}"
        if kind == "prefix":
            return f"{_value(body['addr'])}/{body['len']}"
        if kind == "range":
            return "-".join(map(_value, body))
        if kind in ("payload", "meta", "ct", "rt", "concat"):
            return _expression(held)
    return _json(held)
