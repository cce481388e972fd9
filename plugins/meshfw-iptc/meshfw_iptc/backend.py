"""The backend: iptables' legacy tables of both families, read and written in this process through python-iptables.

The tables look as the built-in backend iptables-legacy leaves them (``meshfw.iptables``), so either takes over from the
other without a change. A commit opens all tables under the lock of iptables, compares them with what the plan was made
for, and writes each table at once, one after the other; what was written before an error is put back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from meshfw import (
    API_VERSION,
    Atomicity,
    BackendError,
    Cache,
    Capabilities,
    Chain,
    ChainKey,
    Committed,
    ConcurrentChangeError,
    Dispatcher,
    Family,
    Fingerprint,
    Language,
    ListKey,
    Observed,
    ObservedList,
    Plan,
    Rule,
    Ruleset,
    Site,
    Snapshot,
    Step,
    Transaction,
    Unsupported,
    format_rule,
)
from meshfw.iptables import (
    HeldNamespace,
    Lexicon,
    PartialCommitError,
    RawTable,
    Reading,
    Standing,
    TableKey,
    changes_of,
    iptables_chain,
    observed_lists,
    options_of,
    same_owned,
    table_lines,
    tables_of,
    undo_lines,
    xtables_lock,
)
from meshfw.model import SetKey
from meshfw_iptc import proven
from meshfw_iptc.bench import Bench
from meshfw_iptc.libraries import NAME, library
from meshfw_iptc.lines import Line, carry_out, command, parsed_line, parsed_step
from meshfw_iptc.tables import OpenTable, opened
from meshfw_iptc.telling import told, tried

_TRIED_MAX: Final = 20_000
Tables = Mapping[TableKey, OpenTable]
Look = Mapping[TableKey, RawTable]


class IptcBackend:
    """Keeps a ruleset in user chains of iptables' legacy tables, in one network namespace.

    Options: ``adopt`` (bool): chains of the owner's names that somebody else made are taken over. ``wait`` (whole
    seconds, 10 by default): how long to wait for the lock of the tables.

    Raises:
        BackendError: python-iptables or a library that it needs isn't there, or there is no such namespace.
        ConfigError: an option that there isn't.
    """

    api_version = API_VERSION
    name = NAME
    capabilities = Capabilities(atomicity=Atomicity.TABLE, opaque=False, native_sets=False, processes_per_family=0)

    def __init__(self, site: Site) -> None:
        self._options = options_of(site, NAME)
        self._owner = site.owner
        self._language: Language = site.language
        self._library = library()
        self._home = HeldNamespace(site.netns)
        self._lexicon = Lexicon(site.owner, site.language, apart=False)
        self._tried = self._library.trials(site.language)
        self.cache = Cache()

    def close(self) -> None:
        """Let the namespace go; the rules stay."""
        self._home.close()

    def watch(self) -> None:
        """None: whoever writes without the tools gives no sign."""

    # --- what can't be said ---

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Names that the tables can't tell apart, and rules that python-iptables can't be trusted with."""
        self._lexicon.want((*ruleset.chains, *ruleset.dispatchers()))
        return (*self._same_names(ruleset), *self._untrusted(ruleset))

    def _same_names(self, ruleset: Ruleset) -> Iterator[Unsupported]:
        names: dict[tuple[TableKey, str], ChainKey] = {}
        for chain in ruleset.chains:
            name = iptables_chain(self._owner, chain.key)
            other = names.setdefault(((chain.family, chain.table), name), chain.key)
            if other != chain.key:
                yield Unsupported(str(chain.key), f"both it and {other.name} shorten to {name}: rename one")

    def _untrusted(self, ruleset: Ruleset) -> Iterator[Unsupported]:
        if len(self._tried) > _TRIED_MAX:
            self._tried.clear()
        lists: list[Chain | Dispatcher] = [*ruleset.chains, *ruleset.dispatchers()]
        for held in lists:
            family = held.key.family
            for index, rule in enumerate(held.rules, 1):
                reason = self._distrust(rule, family)
                if reason is not None:
                    text = format_rule(rule, family=family, language=self._language)
                    yield Unsupported(f"{held.key}, rule {index}", reason, text)

    def _distrust(self, rule: Rule, family: Family) -> str | None:
        """Why a rule can't be written; None where it was made and read back the same, without a kernel."""
        reason = next((loss.text for loss in rule.losses() if "legacy" in loss.variants), None)
        reason = reason or next(proven.findings(rule, family, self._language), None)
        if reason is not None:
            return reason
        text = self._lexicon.written(rule, family)
        if (family, text) not in self._tried:
            stored = parsed_line(f"-A x {text}".rstrip(), family, self._language).rule
            self._tried[family, text] = tried(Bench(self._library, family), stored, self._language)
        return self._tried[family, text]

    # --- reading ---

    def fingerprint(self) -> Fingerprint | None:
        """A digest of the bytes of our chains, and of where the jumps to them stand, without the counters."""
        with opened(self._library, self._home) as tables:
            return self._print(self._looked(tables))

    def _looked(self, tables: Tables) -> Look:
        return {key: table.raw(self._owner) for key, table in tables.items()}

    def _print(self, look: Look) -> Fingerprint:
        digest = hashlib.blake2b(digest_size=16)
        for key, raw in look.items():
            if raw.chains:
                bodies = {name: [rule.body for rule in rules] for name, rules in sorted(raw.chains.items())}
                digest.update(repr((key, bodies, sorted(raw.jumps.items()))).encode())
        return Fingerprint((NAME, self._home.identity, digest.hexdigest()))

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Our chains as they are now, and what leads to them."""
        self.cache.costs.reads += 1
        with opened(self._library, self._home) as tables:
            look = self._looked(tables)
            for key, table in tables.items():
                self._learn(table, look[key])
        return Observed(self._snapshot(look), self._print(look))

    def _learn(self, table: OpenTable, raw: RawTable) -> None:
        """Have the library tell the rules whose bytes are new."""
        family = table.key[0]
        for name, rules in raw.chains.items():
            if self._lexicon.unknown(family, rules):
                for rule, entry in zip(rules, table.entries(name), strict=True):
                    if self._lexicon.text(family, rule) is None:
                        text = told(table.bench, entry, table.standard(entry), self._language)
                        self._lexicon.remember(family, [rule], [text])

    def _snapshot(self, look: Look) -> Snapshot:
        lists: dict[ListKey, ObservedList] = {}
        strangers: dict[ListKey, str] = {}
        for key, raw in look.items():
            found, foreign = observed_lists(key, raw, self._reading(key[0]))
            lists.update(found)
            strangers.update(foreign)
        return Snapshot(lists, strangers=strangers)

    def _reading(self, family: Family) -> Reading:
        return Reading(
            owner=self._owner,
            adopt=self._options.adopt,
            text=lambda rule: self._lexicon.text(family, rule),
            jump=lambda rule: rule.meaning.jump if rule.meaning is not None else "",
            named=self._lexicon.named,
            rules=self._lexicon.rules,
        )

    # --- writing ---

    def compile(self, plan: Plan) -> Transaction:
        """One step for each table that changes."""
        steps = []
        for key in tables_of(plan):
            lines = table_lines(changes_of(plan, key), render=self._render, owner=self._owner)
            steps.append(Step(command(key), "".join(f"{line}\n" for line in lines)))
        texts = {change.key: tuple(self._render(change.key, rule) for rule in change.rules) for change in plan.lists}
        return Transaction(NAME, tuple(steps), plan, texts, rewrites=plan.moves(in_place=True))

    def _render(self, key: ListKey, rule: Rule) -> str:
        return self._lexicon.written(rule, key.family)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Carry out the steps; what was committed before an error is put back.

        The kernel takes a table whose number of entries is what it was when the table was opened. A writer who takes no
        lock and replaces a rule meanwhile is overwritten.

        Raises:
            PartialCommitError: putting back failed as well; it says what stands where.
        """
        steps = [parsed_step(step, self._language) for step in transaction.steps]
        costs = self.cache.costs
        with self._alone():
            began = time.monotonic()
            with opened(self._library, self._home, [key for key, _ in steps]) as tables:
                before = self._looked(tables)
                self._require(before, based_on, transaction.plan)
                self._run(steps, tables, transaction.plan, before)
            costs.commits += 1
            costs.commit_seconds += time.monotonic() - began
            with opened(self._library, self._home) as tables:
                after = self._looked(tables)
        exclusive = based_on is not None and _same_elsewhere(before, after, transaction.plan, self._owner)
        return Committed(self._print(after), exclusive=exclusive)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A block in which no iptables-legacy writes: python-iptables takes no lock."""
        began = time.monotonic()
        with xtables_lock(timeout=self._options.wait):
            self.cache.costs.lock_seconds += time.monotonic() - began
            yield

    def _require(self, look: Look, based_on: Fingerprint | None, plan: Plan) -> None:
        """ConcurrentChangeError unless the chains of the plan, edited by position, are what it was made for."""
        for change in plan.lists:
            held = look.get((change.key.family, change.key.table), RawTable()).chains
            standing: Standing | None = None if change.old is None else change.old.backing
            if standing is not None and not standing.is_of(held):
                raise ConcurrentChangeError(f"{change.key} was changed since it was read", backend=NAME)
        if based_on is not None and based_on != self._print(look):
            raise ConcurrentChangeError("somebody else wrote since the rules were read", backend=NAME)

    def _run(self, steps: Sequence[tuple[TableKey, Sequence[Line]]], tables: Tables, plan: Plan, before: Look) -> None:
        """Make all edits first, then write table by table."""
        for key, lines in steps:
            carry_out(tables[key], lines, self._language)
        done: list[TableKey] = []
        try:
            for key, _ in steps:
                tables[key].commit()
                done.append(key)
        except BaseException as error:
            self._put_back(plan, done, before, error)
            raise

    def _put_back(self, plan: Plan, done: Sequence[TableKey], before: Look, error: BaseException) -> None:
        """Make the tables that were written what they were; PartialCommitError where that fails."""
        left = list(done)
        second: BaseException | None = None
        try:
            for key in done:
                if self._is_put_back(plan, key, before[key]):
                    left.remove(key)
        except BaseException as failed:  # noqa: BLE001 - whatever ends it, somebody has to be told what stands
            second = failed
        if left:
            stands = [f"{family} {table}: changed and not put back" for family, table in left]
            raise PartialCommitError(error, second, stands, backend=NAME) from error
        if isinstance(error, BackendError):
            tables = ", ".join(f"{family} {table}" for family, table in done)
            error.add_remedy(f"put back: {tables}" if done else "nothing was changed")

    def _is_put_back(self, plan: Plan, key: TableKey, before: RawTable) -> bool:
        """Write what a table held before the plan; whether it holds that now, as far as it's ours."""
        with opened(self._library, self._home, [key]) as tables:
            now, changes = tables[key].raw(self._owner), changes_of(plan, key)
            texts = undo_lines(changes, chains=now.chains, jumps=now.jumps, owner=self._owner)
            lines = [parsed_line(text, key[0], self._language) for text in texts]
            carry_out(tables[key], lines, self._language)
            tables[key].commit()
        with opened(self._library, self._home, [key]) as tables:
            return same_owned(tables[key].raw(self._owner), before, self._owner)


def _same_elsewhere(before: Look, after: Look, plan: Plan, owner: str) -> bool:
    """Whether nothing of ours has changed but what the plan changes."""
    for key in {*before, *after}:
        names = {_name(owner, change.key, change.old) for change in changes_of(plan, key)}
        kept = [RawTable(look.get(key, RawTable()).without(names).chains) for look in (before, after)]
        if not same_owned(kept[0], kept[1], owner):
            return False
    return True


def _name(owner: str, key: ListKey, old: ObservedList | None) -> str:
    return iptables_chain(owner, key) if old is None else str(old.backing.chain)
