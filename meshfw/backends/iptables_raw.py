"""What a kernel holds of an owner in iptables' tables, read in process: rules as bytes, and the jumps to our chains.

Both variants of iptables give the same picture, from nf_tables' dumps or from the legacy tables' blobs. Equal bytes
mean an equal rule, whatever its place and its counters, so a text learned once for a body of bytes stays true, and a
reading that equals the last one needs no process. Only chains of the owner and the built-in chains are loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from meshfw.backends.iptables_digest import tables_digest
from meshfw.backends.layout import TableKey, owned_iptables_chain
from meshfw.kernel.netlink import TABLE_DORMANT, NfChain, Nfnetlink
from meshfw.kernel.nfexpr import NfBody, read_body, without_counter
from meshfw.kernel.xtables import Blob, Xtables
from meshfw.languages.nft import FAMILIES
from meshfw.model import HOOKS, Family, Hook, Table

_READS: Final = 5
_LOOKS: Final = 3


class Meaning(NamedTuple):
    """``jump`` is the chain that a rule leads to, ``told`` whether iptables lists all that it does.

    ``comment`` is the text of a rule that is nothing else, as far as the reader tells.
    """

    jump: str = ""
    told: bool = True
    comment: str = ""


_NOWHERE: Final = Meaning()
_UNTOLD: Final = Meaning(told=False)
_UNTELLABLE: Final = b"\0userdata\0"


class RawRule(NamedTuple):
    """A rule as bytes, and its counters; ``meaning`` is what it does as far as a reader told already."""

    body: bytes
    packets: int
    bytes: int
    meaning: Meaning | None = None


class RawTable(msgspec.Struct, frozen=True):
    """The owner's chains in one table; of each built-in chain, for each rule the chain that it jumps to and no more.

    ``hidden`` has the handles of jumps to a chain of the owner's, from the built-in chain of a hook, that stand behind
    a rule which iptables can't tell: it stops reading there, and doesn't find them.
    """

    chains: Mapping[str, tuple[RawRule, ...]] = {}
    jumps: Mapping[Hook, tuple[str, ...]] = {}
    hidden: Mapping[tuple[str, Hook], tuple[int, ...]] = {}
    taken: frozenset[str] = frozenset()
    """Names of ours that base chains of nft's have: no user chains, and none of ours."""
    dormant: bool = False
    """It is switched off, with all that stands in it (nft(8), dormant)."""

    def without(self, names: Collection[str]) -> RawTable:
        """The table but for some chains."""
        kept = {name: rules for name, rules in self.chains.items() if name not in names}
        return msgspec.structs.replace(self, chains=kept)

    def same(self, other: RawTable) -> bool:
        """Whether they differ in counters at most."""
        mine, others = ((it.jumps, it.hidden, it.taken, it.dormant) for it in (self, other))
        return mine == others and _same_chains(self, other)


def same_owned(one: RawTable, other: RawTable, owner: str) -> bool:
    """Whether the owner's chains are the same in both, and as many jumps lead to each, wherever in a built-in chain."""
    return _same_chains(one, other) and _own_jumps(one, owner) == _own_jumps(other, owner)


def _same_chains(one: RawTable, other: RawTable) -> bool:
    return one.chains.keys() == other.chains.keys() and all(
        len(rules) == len(other.chains[name])
        and all(mine.body == theirs.body for mine, theirs in zip(rules, other.chains[name], strict=True))
        for name, rules in one.chains.items()
    )


def _own_jumps(table: RawTable, owner: str) -> Counter[tuple[Hook, str]]:
    held = ((hook, name) for hook, names in table.jumps.items() for name in names)
    return Counter((hook, name) for hook, name in held if owned_iptables_chain(owner, name))


Part = Mapping[TableKey, Collection[str]]
"""Chains of some tables."""
Whole = Mapping[TableKey, None]
"""Some tables, with all of the owner's chains."""


