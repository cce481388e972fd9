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
from meshfw.backends.nft_depth import Known, deep_paths
from meshfw.backends.nft_edits import Edits
from meshfw.backends.nft_listing import (
    Expected,
)
from meshfw.backends.nft_loading import run_steps, transaction_texts
from meshfw.backends.nft_neighbours import (
    Around,
    look_around,
    neighbour_findings,
    own_places_findings,
    shared_chains,
    table_findings,
)
from meshfw.backends.nft_raw import OwnTables
from meshfw.backends.nft_reading import Reading
from meshfw.backends.nft_rendering import Renderings
from meshfw.backends.nft_text import restart_notes, rule_texts
from meshfw.backends.nft_watch import NftWatch, noted, own_tables
from meshfw.backends.standing import mapped_files, sealed
from meshfw.errors import BackendError, ConcurrentChangeError, ConfigError, InexpressibleError, KernelError
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.netns import Namespace, entered
from meshfw.model import Family, Place, Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.snapshot import ListKey, Snapshot

NAME: Final = "nft"
_OPTIONS: Final = ("isolated", "adopt")
_READS: Final = 5
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
        self._reading = Reading(site, netlink=self._netlink, nft=self._nft)
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

    def moved(self, since: Fingerprint) -> Collection[ListKey] | None:
        """The lists whose bytes aren't those of an earlier fingerprint; None where more than lists may differ."""
        return self._own.moved(since)

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
                snapshot = self._reading.read(keys, expected=self._expected if before == self._own_generation else {})
            except KernelError as refused:
                if refused.errno != errno.ENOENT:
                    raise
                error = refused  # a chain that went while we read
                continue
            if snapshot.rules > _TRIM:
                self._nft.trim()
            after = self._netlink.settled()
            if after == before or self._own.at(after) == fingerprint:  # others wrote, and elsewhere
                return Observed(snapshot, fingerprint)
        if snapshot is None and error is not None:
            raise error
        return Observed(snapshot or Snapshot(), None)

    # --- writing ---

    def compile(self, plan: Plan) -> Transaction:
        """The text for libnftables, which is one transaction of the kernel, or several where new chains are large."""
        self._renderings.place(plan.desired)
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
                    if self._edits.prepared(transaction) is not None:
                        self._edits.distrust()  # the batch was refused, and the same by libnftables wasn't
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
            return None  # the same text by libnftables works, or says in its own words why not
        found = self._edits.outcome(prepared, written)
        if found is None and not written.lost:
            self._edits.distrust()  # the kernel holds something else than what it was given: all is read again
        return found or _UNKNOWN

    # --- what can't be said ---

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Rules that nft can't express, and hooks where foreign chains would be overruled or overrule us."""
        around = self._look_around()
        findings = list(table_findings(around.tables, owner=self._owner, adopt=self._adopt))
        self._renderings.place(ruleset)
        for chain in ruleset.chains:
            findings.extend(self._renderings.findings(chain))
        findings.extend(self._renderings.shared_meters(ruleset.chains))
        for attachment in ruleset.attachments:
            try:
                self._renderings.rule(attachment.dispatcher, attachment.rule)
            except InexpressibleError as error:
                findings.append(Unsupported(f"attachment to {attachment.dispatcher}", error.reason))
        findings.extend(deep_paths(ruleset, known=self._paths))
        findings.extend(own_places_findings(ruleset))
        if not self._isolated and ruleset.attachments:
            chains = around.chains
            if any(attachment.place is Place.LAST for attachment in ruleset.attachments):
                chains = shared_chains(self._netlink, chains, owner=self._owner)
            findings.extend(neighbour_findings(ruleset, chains, owner=self._owner))
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
