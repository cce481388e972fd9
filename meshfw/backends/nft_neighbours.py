"""What foreign base chains mean for our attachments: in nft any drop wins, and an accept ends only its own chain."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import msgspec

from meshfw.backend import Unsupported
from meshfw.backends.layout import iptables_chain, is_marked
from meshfw.backends.presence import is_built_in, jump_expression
from meshfw.kernel.netlink import TABLE_DORMANT, TABLE_OWNED, NfChain, Nfnetlink, NfTable
from meshfw.languages.nft import FAMILIES
from meshfw.model import Attachment, ChainKey, DispatcherKey, Family, Goto, Hook, Jump, Place, Policy, Ruleset, Table


class Around(msgspec.Struct, frozen=True):
    """What everybody's tables are, and their base chains, at one generation of nf_tables."""

    generation: int
    tables: tuple[NfTable, ...]
    chains: tuple[NfChain, ...]


def look_around(netlink: Nfnetlink) -> Around:
    """What stands in a namespace beside us; read whole, and again whenever somebody writes."""
    before = netlink.settled()
    tables, chains = netlink.tables(), netlink.chains()
    after = netlink.generation()
    return Around(before if after == before else -1, tables, tuple(chain for chain in chains if chain.hook is not None))


_REACHED: Final = {"ip": (Family.IPV4,), "ip6": (Family.IPV6,), "inet": (Family.IPV4, Family.IPV6)}


def table_findings(tables: Iterable[NfTable], *, owner: str, adopt: bool) -> Iterator[Unsupported]:
    """Tables of the owner's name that aren't ours to touch."""
    for table in tables:
        if table.name != owner or table.family not in FAMILIES.values():
            continue
        where = f"table {table.family} {table.name}"
        if table.flags & TABLE_OWNED:
            yield Unsupported(where, "another process holds it for itself alone (flags owner): end that process")
        elif table.use and not adopt and not is_marked(table.userdata):
            yield Unsupported(
                where,
                "somebody else made and filled it (it lacks the comment of meshfw's tables): take another owner, "
                "or say adopt = true under [backend.nft] to have it built anew",
            )


def neighbour_findings(ruleset: Ruleset, chains: Iterable[NfChain], *, owner: str) -> Iterator[Unsupported]:
    """Attachments at place ``last`` that drop behind foreign base chains, and foreign policies that overrule us."""
    foreign = _on_hooks(chains, {owner})
    seen: set[tuple[Family, str, bool]] = set()
    for attachment in ruleset.attachments:
        others = foreign.get((attachment.family, attachment.hook.value), [])
        drops = attachment.place is Place.LAST and bool(others) and _drops(attachment, ruleset)
        mark = (attachment.family, attachment.hook.value, drops)
        if others and (drops or mark not in seen):
            seen.add(mark)
            yield from _findings(attachment, others, drops=drops)


def shared_chains(netlink: Nfnetlink, chains: Iterable[NfChain], *, owner: str) -> tuple[NfChain, ...]:
    """The base chains without those that iptables made for this owner alone, which go with the owner's rules there."""
    return tuple(chain for chain in chains if not _leads_to(netlink, chain, owner))


def _leads_to(netlink: Nfnetlink, chain: NfChain, owner: str) -> bool:
    """Whether a base chain of iptables' accepts, and holds nothing but rules that lead to the owner's dispatchers."""
    if not is_built_in(chain) or chain.policy == "drop" or not chain.use:
        return False
    rules = netlink.rules(chain.family, chain.table, chain.name)
    targets = [
        jump_expression(iptables_chain(owner, DispatcherKey(Family.IPV4, Table(chain.table), Hook(hook), place)))
        for hook in (chain.name.lower(),)
        for place in Place
    ]
    return all(any(target in rule.expressions for target in targets) for rule in rules)


