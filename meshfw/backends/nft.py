"""The nft backend: native nf_tables through libnftables in process, both families in one transaction, no process.

While the generation of nf_tables stands, nobody wrote (4 µs over netlink); when it moved, digests of our own tables
tell whether any of ours did (:mod:`meshfw.backends.nft_raw`), and only then is anything read. After a commit of ours
that nobody interleaved, the touched chains are listed as text and compared with what was written; whenever somebody
else changed ours, our own two tables are read as JSON and compared by meaning. Rules of foreign tables are never
loaded: an older libnftables can crash on what a newer one wrote.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace

from meshfw.backend import (
    API_VERSION,
    Atomicity,
    Cache,
    Capabilities,
    Committed,
    Fingerprint,
    Observed,
    Site,
    Step,
    Transaction,
    Unsupported,
    Watch,
)
from meshfw.backends.layout import is_marked, nft_set
from meshfw.backends.nft_depth import Known, deep_paths
from meshfw.backends.nft_edits import Edits
from meshfw.backends.nft_listing import (
    Expected,
    JsonReader,
    Listing,
    chain_bodies,
    chain_state,
    prove,
)
from meshfw.backends.nft_loading import run_steps, transaction_texts
from meshfw.backends.nft_neighbours import Around, look_around, neighbour_findings, own_places_findings, table_findings
from meshfw.backends.nft_raw import OwnTables
from meshfw.backends.nft_rendering import Renderings
from meshfw.backends.nft_text import chain_name, restart_notes, rule_texts
from meshfw.backends.nft_watch import NftWatch, noted, own_tables
from meshfw.backends.standing import mapped_files, sealed
from meshfw.errors import BackendError, ConcurrentChangeError, ConfigError, InexpressibleError, KernelError
from meshfw.kernel.libnftables import Libnftables, Numeric
from meshfw.kernel.netlink import TABLE_DORMANT, Nfnetlink
from meshfw.kernel.netns import Namespace, entered
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family, Policy, Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot

NAME: Final = "nft"
_OPTIONS: Final = ("isolated", "adopt")
_NUMERIC: Final = Numeric.PROTOCOL | Numeric.PRIORITY
_READS: Final = 5
_FEW: Final = 32
"""Up to so many changed chains of a family are listed one by one; more, by listing the table."""
_SMALL: Final = 2000
"""Below so many rules a whole new table is listed at once; above, the kernel's dump of a table is quadratic."""
_TRIM: Final = 2000
"""Rules read beyond which the C library's memory is worth giving back."""


