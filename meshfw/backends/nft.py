"""The nft backend: native nf_tables through libnftables in process, both families in one transaction, no process.

While the generation of nf_tables stands, nobody wrote (4 µs over netlink); when it moved, digests of our own tables
tell whether any of ours did (:mod:`meshfw.backends.nft_raw`), and only then is anything read. After a commit of ours
that nobody interleaved, the touched chains are listed as text and compared with what was written; whenever somebody
else changed ours, our own two tables are read as JSON and compared by meaning. Rules of foreign tables are never
loaded: an older libnftables can crash on what a newer one wrote.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable
from typing import Final

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
from meshfw.backends.layout import is_marked, names_in, nft_set
from meshfw.backends.nft_depth import Known, deep_paths
from meshfw.backends.nft_listing import (
    Expected,
    JsonReader,
    Listing,
    chain_bodies,
    chain_state,
    prove,
)
from meshfw.backends.nft_neighbours import neighbour_findings, own_places_findings
from meshfw.backends.nft_raw import OwnTables
from meshfw.backends.nft_text import chain_name, restart_notes, rule_texts, transaction_text
from meshfw.backends.nft_watch import NftWatch, noted, own_tables
from meshfw.backends.standing import mapped_files, sealed
from meshfw.errors import BackendError, ConcurrentChangeError, ConfigError, InexpressibleError, KernelError
from meshfw.kernel.libnftables import Libnftables, Numeric
from meshfw.kernel.netlink import TABLE_DORMANT, TABLE_OWNED, Nfnetlink
from meshfw.kernel.netns import Namespace, entered
from meshfw.languages.iptables import format_rule
from meshfw.languages.nft import FAMILIES, NftText, render_rule
from meshfw.model import (
    Chain,
    Family,
    Policy,
    Rule,
    Ruleset,
    SetKey,
)
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
        self._texts: dict[ListKey, tuple[Chain, tuple[NftText, ...]]] = {}
        self._expected: dict[ListKey, Expected] = {}
        self._own_generation = -1
        self._paths: Known = {}
        self._watch: NftWatch | None = None

    @property
    def capabilities(self) -> Capabilities:
        """One transaction for everything; an accept ends only our own chain."""
        return Capabilities(atomicity=Atomicity.RULESET, foreign_accept_wins=False)

    def close(self) -> None:
        """Close the sockets and the library's context; the rules stay."""
        if self._watch is not None:
            self._watch.close()
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
        """Our tables as they are now; ``keys`` narrows the reading of rules and elements."""
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

    def _render_chain(self, chain: Chain) -> tuple[NftText, ...]:
        """The texts of a chain's rules, those of rules that an earlier chain of that name had reused."""
        known = self._texts.get(chain.key)
        if known is not None and known[0] is chain:
            return known[1]
        memo: dict[int, NftText] = {}
        if known is not None:
            memo = {id(rule): text for rule, text in zip(known[0].rules, known[1], strict=True)}
        names = names_in(chain.table)
        texts = [
            memo.get(id(rule)) or render_rule(rule, family=chain.family, language=self._language, names=names)
            for rule in chain.rules
        ]
        self._texts[chain.key] = (chain, tuple(texts))
        return self._texts[chain.key][1]

    def _renderer(self, plan: Plan) -> Callable[[ListKey, Rule], NftText]:
        known: dict[ListKey, dict[int, NftText]] = {}
        for change in plan.lists:
            if isinstance(change.new, Chain):
                texts = self._render_chain(change.new)
                known[change.key] = {id(rule): text for rule, text in zip(change.new.rules, texts, strict=True)}

        def render(key: ListKey, rule: Rule) -> NftText:
            text = known.get(key, {}).get(id(rule))
            if text is None:
                text = render_rule(rule, family=key.family, language=self._language, names=names_in(key.table))
            return text

        return render

    def compile(self, plan: Plan) -> Transaction:
        """One text for libnftables, which is one transaction of the kernel."""
        render = self._renderer(plan)
        present = self._tables_of(plan)
        text = transaction_text(plan, render, owner=self._owner, present=present)
        steps = (Step(("nft", "-f", "-"), text),) if text else ()
        return Transaction(NAME, steps, plan, rule_texts(plan, render), restart_notes(plan))

    @staticmethod
    def _tables_of(plan: Plan) -> frozenset[Family]:
        """The families whose table stands, as the plan saw it."""
        seen = {change.key.family for change in plan.lists if change.old is not None}
        seen |= {change.key[0] for change in plan.sets if change.old is not None}
        return frozenset(seen | set(plan.rebuilt))

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Run the transaction; the kernel takes all of it or nothing."""
        before = self._netlink.settled()
        if based_on is not None and based_on != self._own.at(before):
            raise ConcurrentChangeError("somebody else wrote since the rules were read", backend=NAME)
        self._own_generation = -1
        with noted(self._watch) as own:
            for step in transaction.steps:
                try:
                    self._nft.run(step.input, handles=False)
                except BackendError as error:
                    if self._netlink.generation() != before:
                        raise ConcurrentChangeError("somebody else wrote during the commit", backend=NAME) from None
                    raise _explained(error) from None
            own.made = len(transaction.steps)
        after = self._netlink.generation()
        exclusive = based_on is not None and after == before + len(transaction.steps)
        self._expected = {}
        if exclusive:
            self._own_generation = after
            self._expected = {
                change.key: Expected(transaction.texts[change.key], change.rules) for change in transaction.plan.lists
            }
        return Committed(self._own.committed(after if exclusive else None, transaction.plan), exclusive)

    # --- what can't be said ---

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """Rules that nft can't express, and hooks where foreign chains would be overruled or overrule us."""
        findings = list(self._check_tables())
        for chain in ruleset.chains:
            findings.extend(self._check_chain(chain))
        for attachment in ruleset.attachments:
            try:
                render_rule(
                    attachment.rule, family=attachment.family, language=self._language, names=names_in(attachment.table)
                )
            except InexpressibleError as error:
                findings.append(Unsupported(f"attachment to {attachment.dispatcher}", error.reason))
        findings.extend(deep_paths(ruleset, known=self._paths))
        findings.extend(own_places_findings(ruleset))
        if not self._isolated and ruleset.attachments:
            findings.extend(neighbour_findings(ruleset, self._netlink.chains(), owner=self._owner))
        wanted = {chain.key for chain in ruleset.chains}
        self._texts = {key: held for key, held in self._texts.items() if key in wanted}
        return tuple(findings)

    def _check_tables(self) -> Iterable[Unsupported]:
        """Tables of the owner's name that aren't ours to touch."""
        for table in self._netlink.tables():
            if table.name != self._owner or table.family not in _FAMILIES:
                continue
            where = f"table {table.family} {table.name}"
            if table.flags & TABLE_OWNED:
                yield Unsupported(where, "another process holds it for itself alone (flags owner): end that process")
            elif table.use and not self._adopt and not is_marked(table.userdata):
                yield Unsupported(
                    where,
                    "somebody else made and filled it (it lacks the comment of meshfw's tables): take another owner, "
                    "or say adopt = true under [backend.nft] to have it built anew",
                )

    def _check_chain(self, chain: Chain) -> Iterable[Unsupported]:
        name = chain_name(chain.key)
        if len(name) > _NAME_MAX:
            yield Unsupported(str(chain.key), f"its nft name has {len(name)} characters; {_NAME_MAX} are allowed")
        try:
            self._render_chain(chain)
        except InexpressibleError:  # of some rule: now of which, and of which others
            names = names_in(chain.table)
            for index, rule in enumerate(chain.rules, 1):
                try:
                    render_rule(rule, family=chain.family, language=self._language, names=names)
                except InexpressibleError as error:
                    text = format_rule(rule, family=chain.family, language=self._language)
                    yield Unsupported(f"{chain.key}, rule {index}", error.reason, text)


_NAME_MAX: Final = 255  # linux/netfilter/nf_tables.h, NFT_NAME_MAXLEN with the final NUL
_FAMILIES: Final = {name: family for family, name in FAMILIES.items()}


def _option(site: Site, name: str) -> bool:
    unknown = sorted(set(site.options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}", key=f"backend.{NAME}", expected=" or ".join(_OPTIONS))
    value = site.options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{value!r} is not true or false", key=f"backend.{NAME}.{name}", expected="true or false")
    return value


def _explained(error: BackendError) -> BackendError:
    """The library's refusal as ours, with the state the kernel is in."""
    if isinstance(error, KernelError):
        return KernelError(f"{error.reason}\nnothing was changed", errno=error.errno, backend=NAME, remedy=error.remedy)
    return BackendError(f"{error.reason}\nnothing was changed", backend=NAME, remedy=error.remedy)
