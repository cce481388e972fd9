"""Whole nft rulesets as JSON, read as iptables' tables: what our own renderings hold, and what others write alike.

A base chain becomes the built-in chain of its hook, in the table that its type and priority belong to; other chains
stand in every table from whose base chains packets come to them. Of an ``inet`` table each family gets the rules that
can be its own; a rule over a set becomes one for each element (:mod:`meshfw.languages.nft.unfolding`), and one of
several statements one for each of them (:mod:`meshfw.languages.nft.parting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.extensions.language import Language
from meshfw.languages.dump import Dump, DumpChain, DumpRule, DumpTable, hook_of
from meshfw.languages.nft.names import FAMILIES, SPOKEN_NAMES, Names, unspoken_name
from meshfw.languages.nft.parting import parted
from meshfw.languages.nft.read import UnreadableError, read_rule
from meshfw.languages.nft.told import told
from meshfw.languages.nft.unfolding import fixed_elements, unfolded
from meshfw.model import HOOKS, Family, Hook, Policy, Rule, Table

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
    warnings: tuple[str, ...] = ()


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
        elif kind == "set" and (elements := fixed_elements(body)) is not None:
            table.sets[body["name"]] = elements
        elif kind == "rule":
            table.chains[body["chain"]].rules.append(body)
        elif kind == "table" and _asleep(body):
            unread.append(
                Unread(f"table {' '.join(name)}", "it has flags, as one has that is dormant: no packet meets it")
            )
        elif kind != "table":
            unread.append(
                Unread(f"{kind} {body['name']} of table {' '.join(name)}", "iptables has nothing of the kind")
            )
    reader = _Reader(language, unread)
    dumps = {family: reader.dump(family, tables.values()) for family in Family}
    found = {family: dump for family, dump in dumps.items() if dump.tables}
    return ForeignRuleset(found, tuple(dict.fromkeys(unread)), tuple(dict.fromkeys(reader.warnings)))


def _asleep(body: Mapping[str, Any]) -> bool:
    """Whether a table may be dormant: of its flags nft 1.0.6 lists no more than that there are some."""
    flags = body.get("flags", [])
    return bool({flags} if isinstance(flags, str) else set(flags) - {"owner", "persist"})


class _NftChain:
    """One chain: its declaration and its rules as JSON has them."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body
        self.rules: list[Mapping[str, Any]] = []

    @property
    def leads_to(self) -> Iterator[str]:
        """The chains that it jumps or goes to."""
        for rule in self.rules:
            yield from _led_to(rule["expr"])


def _led_to(held: Any) -> Iterator[str]:
    """The chains that statements lead to, those in verdict maps among them."""
    if isinstance(held, list):
        for item in held:
            yield from _led_to(item)
    elif isinstance(held, Mapping):
        for kind, body in held.items():
            if kind in ("jump", "goto") and isinstance(body, Mapping):
                yield body["target"]
            elif kind in ("vmap", "data", "set"):
                yield from _led_to(body)