class NftBackend:
    """Keeps a ruleset in the tables ``ip OWNER`` and ``ip6 OWNER`` of one network namespace.

    Options: ``isolated`` (bool): foreign base chains don't matter, so a dropping ``last`` attachment is allowed.
    ``adopt`` (bool): a table of the owner's name that somebody else made is taken over, and built anew.

    Raises:
        BackendError: no libnftables. KernelError: no CAP_NET_ADMIN in the namespace.
    """

    api_version = API_VERSION
    name = NAME

    def __init__(self, site: Site) -> None:
        self._owner = site.owner
        self._language = site.language
        self._isolated, self._adopt = (_option(site, name) for name in _OPTIONS)
        self.cache = Cache()
        with entered(site.netns):
            self._namespace = Namespace.current()
        self._netlink = Nfnetlink(site.netns)
        self._own = OwnTables(self._netlink, site.owner, self._namespace)
        try:
            self._nft = Libnftables(site.netns)
        except BaseException:
            self._netlink.close()
            raise
        self._renderings = Renderings(site.language)
        self._edits = Edits(self._owner, self._netlink, self._renderings.rule)
        self._edited: Snapshot | None = None
        self._around: Around | None = None
        self._expected: dict[ListKey, Expected] = {}
        self._own_generation = -1
        self._paths: Known = {}
        self._watch: NftWatch | None = None

    @property
    def capabilities(self) -> Capabilities:
        """One transaction for everything; an accept ends only our own chain."""
        return Capabilities(atomicity=Atomicity.RULESET, foreign_accept_wins=False)

    def close(self) -> None:
        """Close the sockets and the library's contexts; the rules stay."""
        if self._watch is not None:
            self._watch.close()
        self._edits.close()
        self._netlink.close()
        self._nft.close()

    def watch(self) -> Watch:
        """Commits by anybody, near where they touch our two tables; the first call begins to listen."""
        if self._watch is None:
            self._watch = NftWatch(own_tables(self._owner), self._netlink)
        return self._watch

    # --- reading ---

    def fingerprint(self) -> Fingerprint:
        """A number that moves whenever our tables' bytes are others than before, in this namespace and boot."""
        return self._own.fingerprint()

    def digest(self) -> str | None:
        """The digest of what stands under our name, for a later process; None where others keep writing."""
        told = self._own.digest()
        options = (self._owner, self._isolated, self._adopt)
        return None if told is None else sealed(told, self._namespace, *options, files=mapped_files("libnft"))

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Our tables as they are now; ``keys`` narrows the reading of rules and elements.

        The first time after a few edits of ours the kernel's own answers to them are all there is to know, but for
        the counters of rules that weren't touched.
        """
        known, self._edited = self._edited, None
        if known is not None and keys is not None and _holds(known, keys):
            before = self._netlink.settled()
            if before == self._own_generation:
                return Observed(known, self._own.at(before))
        self.cache.costs.reads += 1
        error: BackendError | None = None
        snapshot: Snapshot | None = None
        for _ in range(_READS):
            # Settled: a commit that is counted but not shown yet must not be taken for what is read here.
            before = self._netlink.settled()
            fingerprint = self._own.at(before)
            try:
                snapshot = self._read(keys, proven=before == self._own_generation)
            except KernelError as refused:
                if refused.errno != errno.ENOENT:
                    raise
                error = refused  # a chain that went while we read
                continue
            if snapshot.rules > _TRIM:
                self._nft.trim()
            if self._netlink.settled() == before:
                return Observed(snapshot, fingerprint)
        if snapshot is None and error is not None:
            raise error
        return Observed(snapshot or Snapshot(), None)

    def _read(self, keys: Collection[ListKey | SetKey] | None, *, proven: bool) -> Snapshot:
        listing = Listing()
        present = self._present(listing)
        unlistable = frozenset(listing.broken)  # by now the tables with flags
        policies = self._chains(listing, present)
        reader = JsonReader(listing, language=self._language)
        rules: dict[ListKey, tuple[ObservedRule, ...]] = {}
        if keys is None:
            for family in present:
                if family in unlistable:
                    continue
                text = self._list(f"list table {FAMILIES[family]} {self._owner}")
                rules.update(reader.rules(text))
                held = any(key.family is family for key in policies) or any(key[0] is family for key in listing.sets)
                if not held:
                    listing.broken.setdefault(family, "an empty table was left behind")
        else:
            wanted = [key for key in keys if not isinstance(key, tuple) and key in policies]
            if proven:
                rules.update(self._prove(wanted, policies))
            for key in wanted:
                if key not in rules:
                    table = f"{FAMILIES[key.family]} {self._owner}"
                    rules.update(reader.rules(self._list(f"list chain {table} {chain_name(key)}")))
            self._read_sets(keys, present, reader)
            policies = {key: policies[key] for key in wanted}
        for key, allowed in policies.items():
            listing.lists[key] = ObservedList(key, rules.get(key, ()), allowed)
        return Snapshot(listing.lists, listing.sets, listing.broken)

    def _present(self, listing: Listing) -> tuple[Family, ...]:
        """The families whose table of ours stands."""
        present = []
        for table in self._netlink.tables():
            family = _FAMILIES.get(table.family)
            if table.name == self._owner and family is not None:
                present.append(family)
                if not is_marked(table.userdata):
                    listing.broken[family] = "the table was made by somebody else"
                if table.flags:  # and nft 1.0.6 reads out of bounds when it lists such a table as JSON
                    what = "dormant" if table.flags & TABLE_DORMANT else f"special (flags {table.flags:#x})"
                    listing.broken[family] = f"the table was made {what}"
        return tuple(present)

    def _chains(self, listing: Listing, present: Collection[Family]) -> dict[ListKey, frozenset[Policy]]:
        policies = {}
        for family in present:
            for chain in self._netlink.chains(FAMILIES[family]):
                if chain.table != self._owner:
                    continue
                state = chain_state(chain, family)
                if isinstance(state, str):
                    listing.broken.setdefault(family, state)
                else:
                    policies[state[0]] = state[1]
        return policies

    def _list(self, command: str) -> str:
        return self._nft.run(command, json_output=True, numeric=_NUMERIC)

    @staticmethod
    def _whole(family: Family, mine: Collection[ListKey], standing: Iterable[ListKey]) -> bool:
        """Whether these are all the lists that stand in the family's table."""
        return sum(key.family is family for key in standing) == len(mine)

    def _prove(self, keys: Iterable[ListKey], standing: Collection[ListKey]) -> dict[ListKey, tuple[ObservedRule, ...]]:
        """The lists whose text is what our own last commit left; the others are left to be read by meaning."""
        found: dict[ListKey, tuple[ObservedRule, ...]] = {}
        for family in Family:
            mine = [key for key in keys if key.family is family and key in self._expected]
            table = f"{FAMILIES[family]} {self._owner}"
            bodies: dict[str, str] = {}
            size = sum(len(self._expected[key].rules) for key in mine)
            if len(mine) > _FEW or (len(mine) > 1 and size < _SMALL and self._whole(family, mine, standing)):
                bodies = chain_bodies(self._nft.run(f"list table {table}", numeric=_NUMERIC))
            for key in mine:
                name = chain_name(key)
                if name not in bodies:
                    bodies |= chain_bodies(self._nft.run(f"list chain {table} {name}", numeric=_NUMERIC))
                rules = prove(bodies.get(name, ""), self._expected[key])
                if rules is not None:
                    found[key] = rules
        return found

    def _read_sets(self, keys: Collection[ListKey | SetKey], present: Collection[Family], reader: JsonReader) -> None:
        for key in keys:
            if isinstance(key, tuple) and key[0] in present:
                try:
                    text = self._list(f"list set {FAMILIES[key[0]]} {self._owner} {nft_set(key[1])}")
                except KernelError:  # ENOENT: it is gone, which is what the caller learns
                    continue
                reader.rules(text)

    # --- writing ---

    def compile(self, plan: Plan) -> Transaction:
        """The text for libnftables, which is one transaction of the kernel, or several where new chains are large."""
        few = self._edits.transaction(NAME, plan)
        if few is not None:
            return few
        render = self._renderings.of_plan(plan)
        present = self._tables_of(plan)
        texts = transaction_texts(plan, render, owner=self._owner, present=present, buffer=self._nft.send_buffer)
        steps = tuple(Step(("nft", "-f", "-"), text) for text in texts)
        return Transaction(
            NAME, steps, plan, rule_texts(plan, render), restart_notes(plan), rewrites=plan.moves(in_place=False)
        )

    @staticmethod
    def _tables_of(plan: Plan) -> frozenset[Family]:
        """The families whose table stands, as the plan saw it."""
        seen = {change.key.family for change in plan.lists if change.old is not None}
        seen |= {change.key[0] for change in plan.sets if change.old is not None}
        return frozenset(seen | set(plan.rebuilt))

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Run the transaction; the kernel takes all of it or nothing."""
        began = time.perf_counter()
        before = self._netlink.settled()
        if based_on is not None and based_on != self._own.at(before):
            raise ConcurrentChangeError("somebody else wrote since the rules were read", backend=NAME)
        self._own_generation = -1
        self._expected = {}
        self._edited = None
        around, self._around = self._around, None
        try:
            with noted(self._watch) as own:
                done = self._write_few(transaction, before if based_on is not None else None)
                if done is None:
                    run_steps(transaction, self._nft, self._netlink, owner=self._owner, before=before)
                own.made = len(transaction.steps)
        finally:
            self.cache.costs.commits += 1
            self.cache.costs.commit_seconds += time.perf_counter() - began
        after = self._netlink.generation()
        exclusive = based_on is not None and after == before + len(transaction.steps) and done != _UNKNOWN
        if exclusive:
            self._own_generation = after
            self._edited = done
            self._expected = {
                change.key: Expected(transaction.texts[change.key], change.rules)
                for change in transaction.plan.lists
                if change.key in transaction.texts
            }
            if done is not None and around is not None and around.generation == before:
                self._around = replace(around, generation=after)  # others' tables are what they were
        return Committed(self._own.committed(after if exclusive else None, transaction.plan), exclusive)

    def _write_few(self, transaction: Transaction, generation: int | None) -> Snapshot | None:
        """Write a transaction as our own batch: what stands then, empty where that can't be said; None: not written."""
        prepared = self._edits.prepared(transaction)
        if prepared is None:
            return None
        written = self._edits.commit(prepared, generation)
        if written.stale:
            raise ConcurrentChangeError("somebody else wrote since the rules were read", backend=NAME)
        if written.refusals:
            self._edits.distrust()  # the same text by libnftables works, or says in its own words why not
            return None
        found = self._edits.outcome(prepared, written)
        if found is None and not written.lost:
            self._edits.distrust()  # the kernel holds something else than what it was given: all is read again
        return found or _UNKNOWN

    # --- what can't be said ---

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Rules that nft can't express, and hooks where foreign chains would be overruled or overrule us."""
        around = self._look_around()
        findings = list(table_findings(around.tables, owner=self._owner, adopt=self._adopt))
        for chain in ruleset.chains:
            findings.extend(self._renderings.findings(chain))
        for attachment in ruleset.attachments:
            try:
                self._renderings.rule(attachment.dispatcher, attachment.rule)
            except InexpressibleError as error:
                findings.append(Unsupported(f"attachment to {attachment.dispatcher}", error.reason))
        findings.extend(deep_paths(ruleset, known=self._paths))
        findings.extend(own_places_findings(ruleset))
        if not self._isolated and ruleset.attachments:
            findings.extend(neighbour_findings(ruleset, around.chains, owner=self._owner))
        self._renderings.keep({chain.key for chain in ruleset.chains})
        return tuple(findings)

    def _look_around(self) -> Around:
        """The tables and the base chains of everybody, read again only where somebody else has written."""
        generation = self._netlink.generation()
        if self._around is None or self._around.generation != generation:
            self._around = look_around(self._netlink)
        return self._around


_UNKNOWN: Final = Snapshot()
"""What a batch left where the kernel's answers don't say it."""
_FAMILIES: Final = {name: family for family, name in FAMILIES.items()}


def _option(site: Site, name: str) -> bool:
    unknown = sorted(set(site.options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}", key=f"backend.{NAME}", expected=" or ".join(_OPTIONS))
    value = site.options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{value!r} is not true or false", key=f"backend.{NAME}.{name}", expected="true or false")
    return value


def _holds(known: Snapshot, keys: Iterable[ListKey | SetKey]) -> bool:
    return all(key in known.sets if isinstance(key, tuple) else key in known.lists for key in keys)
