"""Whole nft rulesets as JSON, read as iptables' tables: what our own renderings hold, and what others write alike.

A base chain becomes the built-in chain of its hook, in the table that its type and priority belong to; other chains
stand in every table from whose base chains packets come to them. Of an ``inet`` table each family gets the rules that
can be its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.extensions.language import Language
from meshfw.languages.dump import Dump, DumpChain, DumpRule, DumpTable
from meshfw.languages.nft.names import FAMILIES, SPOKEN_NAMES, unspoken_name
from meshfw.languages.nft.read import UnreadableError, read_rule
from meshfw.model import HOOKS, Family, Goto, Hook, Jump, Policy, Table

_BOTH: Final = "inet"
_BOUNDS: Final = ((-225, Table.RAW), (-75, Table.MANGLE), (25, Table.FILTER))
"""Up to which priority a chain of type filter belongs to a table; what comes behind them is security's."""


class Unread(msgspec.Struct, frozen=True):
    """What of a ruleset has no counterpart in iptables: where it stands, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class ForeignRuleset(msgspec.Struct, frozen=True):
    """An nft ruleset as iptables has it: a dump for each family that has chains, and what couldn't be read."""

    dumps: Mapping[Family, Dump]
    unread: tuple[Unread, ...] = ()


def read_tables(items: Iterable[Mapping[str, Any]], *, language: Language) -> ForeignRuleset:
    """The ruleset of the objects that ``nft -j list ruleset`` prints under ``nftables`` (libnftables-json(5))."""
    tables: dict[tuple[str, str], _NftTable] = {}
    unread: list[Unread] = []
    for item in items:
        ((kind, body),) = item.items()
        if kind == "metainfo":
            continue
        name = (body["family"], body["name"] if kind == "table" else body["table"])
        if name[0] not in (*FAMILIES.values(), _BOTH):
            if kind == "table":
                unread.append(Unread(f"table {name[0]} {name[1]}", "iptables has no tables of that family"))
            continue
        table = tables.setdefault(name, _NftTable(*name))
        if kind == "chain":
            table.chains[body["name"]] = _NftChain(body)
        elif kind == "rule":
            table.chains[body["chain"]].rules.append(body)
        elif kind != "table":
            unread.append(
                Unread(f"{kind} {body['name']} of table {' '.join(name)}", "iptables has nothing of the kind")
            )
    reader = _Reader(language, unread)
    dumps = {family: reader.dump(family, tables.values()) for family in Family}
    return ForeignRuleset({family: dump for family, dump in dumps.items() if dump.tables}, tuple(dict.fromkeys(unread)))


class _NftChain:
    """One chain: its declaration and its rules as JSON has them."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body
        self.rules: list[Mapping[str, Any]] = []

    @property
    def leads_to(self) -> Iterator[str]:
        """The chains that it jumps or goes to."""
        for rule in self.rules:
            for statement in rule["expr"]:
                for kind in ("jump", "goto"):
                    if isinstance(statement.get(kind), Mapping):
                        yield statement[kind]["target"]


class _NftTable:
    """One table by family and name, with its chains in the order listed."""

    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self.name = name
        self.chains: dict[str, _NftChain] = {}

    def reached(self, start: str) -> Iterator[str]:
        """The chains that packets of a base chain come to."""
        seen, todo = {start}, [start]
        while todo:
            for name in self.chains[todo.pop()].leads_to:
                if name in self.chains and name not in seen:
                    seen.add(name)
                    todo.append(name)
                    yield name


def _table_of(body: Mapping[str, Any]) -> Table | None:
    """The iptables table in which a base chain's type and priority belong."""
    if body["type"] == "nat":
        return Table.NAT
    if body["type"] == "route":
        return Table.MANGLE
    return next((table for most, table in _BOUNDS if body["prio"] <= most), Table.SECURITY)


