"""The memory backend: the executable specification of the protocol, over a kernel of text in this process.

What it holds is text and nothing else: every observation parses it back, and a commit runs the transaction's own
lines on a copy, which then takes the original's place. For owner ``meshfw`` chain ``a`` is stored as ``meshfw:a``,
the dispatcher of one hook and place as ``meshfw/input/first`` with its policy in its ``:`` line, and set ``a`` as
``meshfw:a``, which a rule calls ``@meshfw:a``. With the option ``native_sets = false`` it's a backend without sets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from meshfw.backend import (
    API_VERSION,
    Cache,
    Capabilities,
    Committed,
    Fingerprint,
    Observed,
    Site,
    Step,
    Transaction,
    Unsupported,
)
from meshfw.backends.memory_kernel import NAME, Document, MemoryKernel, MemoryWatch, StoredRule, Writer, owned
from meshfw.errors import BackendError, ConcurrentChangeError, ConfigError, ModelError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import (
    ChainKey,
    Dispatcher,
    DispatcherKey,
    ElementType,
    Family,
    Goto,
    Hook,
    Jump,
    Match,
    Not,
    OpaqueTarget,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetKey,
    SetRef,
    Table,
    set_references,
)
from meshfw.plan import ListChange, Plan, SetChange
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot
from meshfw.states import snapshot_digest

RESTORE: Final = "memory-restore"
"""The command of a step; its argument is the family whose text the lines run on."""
_TEXTS: Final = 10_000


class Names(msgspec.Struct, frozen=True):
    """How an owner's chains, dispatchers and sets are called in the stored text."""

    owner: str

    def stored(self, key: ListKey | str) -> str:
        """The stored name of a chain or dispatcher, or of a chain or set by its logical name."""
        if isinstance(key, DispatcherKey):
            return f"{self.owner}/{key.hook}/{key.place}"
        return f"{self.owner}:{key.name if isinstance(key, ChainKey) else key}"

    def logical(self, stored: str) -> str | None:
        """The logical name of a stored chain or set; None for one that isn't the owner's."""
        return stored.removeprefix(f"{self.owner}:") if stored.startswith(f"{self.owner}:") else None

    def key(self, family: Family, table: Table, stored: str) -> ListKey:
        """The key of a stored chain of the owner; ValueError where the name is none that is written here."""
        logical = self.logical(stored)
        if logical is not None:
            return ChainKey(family, table, logical)
        _, hook, place = stored.split("/")
        return DispatcherKey(family, table, Hook(hook), Place(place))

    def to_stored(self, rule: Rule) -> Rule:
        """The rule with stored names."""
        return _renamed(rule, self.stored)

    def to_logical(self, rule: Rule) -> Rule | None:
        """The rule with logical names; None where it names something that isn't the owner's."""
        target = rule.target
        if isinstance(target, Jump) and self.logical(target.chain) is None:
            rule = msgspec.structs.replace(rule, target=OpaqueTarget(target.chain))  # as the text can't tell
        names = [reference.name for reference, _ in set_references(rule)]
        names += [rule.target.chain] if isinstance(rule.target, Jump | Goto) else []
        if any(self.logical(name) is None for name in names):
            return None
        return _renamed(rule, lambda name: self.logical(name) or name)


def _renamed(rule: Rule, rename: Callable[[str], str]) -> Rule:
    """The rule with other names of chains and sets; itself where it names none."""
    changes: dict[str, Any] = {}
    target = rule.target
    if isinstance(target, Jump | Goto):
        changes["target"] = type(target)(rename(target.chain))
    if any(True for _ in set_references(rule)):
        changes["source"] = _renamed_set(rule.source, rename)
        changes["destination"] = _renamed_set(rule.destination, rename)
        changes["matches"] = tuple(_renamed_sets(match, rename) for match in rule.matches)
    return msgspec.structs.replace(rule, **changes) if changes else rule


def _renamed_sets(match: Match, rename: Callable[[str], str]) -> Match:
    fields = {field: getattr(match, field) for field in match.__struct_fields__}
    changes = {field: _renamed_set(value, rename) for field, value in fields.items()}
    same = all(changes[field] is fields[field] for field in fields)
    return match if same else msgspec.structs.replace(match, **changes)


def _renamed_set(value: Any, rename: Callable[[str], str]) -> Any:
    if type(value) is Not and type(value.value) is SetRef:
        return Not(SetRef(rename(value.value.name)))
    return SetRef(rename(value.name)) if type(value) is SetRef else value


def _policies(key: ListKey, word: str) -> frozenset[Policy]:
    """The policy of a dispatcher's ``:`` line; ValueError where there is none, or where a chain has one."""
    if isinstance(key, DispatcherKey):
        return frozenset({Policy(word.lower())})
    if word != "-":
        raise ValueError(f"{key} has policy {word}")
    return frozenset()