class Look(msgspec.Struct, frozen=True):
    """One reading: ``stamp`` knows the moment for which it is true, None where others kept writing all the time."""

    stamp: Any
    tables: Mapping[TableKey, RawTable] = {}

    def same(self, other: Look) -> bool:
        """Whether they differ in counters at most."""
        mine, others = _filled(self.tables), _filled(other.tables)
        return mine.keys() == others.keys() and all(table.same(others[key]) for key, table in mine.items())

    def chains(self, part: Part | None = None) -> Iterator[tuple[TableKey, str, tuple[RawRule, ...]]]:
        """Its chains, or those of ``part``, each with its table and its rules."""
        for table, raw in self.tables.items():
            for name, rules in raw.chains.items():
                if part is None or name in part.get(table, ()):
                    yield table, name, rules

    def table(self, key: TableKey) -> RawTable:
        """One table; an empty one where it holds nothing of the owner's."""
        return self.tables.get(key, RawTable())

    def is_of(self, part: Look) -> bool:
        """Whether a later reading of a part is of the same moment: nobody has written, to other chains either."""
        if isinstance(part.stamp, dict):
            return all(self.stamp.get(table) == blob for table, blob in part.stamp.items())
        return part.stamp is not None and part.stamp == self.stamp

    def stands_in(self, later: Look, but: Part) -> bool:
        """Whether a later reading of whole tables has the same chains there, ``but`` for those named."""
        return all(
            _same_chains(self.table(key).without(names), later.table(key).without(names)) for key, names in but.items()
        )

    def with_part(self, part: Look, chains: Part) -> Look:
        """This reading with some chains as a later one of those chains saw them."""
        tables = dict(self.tables)
        for key, names in chains.items():
            new = part.table(key)
            tables[key] = msgspec.structs.replace(new, chains={**self.table(key).without(names).chains, **new.chains})
        stamp = {**self.stamp, **part.stamp} if isinstance(part.stamp, dict) else part.stamp
        return Look(stamp, tables)


def _filled(tables: Mapping[TableKey, RawTable]) -> dict[TableKey, RawTable]:
    return {key: table for key, table in tables.items() if table.chains}


class Reader(Protocol):
    """The kernel's side of a variant of iptables."""

    def look(self, part: Part | Whole | None = None) -> Look:
        """All of the owner's, or some chains (and the jumps of their tables); one moment, or no stamp."""
        ...

    def still(self, look: Look, tables: Collection[TableKey] | None = None) -> bool:
        """Whether nobody has written since; ``tables`` are those that matter now, of others a glance may do."""
        ...

    def later(self, look: Look) -> Look | None:
        """The same reading for a later moment, when somebody has written elsewhere; None where that isn't sure."""
        ...

    def mark(self, look: Look, *, since: Look) -> None:
        """Prepare for ``later``, where somebody has written elsewhere since the same was read before."""
        ...

    def meaning(self, family: Family, rule: RawRule) -> Meaning:
        """What a rule does, as far as its bytes tell."""
        ...

    def close(self) -> None:
        """Give the sockets back."""
        ...


# --- nf_tables ---------------------------------------------------------------------------------------------

_BODIES_MAX: Final = 50_000