class _NftTable:
    """One table by family and name, with its chains in the order listed."""

    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self.name = name
        self.chains: dict[str, _NftChain] = {}
        self.sets: dict[str, Sequence[Any]] = {}

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
        self._origins: dict[tuple[Family, Table, str], _NftTable] = {}
        self.warnings: list[str] = []

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
                    self._regular(family, table, name, default, found)
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
            self._regular(family, table, other, home, found)
        return reached

    def _regular(
        self, family: Family, table: _NftTable, name: str, home: Table, found: dict[Table, dict[str, DumpChain]]
    ) -> None:
        """Take a chain that others lead to; one of that name in another of nft's tables would be taken for it."""
        logical = unspoken_name(name)
        if hook_of(logical, home) is not None:
            where = f"chain {name} of table {table.family} {table.name}"
            self._unread.append(Unread(where, f"that is the name of a built-in chain of iptables' table {home}"))
            return
        origin = self._origins.setdefault((family, home, logical), table)
        if origin is not table:
            where = f"chain {name} of table {table.family} {table.name}"
            other = f"that of table {origin.family} {origin.name} stands there"
            self._unread.append(Unread(where, f"iptables' table {home} has one chain {logical}, and {other}"))
        elif logical not in found.setdefault(home, {}):
            found[home][logical] = DumpChain(logical, None, self._rules(family, table, name))

    def _rules(self, family: Family, table: _NftTable, name: str) -> tuple[DumpRule, ...]:
        found = []
        for index, body in enumerate(table.chains[name].rules, 1):
            where = f"{family} rule {index} of chain {name} of table {table.family} {table.name}"
            try:
                found += self._meant(family, table, body)
            except _OtherFamilyError:
                continue
            except UnreadableError as error:
                self._unread.append(Unread(where, f"iptables has nothing for {told(error.statement)}"))
        return tuple(found)

    def _meant(self, family: Family, table: _NftTable, body: Mapping[str, Any]) -> list[DumpRule]:
        """The rules that one of nft's means; the counter's numbers stand at the first."""
        statements: Sequence[Mapping[str, Any]] = [_named(statement) for statement in body["expr"]]
        if statements != body["expr"]:
            self.warnings.append("iif and oif bind to an interface's number, and iptables to its name: taken as names")
        if table.family == _BOTH:
            if _states(statements, next(other for other in Family if other is not family)):
                raise _OtherFamilyError
            statements = [statement for statement in statements if not _is_family(statement)]
        counters = [held["counter"] for held in statements if isinstance(held.get("counter"), Mapping)]
        counter = counters[0] if counters else {}
        rules = self._unfolded(family, table, statements, body)
        first = DumpRule(rules[0], counter.get("packets", 0), counter.get("bytes", 0))
        return [first, *map(DumpRule, rules[1:])]

    def _unfolded(
        self, family: Family, table: _NftTable, statements: Sequence[Mapping[str, Any]], body: Mapping[str, Any]
    ) -> list[Rule]:
        """The rule, or as few as can be of those that it means together."""
        taken = ([list(statements)], parted(statements))
        ways = [[list(statements)], *(_unfolded(parts, table.sets, ports=ports) for parts in taken for ports in _PORTS)]
        refusal = UnreadableError(statements)
        for parts in ways:
            try:
                return [self._rule(family, part, body) for part in parts]
            except UnreadableError as error:
                refusal = error
        raise refusal

    def _rule(self, family: Family, statements: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> Rule:
        comment = body.get("comment", "")
        rule = read_rule(_by_header(statements), family=family, language=self._language, names=_NAMES, comment=comment)
        why = rule.problem(family)
        if why:
            raise UnreadableError(why)
        return rule


_PORTS: Final = (False, True)
"""Whether sets of ports are unfolded as well: only where nothing else will do."""


def _unfolded(
    parts: Iterable[Sequence[Mapping[str, Any]]], sets: Mapping[str, Sequence[Any]], *, ports: bool
) -> list[list[Mapping[str, Any]]]:
    return [rule for part in parts for rule in unfolded(part, sets, ports=ports)]


_HEADERS: Final = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}


def _by_header(statements: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The statements with the ports of any header as those of the one that the rule states."""
    protocols = [
        statement["match"]["right"]
        for statement in statements
        if "match" in statement and statement["match"]["left"] in _L4PROTO and statement["match"]["op"] == "=="
    ]
    header = _HEADERS.get(protocols[0]) if len(protocols) == 1 and isinstance(protocols[0], int) else None
    if header is None:
        return list(statements)
    return [_with_header(statement, header) for statement in statements]


_L4PROTO: Final = ({"meta": {"key": "l4proto"}}, {"payload": {"protocol": "ip", "field": "protocol"}})


def _with_header(statement: Mapping[str, Any], header: str) -> Mapping[str, Any]:
    match = statement.get("match")
    payload = match["left"].get("payload") if match is not None and isinstance(match["left"], Mapping) else None
    if match is None or not isinstance(payload, Mapping) or payload.get("protocol") != "th":
        return statement
    return {"match": {**match, "left": {"payload": {**payload, "protocol": header}}}}


def _no_set(name: str) -> None:
    """No set is read by its name: there is none in a dump."""


_NAMES: Final = Names(chain=SPOKEN_NAMES.chain, set=SPOKEN_NAMES.set, chain_of=unspoken_name, set_of=_no_set)
_NUMBERED: Final = {"iif": "iifname", "oif": "oifname"}


def _named(statement: Mapping[str, Any]) -> Mapping[str, Any]:
    """The statement with interfaces by name where it has them by number."""
    match = statement.get("match")
    if match is None or not isinstance(match["left"], Mapping) or "meta" not in match["left"]:
        return statement
    key = match["left"]["meta"]["key"]
    if key not in _NUMBERED or not isinstance(match["right"], str | Mapping):
        return statement
    return {"match": {**match, "left": {"meta": {"key": _NUMBERED[key]}}}}


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
