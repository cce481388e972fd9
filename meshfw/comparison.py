"""Two rulesets compared by meaning: which chains, rules and policies the other one has instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshfw.languages.dump import Dump, DumpChain, hook_of
from meshfw.model import Chain, ChainKey, Family, Policy, Ruleset, Table
from meshfw.plan import Edit, Formatter, diff
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot


def compare(old: Mapping[Family, Dump], new: Mapping[Family, Dump], formatter: Formatter) -> tuple[Edit, ...]:
    """What makes the one the other, in the manner of a plan; nothing where both mean the same.

    Counters are no part of it, nor is a built-in chain that holds nothing and accepts, and that one side doesn't list.

    Raises:
        ModelError: a ruleset that can't be, such as one with a jump to a chain that it doesn't have.
    """
    before, after = dict(_chains(old)), dict(_chains(new))
    policies = tuple(_policy_edits(before, after))
    for one, other in ((before, after), (after, before)):  # a built-in chain is there, listed or not
        one.update((key, DumpChain(key.name)) for key in other if key not in one and hook_of(key.name, key.table))
    lists: dict[ListKey, ObservedList] = {
        key: ObservedList(key, tuple(ObservedRule(entry.rule) for entry in chain.rules))
        for key, chain in before.items()
    }
    wanted = Ruleset(
        chains=tuple(
            Chain(family=key.family, table=key.table, name=key.name, rules=tuple(entry.rule for entry in chain.rules))
            for key, chain in after.items()
        )
    )
    return (*policies, *diff(Snapshot(lists), wanted).edits(formatter))


def _chains(dumps: Mapping[Family, Dump]) -> Iterator[tuple[ChainKey, DumpChain]]:
    for family, dump in dumps.items():
        for table in dump.tables:
            for chain in table.chains:
                if not _says_nothing(chain, table.table):
                    yield ChainKey(family, table.table, chain.name), chain


def _says_nothing(chain: DumpChain, table: Table) -> bool:
    return hook_of(chain.name, table) is not None and not chain.rules and chain.policy is not Policy.DROP


def _policy_edits(before: Mapping[ChainKey, DumpChain], after: Mapping[ChainKey, DumpChain]) -> Iterator[Edit]:
    for key in dict.fromkeys((*before, *after)):
        one, other = (_policy(key, held) for held in (before, after))
        if one != other:
            yield Edit("~", str(key), text=f"policy {other}", before=f"policy {one}")


def _policy(key: ChainKey, held: Mapping[ChainKey, DumpChain]) -> Policy | None:
    """The policy of a built-in chain, which a side that doesn't list it leaves at accept."""
    if hook_of(key.name, key.table) is None:
        return None
    return held[key].policy if key in held else Policy.ACCEPT