class NftReader:
    """iptables-nft's tables, ``ip filter`` and the like, by netlink; the stamp is nf_tables' generation."""

    def __init__(self, netlink: Nfnetlink, owner: str) -> None:
        self._netlink = netlink
        self._owner = owner
        self._bodies: dict[tuple[bytes, bool], NfBody] = {}
        self._marked: tuple[Look, bytes] | None = None

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def still(self, look: Look, tables: Collection[TableKey] | None = None) -> bool:
        """Whether the generation stands."""
        return look.stamp is not None and self._netlink.generation() == look.stamp

    def mark(self, look: Look, *, since: Look) -> None:
        """Take the digest of what was read, if it still is that."""
        self._marked = None
        if look.stamp is not None and look.stamp != since.stamp:
            digest = tables_digest(self._netlink, self._owner)
            if digest and self._netlink.settled() == look.stamp:
                self._marked = (look, digest)

    def later(self, look: Look) -> Look | None:
        """By the digest, which is quicker than a reading by half.

        Where others write meanwhile its parts may be of several moments, so it's done again, and believed at last:
        the stamp is from before them all, and the next question asks again.
        """
        if self._marked is None or self._marked[0] is not look:
            self._marked = None
            return None
        before: int | None = None
        for _ in range(_LOOKS):
            settled = self._netlink.settled()
            if settled == before:
                break
            before = settled
            if tables_digest(self._netlink, self._owner) != self._marked[1]:
                return None
        now = Look(before, look.tables)
        self._marked = (now, self._marked[1])
        return now

    def look(self, part: Part | Whole | None = None) -> Look:
        """A reading between two equal generations."""
        tables: dict[TableKey, RawTable] = {}
        for _ in range(_READS):
            # Settled: a commit that is counted but not shown yet must not be taken for what is read here.
            before = self._netlink.settled()
            tables = self._tables(part)
            if self._netlink.settled() == before:
                return Look(before, tables)
        return Look(None, tables)

    def _tables(self, part: Part | Whole | None) -> dict[TableKey, RawTable]:
        found: dict[TableKey, list[NfChain]] = {}
        for family in Family if part is None else {key[0] for key in part}:
            for chain in self._netlink.chains(FAMILIES[family]):
                if chain.table in _TABLES:
                    found.setdefault((family, Table(chain.table)), []).append(chain)
        dormant = {(table.family, table.name) for table in self._netlink.tables() if table.flags & TABLE_DORMANT}
        return {
            key: self._table(
                key,
                chains,
                None if part is None else part[key],
                dormant=(FAMILIES[key[0]], key[1].value) in dormant,
            )
            for key, chains in found.items()
            if (part is None or key in part) and any(owned_iptables_chain(self._owner, chain.name) for chain in chains)
        }

    def _table(
        self, key: TableKey, chains: Collection[NfChain], names: Collection[str] | None, *, dormant: bool
    ) -> RawTable:
        own: dict[str, tuple[RawRule, ...]] = {}
        jumps: dict[Hook, tuple[str, ...]] = {}
        hidden: dict[tuple[str, Hook], tuple[int, ...]] = {}
        hooks = HOOKS[key[1]]
        taken: list[str] = []
        for chain in chains:
            if owned_iptables_chain(self._owner, chain.name):
                if chain.hook is not None:
                    taken.append(chain.name)
                elif names is None or chain.name in names:
                    own[chain.name] = self._rules(key, chain.name)
            elif chain.hook is not None and chain.name.isupper() and chain.name.lower() in hooks:
                hook = Hook(chain.name.lower())
                jumps[hook] = self._jumps(key, chain.name, hook, hidden)
        return RawTable(own, jumps, hidden, frozenset(taken), dormant)

    def _rules(self, key: TableKey, name: str) -> tuple[RawRule, ...]:
        rules = []
        for rule in self._netlink.rules(FAMILIES[key[0]], key[1].value, name):
            body, packets, octets = without_counter(rule.expressions)
            if rule.userdata:  # a comment as nft(8) writes it: iptables never does, and doesn't list it
                body += _UNTELLABLE + rule.userdata
            rules.append(RawRule(body, packets, octets))
        return tuple(rules)

    def meaning(self, family: Family, rule: RawRule) -> Meaning:
        """What the expressions say."""
        if _UNTELLABLE in rule.body:
            return _UNTOLD
        held = self._body(rule.body, ipv6=family is Family.IPV6)
        return Meaning(held.jump, held.told, held.comment)

    def _jumps(
        self, key: TableKey, name: str, hook: Hook, hidden: dict[tuple[str, Hook], tuple[int, ...]]
    ) -> tuple[str, ...]:
        ipv6 = key[0] is Family.IPV6
        found, dark = [], False
        for rule in self._netlink.rules(FAMILIES[key[0]], key[1].value, name):
            body = self._body(without_counter(rule.expressions)[0], ipv6=ipv6)
            chain = body.jump if body.plain else ""
            found.append(chain)
            if dark and owned_iptables_chain(self._owner, chain):
                hidden[chain, hook] = (*hidden.get((chain, hook), ()), rule.handle)
            dark = dark or not body.told
        return tuple(found)

    def _body(self, expressions: bytes, *, ipv6: bool) -> NfBody:
        body = self._bodies.get((expressions, ipv6))
        if body is None:
            if len(self._bodies) >= _BODIES_MAX:
                self._bodies.clear()
            body = self._bodies[expressions, ipv6] = read_body(expressions, ipv6=ipv6)
        return body


