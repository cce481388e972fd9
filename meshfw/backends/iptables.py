"""The iptables backends, legacy and nft: one module, two variants, both families together.

What is there is read in process as bytes, and compared with what was there before; only rules whose bytes are new are
asked for as text, with one process for each family. A change is one iptables-restore for each changed family, which
prints in the same process what then stands: the questions of the proof ride in the commit's own input, behind the last
COMMIT. The kernel takes each table as a whole, and no more than that together; so an error puts back what was committed
before it, and the reading of bytes tells what stands where.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from meshfw.backend import (
    API_VERSION,
    Atomicity,
    Cache,
    Capabilities,
    Committed,
    Fingerprint,
    Observed,
    Site,
    Transaction,
    Unsupported,
    Watch,
)
from meshfw.backends.iptables_learning import Texts
from meshfw.backends.iptables_listing import observed_lists
from meshfw.backends.iptables_losses import Losses
from meshfw.backends.iptables_options import options_of
from meshfw.backends.iptables_raw import LegacyReader, Look, NftReader, Part, Reader
from meshfw.backends.iptables_standing import look_digest
from meshfw.backends.iptables_steps import Tidying, check_steps, restart_notes, steps_of, tidying
from meshfw.backends.iptables_text import tables_of
from meshfw.backends.iptables_tool import LEGACY, NFT, ChainRules, Tool, Variant
from meshfw.backends.iptables_undo import Undoing
from meshfw.backends.layout import LEFT_OVER, TableKey, iptables_chain, table_of
from meshfw.backends.lock_watch import LockWatch, lock_watch, own_opening
from meshfw.backends.nft_depth import Known, deep_paths
from meshfw.backends.nft_neighbours import dormant_findings, overruling_findings
from meshfw.backends.nft_watch import NftWatch, noted, own_chains
from meshfw.backends.standing import sealed
from meshfw.errors import BackendError, ConcurrentChangeError
from meshfw.kernel.lock import XtablesLock, xtables_lock
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.netns import HeldNamespace
from meshfw.kernel.xtables import Xtables
from meshfw.model import ChainKey, Family, Rule, Ruleset, SetKey
from meshfw.plan import Plan
from meshfw.snapshot import ListKey, ObservedList, Snapshot

_READS = 5


def iptables_nft(site: Site) -> IptablesBackend:
    """The backend over nf_tables as iptables sees it."""
    return IptablesBackend(site, NFT)


def iptables_legacy(site: Site) -> IptablesBackend:
    """The backend over the kernel's legacy tables."""
    return IptablesBackend(site, LEGACY)


