"""What stands in a kernel where each backend keeps its rules: the owner's, and what shows which way others go here.

It is asked before a backend is chosen, so it only looks: no process, no module loaded, no table made. Whose a chain is
must be told from little:

* on nft, by the table: one of ours bears our mark, and other backends' tables are iptables' own, known by base chains
  of the names that only iptables gives (``INPUT``), since nft's users put chains of their own into ``ip filter`` too;
* on iptables, by the chain's name, ``OWNER-...`` or ``OWNER.HOOK.PLACE``: whoever has a dispatcher there is an owner of
  ours. An owner whose chains nothing leads to has no dispatcher; then the marker at their beginning tells, and chains
  of other owners in that rare state pass for foreign.

Rules that lead from a built-in chain to a dispatcher are ours as well. So nothing of meshfw ever shows that others go
some way, and what was once chosen by chance does not confirm itself.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshfw.backend import Site
from meshfw.backends.layout import MARK, iptables_dispatcher, is_marked, owned_iptables_chain
from meshfw.hookspecs import Presence
from meshfw.kernel.modules import surely_absent
from meshfw.kernel.netlink import TABLE_DORMANT, NfChain, Nfnetlink, NfTable
from meshfw.kernel.xtables import Xtables, XtTable
from meshfw.languages.nft import FAMILIES
from meshfw.model import HOOKS, Family, Table
from meshfw.printable import counted

_TOOL: Final = "iptables"
_SHOWN: Final = 4
_HINTS: Final = frozenset({"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"})
"""Empty chains by which kubelet shows its containers which iptables this host uses (Kubernetes' KEP-3178)."""
_VERDICT_CHAIN: Final = 2  # linux/netfilter/nf_tables.h, enum nft_verdict_attributes
_FAMILY_OF: Final[Mapping[str, Family]] = {name: family for family, name in FAMILIES.items()}
_TABLES: Final = frozenset(table.value for table in Table)


class Held(msgspec.Struct, frozen=True):
    """What one table of iptables holds, for both ways to store it.

    ``own`` counts chains of the owner, ``rules`` those of others; ``about`` is whether jumps were counted in, ``drops``
    whether a built-in chain's policy is DROP, which no backend of ours sets, ``hinted`` whether kubelet left its hint.
    """

    family: Family
    table: Table
    own: int = 0
    rules: int = 0
    about: bool = False
    drops: bool = False
    hinted: bool = False


def nft_presence(site: Site) -> Presence:
    """The owner's tables of nf_tables, and the tables of others that are nobody's but nft's."""
    if _nothing_there():
        return Presence()
    with Nfnetlink(site.netns) as netlink:
        return nft_told(netlink.tables(), netlink.chains(), owner=site.owner)


def nft_tables(netns: str | None = None) -> tuple[tuple[str, str], ...]:
    """Family and name of each table of nf_tables in a network namespace, for the ``presence`` of a backend's plugin.

    The families are nft's words: ``ip``, ``ip6``, ``inet``, ``arp``, ``bridge``, ``netdev``. It's asked over netlink:
    no process is started, no module loaded. ``netns`` is as in a Site.

    Raises:
        KernelError: the kernel doesn't tell, or there is no such namespace.
    """
    if _nothing_there():
        return ()
    with Nfnetlink(netns) as netlink:
        return tuple((table.family, table.name) for table in netlink.tables())


def iptables_nft_presence(site: Site) -> Presence:
    """The owner's chains in iptables-nft's tables, and the rules of others in them."""
    if _nothing_there():
        return Presence()
    with Nfnetlink(site.netns) as netlink:
        return iptables_told(_held_by_nft(netlink, site.owner))


def iptables_legacy_presence(site: Site) -> Presence:
    """The owner's chains in the legacy tables that exist, and the rules of others in them."""
    tables: dict[tuple[Family, Table], XtTable] = {}
    for family in Family:
        with Xtables(family, site.netns) as xtables:
            for table in xtables.tables():
                tables[family, table] = xtables.parse(xtables.read(table))
    return iptables_told(_held_by_legacy(tables, site.owner))


def _nothing_there() -> bool:
    """Whether nf_tables isn't loaded: a first message would load it."""
    return surely_absent("nf_tables") or surely_absent("nfnetlink")


# --- in words ----------------------------------------------------------------------------------------------


def nft_told(tables: Iterable[NfTable], chains: Iterable[NfChain], *, owner: str) -> Presence:
    """What tables and chains of nf_tables tell of its native use."""
    own: list[str] = []
    foreign: dict[tuple[str, str], list[NfChain]] = {}
    for table in tables:
        if table.family in _FAMILY_OF and is_marked(table.userdata):
            if table.name == owner:
                own.append(f"table {table.family} {table.name}")
        elif table.family in ("inet", *_FAMILY_OF) and not table.flags & TABLE_DORMANT:
            foreign[table.family, table.name] = []
    for chain in chains:
        if (chain.family, chain.table) in foreign:
            foreign[chain.family, chain.table].append(chain)
    used = {
        f"table {family} {name}": _native(held)
        for (family, name), held in foreign.items()
        if any(chain.hook is not None and not is_built_in(chain) for chain in held)
    }
    return Presence(own=_enumerated(own), others=_enumerated(list(used)), rules=sum(used.values()))


def _native(chains: Collection[NfChain]) -> int:
    """About how many rules a table holds; in one that is iptables' too only those of its other base chains count."""
    if any(map(is_built_in, chains)):
        return sum(chain.use for chain in chains if chain.hook is not None and not is_built_in(chain))
    return sum(chain.use for chain in chains)


def is_built_in(chain: NfChain) -> bool:
    """Whether a chain is one of iptables-nft's built-in ones."""
    if chain.hook is None or chain.family not in _FAMILY_OF or chain.table not in _TABLES:
        return False
    return chain.name in {hook.value.upper() for hook in HOOKS[Table(chain.table)]}


def iptables_told(held: Iterable[Held]) -> Presence:
    """What tables of iptables tell."""
    own, others, rules = [], [], 0
    for table in held:
        place = f"in {table.family} {table.table}"
        if table.own:
            own.append(f"{counted(table.own, 'chain')} {place}")
        found = [f"{'about ' if table.about else ''}{counted(table.rules, 'rule')}"] if table.rules else []
        found += ["a DROP policy"] if table.drops else []
        found += ["kubelet's hint"] if table.hinted else []
        if found:
            others.append(f"{' and '.join(found)} {place}")
        rules += table.rules
    return Presence(own=_enumerated(own), others=_enumerated(others), rules=rules, tool=_TOOL)


def _enumerated(parts: Sequence[str]) -> str:
    """Some of the parts, and how many more there are."""
    more = [f"{len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return ", ".join([*parts[:_SHOWN], *more])


# --- the tables of iptables --------------------------------------------------------------------------------


def _owners(names: Iterable[str]) -> frozenset[str]:
    """The owners of whom a dispatcher is among these chains."""
    return frozenset(found[0] for name in names if (found := iptables_dispatcher(name)) is not None)


def _is_owned(name: str, owners: Collection[str]) -> bool:
    return any(owned_iptables_chain(owner, name) for owner in owners)


def _mark(owner: str) -> bytes:
    """The beginning of every marker of an owner."""
    return f"{MARK}:{owner}:".encode()


def _held_by_legacy(tables: Mapping[tuple[Family, Table], XtTable], owner: str) -> Iterator[Held]:
    owners = _owners(name for table in tables.values() for name in table)
    for (family, table), chains in tables.items():
        users = [chain for chain in chains.values() if chain.hook is None]
        ours = {
            chain.name
            for chain in users
            if _is_owned(chain.name, owners)
            or (owned_iptables_chain(owner, chain.name) and any(_mark(owner) in rule.body for rule in chain.rules[:1]))
        }
        foreign = [rule for chain in chains.values() if chain.name not in ours for rule in chain.rules]
        yield Held(
            family=family,
            table=table,
            own=sum(owned_iptables_chain(owner, name) for name in ours),
            rules=sum(rule.jump not in ours for rule in foreign),
            drops=any(chain.policy == "drop" for chain in chains.values()),
            hinted=not _HINTS.isdisjoint(chains),
        )


def _held_by_nft(netlink: Nfnetlink, owner: str) -> Iterator[Held]:
    tables: dict[tuple[Family, Table], list[NfChain]] = {}
    for chain in netlink.chains():
        if chain.family in _FAMILY_OF and chain.table in _TABLES:
            tables.setdefault((_FAMILY_OF[chain.family], Table(chain.table)), []).append(chain)
    owners = _owners(chain.name for chains in tables.values() for chain in chains)
    for (family, table), chains in tables.items():
        built_in = [chain for chain in chains if is_built_in(chain)]
        users = [chain for chain in chains if chain.hook is None]
        ours = {
            chain.name
            for chain in users
            if _is_owned(chain.name, owners)
            or (owned_iptables_chain(owner, chain.name) and _has_marker(netlink, chain, owner))
        }
        own = sum(owned_iptables_chain(owner, name) for name in ours)
        if not built_in:  # a table that nft(8) made
            yield Held(family=family, table=table, own=own)
            continue
        regular = sum(chain.use for chain in users if chain.name not in ours)
        yield Held(
            family=family,
            table=table,
            own=own,
            rules=regular + sum(chain.use - _jumps(netlink, chain, ours) for chain in built_in),
            about=bool(regular),
            drops=any(chain.policy == "drop" for chain in built_in),
            hinted=any(chain.name in _HINTS for chain in users),
        )


def _has_marker(netlink: Nfnetlink, chain: NfChain, owner: str) -> bool:
    """Whether a chain begins with the owner's marker, wherever this iptables keeps comments."""
    rules = netlink.rules(chain.family, chain.table, chain.name)
    return any(_mark(owner) in rule.expressions + rule.userdata for rule in rules[:1])


def jump_expression(chain: str) -> bytes:
    """What the expressions of a rule that leads to a chain hold (nf_tables.h, NFTA_VERDICT_CHAIN)."""
    return struct.pack("=HH", len(chain) + 5, _VERDICT_CHAIN) + chain.encode() + b"\0"


def _jumps(netlink: Nfnetlink, chain: NfChain, ours: Collection[str]) -> int:
    """How many rules of a built-in chain lead to a dispatcher of ours; it's read only where there is one."""
    names = [name for name in ours if iptables_dispatcher(name) is not None]
    if not names or not chain.use:
        return 0
    targets = list(map(jump_expression, names))
    rules = netlink.rules(chain.family, chain.table, chain.name)
    return min(chain.use, sum(any(target in rule.expressions for target in targets) for rule in rules))