class _Reader:
    """The state of reading a ruleset."""

    def __init__(self, language: Language, unread: list[Unread]) -> None:
        self._language = language
        self._unread = unread

    def dump(self, family: Family, tables: Iterable[_NftTable]) -> Dump:
        found: dict[Table, dict[str, DumpChain]] = {}
        for table in tables:
            if table.family not in (FAMILIES[family], _BOTH):
                continue
            attached: set[str] = set()
            for name, chain in table.chains.items():
                if "hook" in chain.body:
                    attached |= self._base(family, table, name, found)
            default = Table(table.name) if table.name in set(Table) else Table.FILTER
            for name in table.chains:
                if name not in attached:
                    self._regular(family, table, name, found.setdefault(default, {}))
        ordered = [(table, found[table]) for table in Table if table in found]
        return Dump(family, tuple(DumpTable(table, tuple(chains.values())) for table, chains in ordered))

    def _base(self, family: Family, table: _NftTable, name: str, found: dict[Table, dict[str, DumpChain]]) -> set[str]:
        """Take a base chain and the chains behind it; the names of all of them."""
        body = table.chains[name].body
        where = f"chain {name} of table {table.family} {table.name}"
        kind = Hook(body["hook"]) if body["hook"] in set(Hook) else None
        home = _table_of(body)
        reached = {name, *table.reached(name)}
        if kind is None or home is None or kind not in HOOKS[home]:
            self._unread.append(Unread(where, f"iptables has no chain on {body['hook']} at priority {body['prio']}"))
            return reached
        chains = found.setdefault(home, {})
        builtin = kind.upper()
        if builtin in chains:
            self._unread.append(
                Unread(where, f"iptables' table {home} has one chain {builtin}, and another stands there")
            )
            return reached
        policy = Policy.DROP if body.get("policy") == "drop" else Policy.ACCEPT
        chains[builtin] = DumpChain(builtin, policy, self._rules(family, table, name))
        for other in table.reached(name):
            self._regular(family, table, other, chains)
        return reached

    def _regular(self, family: Family, table: _NftTable, name: str, chains: dict[str, DumpChain]) -> None:
        logical = unspoken_name(name)
        if logical not in chains:
            chains[logical] = DumpChain(logical, None, self._rules(family, table, name))

    def _rules(self, family: Family, table: _NftTable, name: str) -> tuple[DumpRule, ...]:
        found = []
        for index, body in enumerate(table.chains[name].rules, 1):
            where = f"{family} rule {index} of chain {name} of table {table.family} {table.name}"
            try:
                found.append(self._rule(family, body, others=table.family == _BOTH))
            except _OtherFamilyError:
                continue
            except UnreadableError as error:
                self._unread.append(Unread(where, str(error)))
        return tuple(found)

    def _rule(self, family: Family, body: Mapping[str, Any], *, others: bool) -> DumpRule:
        statements: Sequence[Mapping[str, Any]] = body["expr"]
        if others:
            if _states(statements, next(other for other in Family if other is not family)):
                raise _OtherFamilyError
            statements = [statement for statement in statements if not _is_family(statement)]
        rule = read_rule(
            statements,
            family=family,
            language=self._language,
            names=SPOKEN_NAMES,
            comment=body.get("comment", ""),
        )
        why = rule.problem(family)
        if why and not isinstance(rule.target, Jump | Goto):
            raise UnreadableError(why)
        counters = [held["counter"] for held in statements if isinstance(held.get("counter"), Mapping)]
        counter = counters[0] if counters else {}
        return DumpRule(rule, counter.get("packets", 0), counter.get("bytes", 0))


class _OtherFamilyError(Exception):
    """A rule of an inet table that the other family's packets alone can meet."""


_NFPROTO: Final = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
_OWN: Final = {Family.IPV4: ("ip", "icmp"), Family.IPV6: ("ip6", "icmpv6")}


def _is_family(statement: Mapping[str, Any]) -> bool:
    match = statement.get("match")
    return match is not None and match["left"] == {"meta": {"key": "nfproto"}} and match["op"] == "=="


def _states(statements: Sequence[Mapping[str, Any]], family: Family) -> bool:
    """Whether a rule tests for a family, or for a header that it alone has."""
    return any(
        (_is_family(statement) and _NFPROTO.get(statement["match"]["right"]) is family)
        or any(protocol in _OWN[family] for protocol in _protocols(statement))
        for statement in statements
    )


def _protocols(held: Any) -> Iterator[str]:
    """The headers that a statement looks at."""
    if isinstance(held, Mapping):
        payload = held.get("payload")
        if isinstance(payload, Mapping) and "protocol" in payload:
            yield payload["protocol"]
        for value in held.values():
            yield from _protocols(value)
    elif isinstance(held, list):
        for value in held:
            yield from _protocols(value)