# --- legacy tables -----------------------------------------------------------------------------------------


class LegacyReader:
    """iptables-legacy's tables as the kernel hands out their blobs; the stamp are the blobs themselves.

    There is no generation: whether anything has changed is found by reading all of it, with the counters masked. Tables
    that the namespace doesn't have yet aren't asked for, since that would make them.
    """

    def __init__(self, tables: Mapping[Family, Xtables], owner: str) -> None:
        self._xtables = tables
        self._owner = owner

    def close(self) -> None:
        """Close the sockets."""
        for xtables in self._xtables.values():
            xtables.close()

    def still(self, look: Look, tables: Collection[TableKey] | None = None) -> bool:
        """Whether every table is what it was, counters apart.

        Of tables that don't matter now only the shape is looked at. An edit there that keeps the size is seen by the
        next whole question, since their stamps are still those of before.
        """
        if look.stamp is None:
            return False
        found = 0
        for family, xtables in self._xtables.items():
            for table in xtables.tables():
                kept = look.stamp.get((family, table))
                if kept is None:
                    return False
                found += 1
                if tables is None or (family, table) in tables:
                    if xtables.changed(table, kept) is not None:
                        return False
                elif xtables.info(table) != kept.info:
                    return False
        return found == len(look.stamp)

    def later(self, look: Look) -> Look | None:
        """None: nothing is quicker than a reading here."""
        return None

    def mark(self, look: Look, *, since: Look) -> None:
        """Nothing to prepare."""

    def look(self, part: Part | Whole | None = None) -> Look:
        """Each table as it is at one moment; the moments of two tables may differ."""
        stamp: dict[TableKey, Blob] = {}
        tables: dict[TableKey, RawTable] = {}
        for family, xtables in self._xtables.items():
            for table in xtables.tables():
                key = (family, table)
                if part is None or key in part:
                    stamp[key] = xtables.read(table)
                    tables[key] = self._table(xtables, stamp[key], None if part is None else part[key])
        return Look(stamp, tables)

    def meaning(self, family: Family, rule: RawRule) -> Meaning:
        """Where it leads; iptables lists all that a legacy rule does."""
        return rule.meaning or _NOWHERE

    def _table(self, xtables: Xtables, blob: Blob, names: Collection[str] | None) -> RawTable:
        own: dict[str, tuple[RawRule, ...]] = {}
        jumps: dict[Hook, tuple[str, ...]] = {}

        def wanted(name: str) -> bool:
            return owned_iptables_chain(self._owner, name) if names is None else name in names

        for chain in xtables.parse(blob, wanted=wanted).values():
            if chain.hook is not None:
                jumps[Hook(chain.hook)] = tuple(rule.jump if rule.plain else "" for rule in chain.rules)
            else:
                own[chain.name] = tuple(
                    RawRule(rule.body, rule.packets, rule.bytes, Meaning(rule.jump) if rule.jump else _NOWHERE)
                    for rule in chain.rules
                )
        return RawTable(own, jumps)


_TABLES: Final = frozenset(table.value for table in Table)