def own_places_findings(ruleset: Ruleset) -> Iterator[Unsupported]:
    """Hooks with chains of ours at both places: what ``first`` accepts meets ``last`` all the same."""
    places = {(item.family, item.table, item.hook, item.place) for item in ruleset.attachments}
    for family, table, hook, place in sorted(places):
        if place is Place.FIRST and (family, table, hook, Place.LAST) in places:
            yield Unsupported(
                f"attachments to {family} {table} {hook}",
                'in nft an accept at place "first" passes the packet on to what is attached at place "last"',
                refuses=False,
            )


def overruling_findings(ruleset: Ruleset, chains: Iterable[NfChain], *, owner: str) -> Iterator[Unsupported]:
    """Policies of base chains beside iptables' own that drop whatever our rules in iptables' tables accept."""
    foreign = _on_hooks(chains, {owner, *(table.value for table in Table)})
    hooks = dict.fromkeys((attachment.family, attachment.hook.value) for attachment in ruleset.attachments)
    for family, hook in hooks:
        for attachment in ruleset.attachments:
            if (attachment.family, attachment.hook.value) == (family, hook):
                yield from _findings(attachment, foreign.get((family, hook), ()), drops=False)
                break


def dormant_findings(ruleset: Ruleset, tables: Iterable[NfTable]) -> Iterator[Unsupported]:
    """Tables of iptables' that somebody has switched off: no packet would meet what stands in them."""
    dormant = {(table.family, table.name) for table in tables if table.flags & TABLE_DORMANT}
    wanted = dict.fromkeys((FAMILIES[chain.family], chain.table.value) for chain in ruleset.chains)
    for family, name in wanted:
        if (family, name) in dormant:
            where = f"table {family} {name}"
            wake = f"nft 'add {where} {{ }}' wakes it"
            yield Unsupported(where, f"somebody made it dormant, so no packet meets what stands in it: {wake}")


_OnHooks = dict[tuple[Family, str], list[tuple[str, str]]]
"""By family and hook: base chains, each with its policy."""


def _on_hooks(chains: Iterable[NfChain], own: Collection[str]) -> _OnHooks:
    """The base chains that filter, but for those of tables of our own."""
    found: _OnHooks = {}
    for chain in chains:
        if chain.hook_name is None or (chain.table in own and chain.family in ("ip", "ip6")) or chain.type == "nat":
            continue
        place = (f"{chain.family} {chain.table} {chain.name}", chain.policy or "accept")
        for family in _REACHED.get(chain.family, ()):
            found.setdefault((family, chain.hook_name), []).append(place)
    return found


def _findings(attachment: Attachment, others: Collection[tuple[str, str]], *, drops: bool) -> Iterator[Unsupported]:
    where = f"attachment of {attachment.chain} to {attachment.dispatcher}"
    if drops:
        names = ", ".join(name for name, _ in others)
        yield Unsupported(
            where,
            f"it drops behind foreign base chains ({names}), and in nft that overrules their accept: "
            'attach it at place "first", or say isolated = true under [backend.nft]',
        )
    dropping = ", ".join(name for name, policy in others if policy == "drop")
    if dropping:
        yield Unsupported(
            where, f"the policy of {dropping} is drop, and in nft an accept of ours can't overrule it", refuses=False
        )


def _drops(attachment: Attachment, ruleset: Ruleset) -> bool:
    """Whether a packet can end here: by policy, or by a rule of a chain that it reaches."""
    if attachment.policy is Policy.DROP:
        return True
    chains = {chain.key: chain for chain in ruleset.chains}
    todo = [ChainKey(attachment.family, attachment.table, attachment.chain)]
    seen: set[ChainKey] = set()
    while todo:
        key = todo.pop()
        if key in seen:
            continue
        seen.add(key)
        for rule in chains[key].rules:
            target = rule.target
            if target is not None and target.drops:
                return True
            if isinstance(target, Jump | Goto):
                todo.append(ChainKey(key.family, key.table, target.chain))
    return False
