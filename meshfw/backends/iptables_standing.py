"""What stands of an owner's in iptables' tables, as a digest that any process gives alike: for lasting proofs."""

from __future__ import annotations

import hashlib
from typing import Any

from meshfw.backends.iptables_listing import is_placed
from meshfw.backends.iptables_raw import Look, RawTable
from meshfw.backends.layout import TableKey, iptables_dispatcher
from meshfw.backends.standing import hashed
from meshfw.model import DispatcherKey


def look_digest(look: Look) -> str:
    """The digest of a reading of iptables' tables, counters and others' rules left out.

    Of a built-in chain it has how many jumps lead to each chain of the owner's, and whether a dispatcher's stands at
    its place: others come and go between.
    """
    return hashed([(key, _table(key, look.tables[key])) for key in sorted(look.tables) if _is_used(look.tables[key])])


def _is_used(table: RawTable) -> bool:
    return bool(table.chains or table.taken)


def _table(key: TableKey, table: RawTable) -> tuple[Any, ...]:
    chains = []
    for name in sorted(table.chains):
        digest = hashlib.sha256()
        for rule in table.chains[name]:
            digest.update(len(rule.body).to_bytes(4, "big") + rule.body)
        jumps = [(hook, held.count(name)) for hook, held in sorted(table.jumps.items()) if name in held]
        chains.append((_bytes(name), len(table.chains[name]), digest.hexdigest(), jumps, _placed(key, name, table)))
    hidden = sorted((_bytes(chain), hook, handles) for (chain, hook), handles in table.hidden.items())
    return (chains, hidden, sorted(map(_bytes, table.taken)), table.dormant)


def _placed(key: TableKey, name: str, table: RawTable) -> bool:
    found = iptables_dispatcher(name)
    if found is None:
        return False
    _, hook, place = found
    return is_placed(DispatcherKey(*key, hook, place), name, table.jumps.get(hook, ()))


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
