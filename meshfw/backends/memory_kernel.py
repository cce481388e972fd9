"""The kernel of the memory backend: text in this process, changed only by running lines on it.

The language is that of iptables-restore(8) and ipset(8), so what is stored is itself the script that would make it.
A rule may refer only to chains and sets that are there, and what is referred to can't be removed, as in a kernel.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from meshfw.backend import Event
from meshfw.errors import BackendError, ConcurrentChangeError
from meshfw.languages.lexer import split
from meshfw.model import Family, Table

NAME: Final = "memory"

_COUNTED: Final = re.compile(r"(?:\[(\d+):(\d+)\] )?(-[AI]) (\S+)(?: (.*))?\Z")
_COUNTERS: Final = re.compile(r"\[\d+:\d+\] ?")
_OWNED: Final = re.compile(r"[a-z][a-z0-9]*[:/]")
StoredRule = tuple[int, int, str]
"""A stored rule: packets, bytes, text."""


class _Chain:
    """A stored chain: its policy word (``-`` for none) and its rules."""

    __slots__ = ("policy", "rules")

    def __init__(self, policy: str, rules: list[StoredRule] | None = None) -> None:
        self.policy = policy
        self.rules = rules or []


class Document:
    """What one family's text says: sets, and tables of chains. Running lines on it is the only way to change it."""

    __slots__ = ("_table", "sets", "tables")

    def __init__(self, text: str = "") -> None:
        self.sets: dict[str, tuple[str, list[str]]] = {}
        self.tables: dict[str, dict[str, _Chain]] = {}
        self._table: str | None = None
        self.run(text)

    def __str__(self) -> str:
        lines: list[str] = []
        for name, (kind, elements) in self.sets.items():
            lines += [f"create {name} {kind}", *(f"add {name} {element}" for element in elements)]
        for table, chains in self.tables.items():
            lines += [f"*{table}", *(f":{name} {chain.policy} [0:0]" for name, chain in chains.items())]
            for name, chain in chains.items():
                for packets, octets, text in chain.rules:
                    counted = f"[{packets}:{octets}] " if packets or octets else ""
                    lines.append(f"{counted}-A {name} {text}".rstrip())
            lines.append("COMMIT")
        return "".join(f"{line}\n" for line in lines)

    def run(self, text: str) -> None:
        """Carry out lines; BackendError names the line that can't be, and then the document is worth nothing."""
        for number, line in enumerate(text.split("\n"), 1):
            try:
                if line and not line.startswith("#"):
                    self._run(line)
            except (BackendError, ValueError, KeyError) as error:
                reason = error.reason if isinstance(error, BackendError) else "it can't be understood"
                raise BackendError(f"line {number}, {line!r}: {reason}", backend=NAME) from None
        if self._table is not None:
            raise BackendError(f"table {self._table} has no COMMIT", backend=NAME)

    def _run(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if self._table is None:
            if line.startswith("*"):
                self._table = Table(line[1:]).value
                self.tables.setdefault(self._table, {})
            else:
                self._outside[word](self, *rest.split(" "))
        elif line == "COMMIT":
            if not self.tables[self._table]:
                del self.tables[self._table]
            self._table = None
        elif counted := _COUNTED.match(line):
            self._put(counted, self.tables[self._table])
        elif line.startswith(":"):
            self._declare(self.tables[self._table], *line[1:].split(" "))
        else:
            self._inside[word](self, self.tables[self._table], *rest.split(" "))

    # --- sets ---

    def _create(self, name: str, *kind: str) -> None:
        _refuse(name in self.sets, f"set {name} is there already")
        self.sets[name] = (" ".join(kind), [])

    def _add(self, name: str, element: str) -> None:
        _refuse(name not in self.sets, f"there is no set {name}")
        _refuse(element in self.sets[name][1], f"{element} is in the set already")
        self.sets[name][1].append(element)

    def _del(self, name: str, element: str) -> None:
        _refuse(name not in self.sets or element not in self.sets[name][1], f"{element} is not in set {name}")
        self.sets[name][1].remove(element)

    def _destroy(self, name: str) -> None:
        _refuse(name not in self.sets, f"there is no set {name}")
        _refuse(self._used(f"@{name}"), f"set {name} is in use")
        del self.sets[name]

    def _forget(self, owner: str) -> None:
        """Everything of an owner goes at once, whatever state it is in."""
        self.sets = {name: held for name, held in self.sets.items() if not name.startswith(f"{owner}:")}
        for table, chains in list(self.tables.items()):
            left = {name: held for name, held in chains.items() if not owned(name, owner)}
            self.tables[table] = left
            if not left:
                del self.tables[table]

    # --- chains ---

    def _declare(self, chains: dict[str, _Chain], name: str, policy: str, _counters: str) -> None:
        """Make a chain, or set the policy of one that is there."""
        if name in chains:
            _refuse(policy == "-", f"chain {name} is there already")
            chains[name].policy = policy
        else:
            chains[name] = _Chain(policy)

    def _put(self, counted: re.Match[str], chains: Mapping[str, _Chain]) -> None:
        """``-A CHAIN RULE`` or ``-I CHAIN POSITION RULE``, with or without counters before it."""
        packets, octets, command, name, text = counted.groups()
        text = text or ""
        _refuse(name not in chains, f"there is no chain {name}")
        rules = chains[name].rules
        position = len(rules)
        if command == "-I":
            number, _, text = text.partition(" ")
            position = int(number) - 1
            _refuse(not 0 <= position <= len(rules), f"chain {name} has {len(rules)} rules")
        for kind, referred in _references(text):
            known = self.sets if kind == "set" else chains
            _refuse(referred not in known and bool(_OWNED.match(referred)), f"there is no {kind} {referred}")
        rules.insert(position, (int(packets or 0), int(octets or 0), text))

    def _delete(self, chains: Mapping[str, _Chain], name: str, number: str) -> None:
        _refuse(name not in chains, f"there is no chain {name}")
        _refuse(not 0 < int(number) <= len(chains[name].rules), f"chain {name} has no rule {number}")
        del chains[name].rules[int(number) - 1]

    def _flush(self, chains: Mapping[str, _Chain], name: str) -> None:
        _refuse(name not in chains, f"there is no chain {name}")
        chains[name].rules.clear()

    def _remove(self, chains: dict[str, _Chain], name: str) -> None:
        _refuse(name not in chains, f"there is no chain {name}")
        _refuse(bool(chains[name].rules), f"chain {name} is not empty")
        _refuse(self._used(name), f"chain {name} is in use")
        del chains[name]

    def _used(self, name: str) -> bool:
        """Whether a rule refers to the chain of the table at work, or to the set."""
        wanted = ("set", name[1:]) if name.startswith("@") else ("chain", name)
        tables = self.tables.values() if self._table is None else (self.tables[self._table],)
        texts = (text for chains in tables for chain in chains.values() for _, _, text in chain.rules if name in text)
        return any(wanted in _references(text) for text in texts)

    _outside: Final[Mapping[str, Callable[..., None]]] = {
        "create": _create,
        "add": _add,
        "del": _del,
        "destroy": _destroy,
        "forget": _forget,
    }
    _inside: Final[Mapping[str, Callable[..., None]]] = {"-D": _delete, "-F": _flush, "-X": _remove}


def _refuse(condition: bool, reason: str) -> None:
    if condition:
        raise BackendError(reason)


def owned(chain: str, owner: str) -> bool:
    """Whether a stored chain's name is one of the owner's."""
    return chain.startswith((f"{owner}:", f"{owner}/"))


def _of_owner(text: str, owner: str) -> list[str]:
    """The lines of a text that name something of the owner's, in the table that each stands in, without counters."""
    found, table = [], ""
    for line in text.split("\n"):
        table = line if line.startswith("*") else table
        if f"{owner}:" in line or f"{owner}/" in line:
            found.append(table + _COUNTERS.sub("", line))
    return found


_FREE: Final = frozenset({"--comment", "--log-prefix", "--nflog-prefix"})
"""Options whose word says nothing."""
_PLACES: Final = frozenset({"-s", "-d", "--sport", "--dport"})
"""Options whose word may name a set."""


def _references(text: str) -> Iterator[tuple[str, str]]:
    """The chains and sets that a rule's text names."""
    words = [word.text for word in split(text)]
    for before, option, word in zip(["", *words], words, words[1:], strict=False):
        if before in _FREE:
            continue
        if option in ("-j", "-g"):
            yield "chain", word
        elif option in _PLACES and word.startswith("@"):
            yield "set", word[1:]


class MemoryWatch:
    """Writes to a :class:`MemoryKernel`, as events behind an eventfd(2); near are those that changed the owner's."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._told: deque[Event] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor that becomes readable; -1 once it is closed."""
        return self._descriptor

    def events(self) -> tuple[Event, ...]:
        """One event for each write since the last call."""
        if self._descriptor < 0:
            return ()
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        return tuple(self._told.popleft() for _ in range(len(self._told)))

    def tell(self, event: Event) -> None:
        """Make it readable, with an event."""
        if self._descriptor >= 0:
            self._told.append(event)
            os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Writer(NamedTuple):
    """Who writes: what a watch is told of it, and the writer's own watch, where it has one."""

    pid: int = 0
    command: str = NAME
    watch: MemoryWatch | None = None


class MemoryKernel:
    """What a kernel would hold, as one text for each family; shared by whoever is given it.

    A foreign writer is anybody who calls :meth:`write`. ``writes`` counts the swaps: it is the fingerprint.
    """

    def __init__(self) -> None:
        self._texts: dict[Family, str] = dict.fromkeys(Family, "")
        self._lock = threading.Lock()
        self._watches: list[MemoryWatch] = []
        self.writes = 0

    def text(self, family: Family) -> str:
        """All that the family holds, anybody's; counters in front of the rules that met packets."""
        return self._texts[family]

    def read(self) -> tuple[dict[Family, str], int]:
        """The texts and the number of writes they are true for."""
        with self._lock:
            return dict(self._texts), self.writes

    def write(self, family: Family, text: str, *, pid: int = 0, command: str = NAME) -> None:
        """Put a text in place of the family's, as a process that others see; BackendError for one that can't be run."""
        self.swap({family: str(Document(text))}, writer=Writer(pid or os.getpid(), command))

    def swap(self, texts: Mapping[Family, str], *, based_on: int | None = None, writer: Writer | None = None) -> int:
        """Put texts in place of the old ones, all at once; the number of writes after it.

        Raises ConcurrentChangeError, and changes nothing, when there were writes since ``based_on``. Every watch is
        told of it, that of the writer as of its own.
        """
        with self._lock:
            if based_on is not None and based_on != self.writes:
                raise ConcurrentChangeError("somebody wrote since the text was read", backend=NAME)
            pid, command, own = writer or Writer(os.getpid())
            before = {family: self._texts[family] for family in texts}
            self._texts.update(texts)
            self.writes += 1
            for watch in self._watches:
                near = any(_of_owner(before[it], watch.owner) != _of_owner(texts[it], watch.owner) for it in texts)
                watch.tell(Event(pid, command, watch is own, near, self.writes))
            return self.writes

    def count(self, *, packets: int = 1, octets: int = 60) -> None:
        """Let every rule of every chain meet packets, which is no write."""
        with self._lock:
            for family, text in self._texts.items():
                document = Document(text)
                for chain in (chain for chains in document.tables.values() for chain in chains.values()):
                    chain.rules[:] = [(held + packets, size + octets, rule) for held, size, rule in chain.rules]
                self._texts[family] = str(document)

    def watch(self, owner: str) -> MemoryWatch:
        """A watch of its own for a caller that writes for an owner, and gives it back to :meth:`unwatch`."""
        watch = MemoryWatch(owner)
        with self._lock:
            self._watches.append(watch)
        return watch

    def unwatch(self, watch: MemoryWatch) -> None:
        """End a watch."""
        with self._lock:
            self._watches.remove(watch)
        watch.close()