class IptablesBackend:
    """Keeps a ruleset in user chains of iptables' tables, in one network namespace.

    Options: ``adopt`` (bool): chains of the owner's names that somebody else made are taken over. ``wait`` (whole
    seconds, 10 by default): how long to wait for the lock of the legacy tables.

    Raises:
        KernelError: no CAP_NET_ADMIN in the namespace, or no such kernel.
    """

    api_version = API_VERSION

    def __init__(self, site: Site, variant: Variant) -> None:
        self._variant = variant
        self._owner = site.owner
        self._options = options_of(site, variant.name)
        self.cache = Cache()
        self._home = HeldNamespace(site.netns)
        try:
            self._reader, self._netlink = _reader(site, variant)
        except BaseException:
            self._home.close()
            raise
        self._tool = Tool(variant, self._home, wait=self._options.wait, costs=self.cache.costs)
        self._undoing = Undoing(self._reader, self._tool, owner=site.owner)
        self._texts = Texts(site.owner, site.language, reader=self._reader, tool=self._tool)
        self._known: Look | None = None
        self._epoch = 0
        self._paths: Known = {}
        self._losses = Losses("legacy" if variant.legacy else "nft", site.language)
        self._fresh = False
        self._unproven: tuple[Plan, Mapping[Family, str]] | None = None
        self._events: NftWatch | None = None
        self._hints: LockWatch | None = None

    @property
    def name(self) -> str:
        """The variant's name."""
        return self._variant.name

    @property
    def capabilities(self) -> Capabilities:
        """Each table by itself, at most one process for each family; whoever accepts first ends the hook."""
        return Capabilities(
            atomicity=Atomicity.TABLE,
            foreign_accept_wins=True,
            opaque=True,
            native_sets=False,
            processes_per_family=1,
            counters_move=self._variant.counters_move,
        )

    def close(self) -> None:
        """Close the sockets and let the namespace go; the rules stay."""
        for watch in (self._events, self._hints):
            if watch is not None:
                watch.close()
        self._reader.close()
        self._home.close()

    def watch(self) -> Watch | None:
        """Commits by anybody; for legacy tables hints that somebody may have written, None where there can't be any."""
        if self._netlink is None:
            self._hints = self._hints or lock_watch()
            return self._hints
        if self._events is None:
            scope, started = own_chains(self._owner), self._tool.started
            self._events = NftWatch(scope, self._netlink, started=started)
        return self._events

    # --- reading ---

    def fingerprint(self) -> Fingerprint | None:
        """A number that moves whenever the bytes of our chains, or the jumps to them, are others than before."""
        return self._print(self._now())

    def _now(self, tables: Collection[TableKey] | None = None) -> Look:
        """What stands now, apart from counters; ``tables`` are those that matter."""
        known = self._known
        if known is None or not self._reader.still(known, tables):
            later = None if known is None else self._reader.later(known)
            if later is None:
                return self._refreshed()
            known = self._known = later
        return known

    def digest(self) -> str | None:
        """The digest of our chains and of what leads to them, for a later process; None where others keep writing."""
        told = self.fingerprint()
        if told is None or self._known is None:
            return None
        return sealed(look_digest(self._known), self._home.identity, self._owner, self._options, files=self._tool.files)

    def _print(self, look: Look) -> Fingerprint | None:
        return None if look.stamp is None else Fingerprint((self._epoch, self._home.identity))

    def _refreshed(self) -> Look:
        """All of ours, read anew."""
        look = self._reader.look()
        if self._known is None or not look.same(self._known):
            self._epoch += 1
        else:  # somebody wrote elsewhere, and may go on
            self._reader.mark(look, since=self._known)
        self._known, self._fresh, self._unproven = look, False, None
        return look

    def observe(self, keys: Collection[ListKey | SetKey] | None = None) -> Observed:
        """Our chains as they are now, and what leads to them; ``keys`` narrows the reading."""
        self.cache.costs.reads += 1
        part = None if keys is None else self._part(key for key in keys if not isinstance(key, tuple))
        silent: str | None = ""
        for _ in range(_READS):
            look = self._look(part)
            self._learn(look)
            new = self._texts.missing(look, part)
            silent = self._ask(new, look) if new else ""
            if silent == "":
                return Observed(self._snapshot(look, part), self._print(look))
        if silent:
            raise BackendError(f"iptables lists other rules in {silent} than the kernel has there", backend=self.name)
        raise BackendError("others kept writing while the rules were read", backend=self.name, remedy="try again")

    def _look(self, part: Part | None) -> Look:
        """A reading whose counters are of now, in the chains that are asked for."""
        known, fresh, self._fresh = self._known, self._fresh, False
        if part is None or known is None or not self._reader.still(known):
            return self._refreshed()
        if not fresh:
            now = self._reader.look(part)
            if not known.is_of(now):
                return self._refreshed()
            known = self._known = known.with_part(now, part)
        return known

    def _part(self, keys: Iterable[ListKey]) -> Part:
        part: dict[TableKey, set[str]] = {}
        for key in keys:
            part.setdefault(table_of(key), set()).add(self._chain(key))
        return part

    def _chain(self, key: ListKey) -> str:
        if isinstance(key, ChainKey) and key.name.endswith(LEFT_OVER):
            return key.name.removesuffix(LEFT_OVER)
        return iptables_chain(self._owner, key)

    def _ask(self, chains: Mapping[Family, Sequence[ChainRules]], look: Look) -> str | None:
        with self._alone() as lock:  # the tool takes the lock for questions too, but can't say who holds it
            return self._texts.ask(chains, look, lock)

    def _learn(self, look: Look) -> None:
        """Learn from the last commit, once."""
        if self._unproven is not None:
            (plan, printed), self._unproven = self._unproven, None
            self._texts.learn(plan, printed, look)

    def _snapshot(self, look: Look, part: Part | None) -> Snapshot:
        lists: dict[ListKey, ObservedList] = {}
        strangers: dict[ListKey, str] = {}
        for table, raw in look.tables.items():
            if part is None or table in part:
                reading = self._texts.reading(table[0], adopt=self._options.adopt)
                found, foreign = observed_lists(table, raw, reading, only=None if part is None else part[table])
                lists.update(found)
                strangers.update(foreign)
        return Snapshot(lists, strangers=strangers)

    # --- writing ---

    def compile(self, plan: Plan) -> Transaction:
        """One input for each family's iptables-restore; the texts are what it will then print."""
        tidy = not self._variant.legacy
        steps = steps_of(plan, self._tool, render=self._render, owner=self._owner, tidy=tidy)
        texts = {change.key: tuple(self._render(change.key, rule) for rule in change.rules) for change in plan.lists}
        notes = tuple(restart_notes(plan, self._variant))
        return Transaction(self.name, steps, plan, texts, notes, rewrites=plan.moves(in_place=True))

    def _render(self, key: ListKey, rule: Rule) -> str:
        return self._texts.written(rule, key.family)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Run the steps; what was committed before an error is put back.

        Raises:
            PartialCommitError: putting back failed as well; it says what stands where.
        """
        plan = transaction.plan
        check_steps(transaction.steps, self._tool)
        with self._alone() as lock, noted(self._events) as own:
            before = self._before(based_on, plan)
            printed: dict[Family, str] = {}
            tidied, costs, began = 0, self.cache.costs, time.monotonic()
            try:
                for step in transaction.steps:
                    family = self._tool.family(step.command)
                    if family is not None:
                        printed[family] = self._tool.restore(family, step.input, lock=lock)
                    elif self._netlink is not None:
                        tidied += _tidied(self._netlink, tidying(step))
            except BaseException as error:
                self._known = None
                self._texts.forget()
                self._undoing.put_back(plan, before, error, lock)
                raise
            own.made = len(tables_of(plan)) + tidied
            costs.commits += 1
            costs.commit_seconds += time.monotonic() - began
            undisturbed = not self._variant.legacy or lock is not None
            exclusive = based_on is not None and undisturbed
            return self._committed(plan, before, printed, exclusive=exclusive, tidied=tidied)

    @contextmanager
    def _alone(self) -> Iterator[XtablesLock | None]:
        """A block in which no other iptables-legacy writes; nf_tables counts its commits, and needs no lock for it.

        Gives what programs need that are started inside, None where nothing is locked.
        """
        if self._variant.legacy and self._tool.takes_lock_file:
            began = time.monotonic()
            with own_opening(self._hints) as taken, xtables_lock(timeout=self._options.wait) as lock:
                taken()
                self.cache.costs.lock_seconds += time.monotonic() - began
                yield lock
        else:
            yield None

    def _before(self, based_on: Fingerprint | None, plan: Plan) -> Look:
        """What stands before a commit; ConcurrentChangeError where that isn't what it is based on.

        Whatever it is based on: chains are edited by position, so those of the plan are what it was made for.
        """
        known = self._now(tables_of(plan))
        if (based_on is not None and based_on != self._print(known)) or not all(
            change.old is None or change.old.backing.is_of(known.table(table_of(change.key)).chains)
            for change in plan.lists
        ):
            raise ConcurrentChangeError("somebody else wrote since the rules were read", backend=self.name)
        return known

    def _committed(
        self, plan: Plan, before: Look, printed: Mapping[Family, str], *, exclusive: bool, tidied: int
    ) -> Committed:
        """Whether nobody else wrote, and what is known now: all but the lists of the plan, which are to be read.

        nf_tables counts its commits, each table is one; legacy tables are read while the lock is still held.
        """
        part = self._part(change.key for change in plan.lists)
        self._epoch += 1
        if self._variant.legacy:
            after = self._reader.look(dict.fromkeys(part))
            exclusive = exclusive and before.stands_in(after, part)
        else:
            after = self._reader.look({})
            exclusive = exclusive and None not in (before.stamp, after.stamp)
            exclusive = exclusive and after.stamp == before.stamp + len(part) + tidied
        if not exclusive:
            self._known = None
            return Committed(self.fingerprint(), exclusive=False)
        known = self._known = before.with_part(after, part)
        self._fresh = self._variant.legacy
        self._unproven = (plan, printed)
        return Committed(self._print(known), exclusive=True)

    # --- what can't be said ---

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Names that iptables can't tell apart, rules that it would store as others; on nf_tables paths too deep."""
        self._texts.want((*ruleset.chains, *ruleset.dispatchers()))
        findings: list[Unsupported] = []
        names: dict[tuple[TableKey, str], ChainKey] = {}
        for chain in ruleset.chains:
            name = iptables_chain(self._owner, chain.key)
            other = names.setdefault(((chain.family, chain.table), name), chain.key)
            if other != chain.key:
                findings.append(Unsupported(str(chain.key), f"both it and {other.name} shorten to {name}: rename one"))
        findings.extend(self._losses.findings(ruleset))
        if not self._variant.legacy:
            findings.extend(deep_paths(ruleset, most=NFT_DEPTH, known=self._paths))
        if self._netlink is not None and ruleset.attachments:
            findings.extend(overruling_findings(ruleset, self._netlink.chains(), owner=self._owner))
            findings.extend(dormant_findings(ruleset, self._netlink.tables()))
        return tuple(findings)


NFT_DEPTH = 14
"""Chains on a path behind a dispatcher: one less than where the dispatcher is a base chain itself."""


def _tidied(netlink: Nfnetlink, step: Tidying) -> int:
    """Take away what a step says; how many commits it took."""
    if step.objects:
        netlink.delete(step.objects)
    return bool(step.objects) + sum(netlink.remove_unused(*table) for table in step.tables)


def _reader(site: Site, variant: Variant) -> tuple[Reader, Nfnetlink | None]:
    if variant.legacy:
        return LegacyReader({family: Xtables(family, site.netns) for family in Family}, site.owner), None
    netlink = Nfnetlink(site.netns)
    return NftReader(netlink, site.owner), netlink
