"""The backend ``toy``: rules in two tables of nf_tables, by the command nft(8).

An owner's tables are ``ip OWNER-toy`` and ``ip6 OWNER-toy``.

The backend is small because it promises little. Whatever it reads, it reads all of (``nft --json list table``, a
process for each family); whatever it changes is one ``nft -f -`` for both families, which the kernel takes as a whole
or not at all, and in which a chain that changes is emptied and filled again. What should stand is never decided here:
the plan says what a list was and shall be, and ``NftDialect`` knows how nft says it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from meshfw import (
    Atomicity,
    Cache,
    Capabilities,
    CommandError,
    Committed,
    ConfigError,
    Dispatcher,
    Family,
    Fingerprint,
    ListKey,
    NftDialect,
    Observed,
    ObservedList,
    ObservedRule,
    Plan,
    Ruleset,
    Site,
    Snapshot,
    Step,
    Transaction,
    Unsupported,
    run_tool,
)

from meshfw_toy import table_of

LIST = ("nft", "--json", "--numeric-priority", "--numeric-protocol", "list", "table")
LOAD = ("nft", "-f", "-")
OURS = '{ comment "meshfw"; }'  # by it meshfw tells a table of its own from those of others


class ToyBackend:
    """One owner's rules in two tables of one network namespace; the protocol is that of ``meshfw.Backend``."""

    api_version = 1
    name = "toy"
    # What it can't do, it says: each word here takes a law back, or makes it ask for less.
    capabilities = Capabilities(
        atomicity=Atomicity.RULESET,  # one transaction for everything
        foreign_accept_wins=False,  # in nf_tables an accept ends only the chain that it stands in
        native_sets=False,  # meshfw turns sets into rules before this backend sees them
        processes_per_family=2,  # one to write, one to look at what came of it
    )

    def __init__(self, site: Site) -> None:
        for key in site.options:
            raise ConfigError(f"unknown option {key!r}", key="backend.toy", expected="no options")
        self.cache = Cache()
        self._netns = site.netns
        self._table = table_of(site.owner)
        self._nft = NftDialect(site.language)

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        """What nft can't say."""
        return tuple(self._nft.findings(ruleset))

    def fingerprint(self) -> Fingerprint | None:
        """None: it can't tell cheaply whether anybody wrote, so every reconcile looks."""
        return None

    def close(self) -> None:
        """Nothing is open."""

    def watch(self) -> None:
        """None: it hears of nobody's writes."""

    # --- reading ---

    def observe(self, keys: Collection[ListKey | tuple[Family, str]] | None = None) -> Observed:
        """All that stands in the two tables; ``keys`` would allow to read less."""
        self.cache.costs.reads += 1
        lists: dict[ListKey, ObservedList] = {}
        broken: dict[Family, str] = {}
        for family in Family:
            listed = self._listed(family)
            if listed is None:
                continue
            found, problem = self._lists(listed)
            lists.update(found)
            if problem or not found:
                broken[family] = problem or "an empty table was left behind"
        return Observed(Snapshot(lists=lists, broken=broken))

    def _listed(self, family: Family) -> list[dict[str, Any]] | None:
        """What nft lists of a family's table, one object each; None where there is no such table."""
        command = (*LIST, self._nft.family(family), self._table)
        done = run_tool(command, netns=self._netns, check=False)
        self.cache.costs.processes += 1
        if done.returncode == 0:
            listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
            return listed
        if "No such file or directory" in done.stderr:  # strerror(ENOENT): nft sets no locale
            return None
        raise CommandError(command, returncode=done.returncode, stderr=done.stderr)

    def _lists(self, listed: list[dict[str, Any]]) -> tuple[dict[ListKey, ObservedList], str]:
        """The chains with their rules, and why the table has to be built anew; empty where it needn't be."""
        chains: dict[str, ObservedList] = {}
        rules: dict[str, list[ObservedRule]] = {}
        problem = ""
        for entry in listed:
            ((kind, body),) = entry.items()
            if kind == "chain":
                held = self._nft.list_of(body)
                if isinstance(held, str):
                    problem = held
                else:
                    chains[body["name"]] = held
            elif kind == "rule" and body["chain"] in chains:
                chain = body["chain"]
                rules.setdefault(chain, []).append(self._nft.rule_of(chains[chain].key, body))
            elif kind not in ("metainfo", "table", "rule"):
                problem = f"{kind} {body.get('name', '')} is not one of meshfw's"
        found = {
            held.key: ObservedList(held.key, tuple(rules.get(chain, ())), held.policies)
            for chain, held in chains.items()
        }
        return found, problem

    # --- writing ---

    def compile(self, plan: Plan) -> Transaction:
        """One step for both families; each line is a whole command of nft's."""
        lines = [line for family in Family for line in self._lines(plan, family)]
        steps = (Step(LOAD, "".join(f"{line}\n" for line in lines)),) if lines else ()
        return Transaction(self.name, steps, plan)

    def _lines(self, plan: Plan, family: Family) -> Iterator[str]:
        table = f"{self._nft.family(family)} {self._table}"
        changes = [change for change in plan.lists if change.key.family is family]
        fresh = family in plan.rebuilt
        if fresh or (family not in plan.desired.families and any(change.old for change in changes)):
            yield f"delete table {table}"
        if family not in plan.desired.families or not changes:
            return
        yield f"add table {table} {OURS}"
        # Chains are made before a rule can jump to them, and go after the last rule that did.
        for change in changes:
            chain = f"{table} {self._nft.chain(change.key)}"
            if change.new is not None:
                yield f"add chain {chain}{self._hooked(change.new)}"
            if change.old is not None and not fresh:
                yield f"flush chain {chain}"
        for change in changes:
            chain = f"{table} {self._nft.chain(change.key)}"
            yield from (f"add rule {chain} {text}" for text in self._nft.rules(plan, change))
        yield from (f"delete chain {table} {self._nft.chain(change.key)}" for change in changes if change.new is None)

    def _hooked(self, new: object) -> str:
        return f" {{ {self._nft.hooked(new)} }}" if isinstance(new, Dispatcher) else ""

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        """Run it. Whether somebody else wrote meanwhile it can't tell, so meshfw reads everything again."""
        for step in transaction.steps:
            run_tool(step.command, netns=self._netns, input=step.input)
            self.cache.costs.processes += 1
        self.cache.costs.commits += 1
        return Committed(fingerprint=None, exclusive=False)
