"""What stands of an owner's in the kernel, as a digest that any process gives alike: for proofs that outlast one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from meshfw.backends.iptables_listing import is_placed
from meshfw.backends.iptables_raw import Look, RawTable
from meshfw.backends.layout import TableKey, iptables_dispatcher
from meshfw.kernel.netns import Namespace
from meshfw.model import DispatcherKey


def sealed(told: str, namespace: Namespace, *parts: Any, files: Iterable[str | None]) -> str:
    """A digest for good: what was told of the kernel, where, with what else it depends on, and which files read it.

    A tool or library that is replaced is another one by its inode, size or time of change.
    """
    return _hashed((told, namespace, parts, [_identity(path) for path in files]))


def _identity(path: str | None) -> tuple[Any, ...]:
    try:
        status = os.stat(path or "")
    except OSError:
        return (os.fsencode(path or ""),)
    return (os.fsencode(os.path.realpath(path or "")), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def mapped_files(stem: str) -> tuple[str, ...]:
    """The files of a library, and those that are named alike, as this process has them loaded (proc_pid_maps(5))."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            paths = {line.split(maxsplit=5)[5].rstrip("\n") for line in file if stem in line}
    except OSError:
        return ()
    return tuple(sorted(path for path in paths if os.path.basename(path).startswith(stem)))


def look_digest(look: Look) -> str:
    """The digest of a reading of iptables' tables, counters and others' rules left out.

    Of a built-in chain it has how many jumps lead to each chain of the owner's, and whether a dispatcher's stands at
    its place: others come and go between.
    """
    return _hashed([(key, _table(key, look.tables[key])) for key in sorted(look.tables) if _is_used(look.tables[key])])


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


def _hashed(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