class MemoryBackend:
    """A ruleset in a :class:`MemoryKernel`: the option ``kernel`` of its site, or one of its own.

    Several instances and owners on one kernel see each other's writes as they would on a real one.
    """

    api_version: Final = API_VERSION
    name: Final = NAME

    def __init__(self, site: Site) -> None:
        kernel = site.options.get("kernel")
        if kernel is not None and not isinstance(kernel, MemoryKernel):
            raise ConfigError(f"{kernel!r} is not a kernel", key=f"backend.{NAME}.kernel", expected="a MemoryKernel")
        native_sets = site.options.get("native_sets", True)
        if not isinstance(native_sets, bool):
            raise ConfigError(f"{native_sets!r}", key=f"backend.{NAME}.native_sets", expected="true or false")
        self.kernel = kernel or MemoryKernel()
        self.capabilities = Capabilities(opaque=True, kernel=False, native_sets=native_sets)
        self.cache = Cache()
        self._names = Names(site.owner)
        self._language: Language = site.language
        self._watch: MemoryWatch | None = None
        self._read = lru_cache(maxsize=_TEXTS)(self._parsed)  # one text means one rule, however often it stands there

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """The rules whose text would not be read back as what they are."""
        placed = [
            (f"{chain.key}, rule {index}", chain.family, rule)
            for chain in ruleset.chains
            for index, rule in enumerate(chain.rules, 1)
        ]
        placed += [(f"attachment to {item.dispatcher}", item.family, item.rule) for item in ruleset.attachments]
        found = [self._unsupported(where, family, rule) for where, family, rule in placed]
        if not self.capabilities.native_sets:
            found += [Unsupported(f"{entry.family} set {entry.name}", "there are no sets") for entry in ruleset.sets]
        return tuple(finding for finding in found if finding is not None)

    def _unsupported(self, where: str, family: Family, rule: Rule) -> Unsupported | None:
        try:
            text = self._text(rule, family)
        except KeyError as error:
            return Unsupported(where, f"no extension of the language prints {error}")
        if self._read(text, family) == rule:
            return None
        return Unsupported(where, "its text has another meaning", text)

    def fingerprint(self) -> Fingerprint:
        """The number of writes, anybody's."""
        return Fingerprint((NAME, self.kernel.writes))

    def digest(self) -> str:
        """The digest of what the text says."""
        return snapshot_digest(self.observe().snapshot)

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """What the text says, parsed: everything, or the lists and sets named."""
        texts, writes = self.kernel.read()
        lists: dict[ListKey, ObservedList] = {}
        sets: dict[SetKey, Set] = {}
        broken: dict[Family, str] = {}
        for family, text in texts.items():
            document = Document(text)
            try:
                found = [*self._observed_lists(document, family, keys)]
                held = [*self._observed_sets(document, family, keys)]
            except (ValueError, ModelError) as error:
                broken[family] = f"something that is not of meshfw under its name: {error}"
                continue
            lists.update((item.key, item) for item in found)
            sets.update(((item.family, item.name), item) for item in held)
        return Observed(Snapshot(lists, sets, broken), Fingerprint((NAME, writes)))

    def _observed_lists(
        self, document: Document, family: Family, keys: Collection[ListKey | SetKey] | None
    ) -> Iterator[ObservedList]:
        for table, chains in document.tables.items():
            for name, chain in chains.items():
                if not owned(name, self._names.owner):
                    continue
                key = self._names.key(family, Table(table), name)
                policy = _policies(key, chain.policy)
                if keys is None or key in keys:
                    yield ObservedList(key, tuple(self._observed_rule(rule, family) for rule in chain.rules), policy)

    def _observed_rule(self, stored: StoredRule, family: Family) -> ObservedRule:
        packets, octets, text = stored
        return ObservedRule(self._read(text, family), text, packets, octets)

    def _observed_sets(
        self, document: Document, family: Family, keys: Collection[ListKey | SetKey] | None
    ) -> Iterator[Set]:
        for stored, (kind, elements) in document.sets.items():
            name = self._names.logical(stored)
            if name is not None and (keys is None or (family, name) in keys):
                type_, _, word = kind.partition(" ")
                held = Set.of(family, name, elements, type=ElementType(type_), intervals=word == "intervals")
                if len(held.elements) != len(elements):
                    raise ValueError(f"elements of set {name} overlap")
                yield held

    def _parsed(self, text: str, family: Family) -> Rule | None:
        """The rule that a stored text means; None where it means none."""
        try:
            return self._names.to_logical(parse_rule(text, family=family, language=self._language))
        except (ParseError, ModelError):
            return None

    def _text(self, rule: Rule, family: Family) -> str:
        return format_rule(self._names.to_stored(rule), family=family, language=self._language)

    # --- writing ---

    def compile(self, plan: Plan) -> Transaction:
        """One step for each family that changes."""
        if not self.capabilities.native_sets and any(change.new for change in plan.sets):
            raise BackendError("there are no sets", backend=NAME)
        texts: dict[ListKey, tuple[str, ...]] = {
            change.key: tuple(self._text(rule, change.key.family) for rule in change.rules) for change in plan.lists
        }
        steps = []
        for family in Family:
            lines = [f"forget {self._names.owner}"] if family in plan.rebuilt else []
            sets = [change for change in plan.sets if change.key[0] is family]
            lists = [change for change in plan.lists if change.key.family is family]
            lines += [line for change in sets if change.new for line in self._set_lines(change, change.new)]
            for table in Table:
                of_table = [change for change in lists if change.key.table is table]
                rebuilt = family in plan.rebuilt
                lines += self._table_lines(table, of_table, texts, rebuilt=rebuilt) if of_table else []
            lines += [f"destroy {self._names.stored(change.key[1])}" for change in sets if not change.new]
            if lines:
                steps.append(Step((RESTORE, family.value), "".join(f"{line}\n" for line in lines)))
        return Transaction(NAME, tuple(steps), plan, texts, rewrites=plan.moves(in_place=True))

    def _set_lines(self, change: SetChange, new: Set) -> Iterable[str]:
        name = self._names.stored(new.name)
        if change.old is None:
            yield f"create {name} {new.type}{' intervals' if new.intervals else ''}"
        yield from (f"del {name} {new.text(*element)}" for element in change.removed)
        yield from (f"add {name} {new.text(*element)}" for element in change.added)

    def _table_lines(self, table: Table, changes: list[ListChange], texts: Any, *, rebuilt: bool) -> Iterable[str]:
        """Chains are made before any rule can jump to them, and go after the last rule that did."""
        yield f"*{table}"
        for change in changes:
            if change.new is not None and (change.old is None or change.policy is not None or rebuilt):
                policy = change.new.policy.upper() if isinstance(change.new, Dispatcher) else "-"
                yield f":{self._names.stored(change.key)} {policy} [0:0]"
        for change in changes:
            if change.new is not None:
                yield from self._rule_lines(change, texts[change.key], rebuilt=rebuilt)
        going = [self._names.stored(change.key) for change in changes if change.new is None]
        yield from (f"-F {name}" for name in going)
        yield from (f"-X {name}" for name in going)
        yield "COMMIT"

    def _rule_lines(self, change: ListChange, texts: tuple[str, ...], *, rebuilt: bool) -> Iterable[str]:
        """Rules that stay aren't touched, so they keep counting; one that moves takes its numbers along."""
        name = self._names.stored(change.key)
        if not rebuilt:
            yield from (f"-D {name} {index + 1}" for index in reversed(change.dropped))
        for position, (text, kept, source) in enumerate(zip(texts, change.kept, change.source, strict=True), 1):
            if kept >= 0:
                continue
            held = change.old.rules[source] if change.old is not None and source >= 0 else None
            counted = f"[{held.packets}:{held.bytes}] " if held and (held.packets or held.bytes) else ""
            yield f"{counted}-I {name} {position} {text}".rstrip()

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Run the steps on a copy of the texts, then swap; the kernel compares the number of writes as it does."""
        texts, writes = self.kernel.read()
        if based_on is not None and based_on != Fingerprint((NAME, writes)):
            raise ConcurrentChangeError("somebody wrote since the text was read", backend=NAME)
        changed: dict[Family, Document] = {}
        for step in transaction.steps:
            if len(step.command) != 2 or step.command[0] != RESTORE:
                raise BackendError(f"{' '.join(step.command)}: no such command", backend=NAME)
            family = Family(step.command[1])
            document = changed.setdefault(family, Document(texts[family]))
            document.run(step.input)
        after = {family: str(document) for family, document in changed.items()}
        done = self.kernel.swap(after, based_on=writes, writer=Writer(os.getpid(), watch=self._watch))
        return Committed(Fingerprint((NAME, done)), exclusive=based_on is not None)

    def watch(self) -> MemoryWatch:
        """All writes, near where they changed something of the owner's."""
        if self._watch is None:
            self._watch = self.kernel.watch(self._names.owner)
        return self._watch

    def close(self) -> None:
        """End the watch; the kernel keeps what it holds."""
        if self._watch is not None:
            self.kernel.unwatch(self._watch)
            self._watch = None
