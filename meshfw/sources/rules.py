"""The source ``rules``: the configuration's own ``[[chain]]`` and ``[[set]]`` tables, for both families at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from meshfw.errors import ConfigError, FamilyParseError, ModelError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import OPAQUE_TARGETS, parse_protocol, parse_rules
from meshfw.languages.lexer import Word, refuse_apostrophes, split
from meshfw.model import (
    Attachment,
    Chain,
    ChainKey,
    ElementType,
    Family,
    Hook,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetKey,
    Table,
    parse_address,
    set_references,
)
from meshfw.source import Changes, Declaration, Settings, described, shown
from meshfw.sources.typed import TypedRule

_OF_ONE_FAMILY: Final[Mapping[int, Family]] = {1: Family.IPV4, 58: Family.IPV6}
"""Protocols that only one family carries: ICMP (RFC 792) and ICMPv6 (RFC 4443)."""
_FRAGMENT: Final = frozenset({"-f", "--fragment", "--fragments"})
_PROTOCOL: Final = frozenset({"-p", "--protocol", "--proto"})
_PLACE: Final = re.compile(r"(ipv[46]) (\S+) (.+), rule (\d+)\Z")


class Families(StrEnum):
    """The families that a chain or set is declared for."""

    BOTH = "both"
    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def each(self) -> tuple[Family, ...]:
        """The families it stands for."""
        return tuple(Family) if self is Families.BOTH else (Family(self.value),)


def parse_ruleset(text: str, *, language: Language, source: str = "") -> Ruleset:
    """The ruleset that ``[[chain]]`` and ``[[set]]`` tables in TOML declare: the language of the source ``rules``.

    ``source`` is what messages call the text.

    Raises:
        ConfigError: it is no TOML, has other tables, or none; or a key is wrong, with its path.
        ParseError: with key path and column in a rule's text.
    """
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error), file=source, expected="TOML") from error
    settings = Settings(tables, file=source)
    own = {name: value for name in ("chain", "set") if (value := settings.any(name)) is not None}
    settings.finish()
    if not own:
        raise settings.error("it declares nothing", expected="[[chain]] tables")
    return _Reader(Declaration(options={}, language=language, file=source, tables=own)).ruleset()


class RulesSource:
    """The rules of the configuration's own tables."""

    name = "[[chain]] tables"

    def __init__(self, declaration: Declaration) -> None:
        declaration.settings().finish()
        if not declaration.tables:
            # An empty ruleset would take every rule away, and nobody has asked for that.
            raise declaration.settings().error("the configuration has no [[chain]] tables", expected="at least one")
        self._declaration = declaration
        self._loaded: Ruleset | None = None

    def load(self) -> Ruleset:
        """The ruleset that the tables declare.

        Raises:
            ConfigError: with the key path; ParseError: with key path and column in a rule's text.
        """
        if self._loaded is None:  # the tables of a configuration are what they were when it was read
            self._loaded = _Reader(self._declaration).ruleset()
        return self._loaded

    def changes(self) -> Changes | None:
        """None: a configuration that changed is read anew by whoever read it."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


class _Reader:
    """The model's values as far as they are read, and the key path of each rule for messages."""

    def __init__(self, declaration: Declaration) -> None:
        self._tables = Settings(declaration.tables, file=declaration.file)
        self._language = declaration.language
        self._file = declaration.file
        self._chains: list[Chain] = []
        self._attachments: list[Attachment] = []
        self._paths: dict[ChainKey, list[str]] = {}
        self._declared: dict[ChainKey | SetKey, str] = {}
        self._used: set[SetKey] = set()

    def ruleset(self) -> Ruleset:
        for table in self._tables.tables("chain"):
            self._chain(table)
        sets = [entry for table in self._tables.tables("set") for entry in self._set(table)]
        self._tables.finish()
        try:
            return Ruleset(chains=tuple(self._chains), sets=tuple(sets), attachments=tuple(self._attachments))
        except ModelError as error:
            raise self._placed(error) from None

    def _placed(self, error: ModelError) -> ConfigError:
        """The model's refusal at the key path of the rule it names."""
        found = _PLACE.match(error.where)
        if found:
            paths = self._paths.get(ChainKey(Family(found[1]), Table(found[2]), found[3]), [])
            if int(found[4]) <= len(paths):
                return ConfigError(error.reason, file=self._file, key=paths[int(found[4]) - 1])
        return ConfigError(str(error), file=self._file)

    def _declare(self, key: ChainKey | SetKey, table: Settings) -> None:
        above = self._declared.setdefault(key, table.path)
        if above != table.path:
            name = str(key) if isinstance(key, ChainKey) else f"{key[0]} set {key[1]}"
            raise table.error(f"{name} is declared in {above} already", key="name", expected="another name")

    # --- chains ---

    def _chain(self, table: Settings) -> None:
        name = table.required("name", expected="a chain's name")
        if name in self._language.targets or name in OPAQUE_TARGETS:  # -j NAME would mean that; iptables refuses it too
            raise table.error(f"{name} is a target of iptables", key="name", expected="another name")
        kind = table.choice("table", Table, Table.FILTER)
        families = table.choice("families", Families, Families.BOTH).each
        rules: dict[Family, list[Rule]] = {family: [] for family in families}
        paths: dict[Family, list[str]] = {family: [] for family in families}
        for path, item in _listed(table, "rules"):
            for family, made in self._rules(item, path, families).items():
                rules[family].extend(made)
                paths[family].extend(path for _ in made)
        attachments = table.tables("attach")
        table.finish()
        for family in families:
            key = ChainKey(family, kind, name)
            self._declare(key, table)
            self._paths[key] = paths[family]
            try:
                self._chains.append(Chain(family=family, table=kind, name=name, rules=tuple(rules[family])))
            except ModelError as error:
                placed = self._placed(error)
                raise placed if placed.key else table.error(error.reason, key="name") from None
            self._note_sets(family, rules[family])
        for settings in attachments:
            self._attach(settings, kind, name, families)

    def _note_sets(self, family: Family, rules: Sequence[Rule]) -> None:
        for rule in rules:
            self._used.update((family, reference.name) for reference, _ in set_references(rule))

    def _attach(self, table: Settings, kind: Table, chain: str, families: Collection[Family]) -> None:
        hook = table.choice("hook", Hook, None)
        place = table.choice("place", Place, Place.FIRST)
        policy = table.choice("policy", Policy, Policy.RETURN)
        rank = table.take("rank", int, 0)
        condition = table.any("when")
        table.finish()
        when = dict.fromkeys(families, Rule())
        if condition is not None:
            found = self._rules(condition, table.key("when"), families)
            if any(len(made) > 1 for made in found.values()):
                expected = "one address, or a set: the jump to the chain is one rule"
                raise table.error("several addresses", key="when", expected=expected)
            when = {family: made[0] for family, made in found.items()}
        for family, rule in when.items():
            try:
                attachment = Attachment(
                    family=family, table=kind, hook=hook, chain=chain, place=place, rank=rank, policy=policy, when=rule
                )
            except ModelError as error:
                raise table.error(error.reason, key="hook" if "has no hook" in error.reason else "") from None
            self._attachments.append(attachment)
            self._note_sets(family, [rule])

    # --- rules ---

    def _rules(self, item: Any, path: str, families: Collection[Family]) -> dict[Family, tuple[Rule, ...]]:
        """The rules of one item in each of the families that it fits: more than one where it lists addresses."""
        if isinstance(item, str):
            return self._fitting(_TextRule(item, f"{self._file}: {path}" if self._file else path), path, families)
        if not isinstance(item, dict):
            expected = "iptables text without -A, or a table of options"
            raise ConfigError(f"{shown(item)} is {described(item)}", file=self._file, key=path, expected=expected)
        table = Settings(item, file=self._file, path=path)
        wanted = table.choice("family", Families, Families.BOTH).each
        left = [family for family in families if family in wanted]
        if not left:
            raise table.error("the chain has no such family", key="family", expected=" or ".join(families))
        return self._fitting(TypedRule(table, self._language), path, left)

    def _fitting(
        self, rule: _TextRule | TypedRule, path: str, families: Collection[Family]
    ) -> dict[Family, tuple[Rule, ...]]:
        pinned = self._pinned(rule.words)
        found: dict[Family, tuple[Rule, ...]] = {}
        reasons: list[str] = []
        for family in families:
            if pinned not in (None, family):
                reasons.append(f"{family} carries no such protocol")
                continue
            try:
                found[family] = parse_rules(rule.words, family=family, language=self._language)
            except FamilyParseError as error:
                reasons.append(error.reason)
            except ParseError as error:
                raise rule.error(error.column, error.reason, error.expected) from None
        if not found:
            reason = f"the rule fits no family of the chain: {'; '.join(reasons)}"
            raise ConfigError(reason, file=self._file, key=path, expected="a rule for " + " or ".join(families))
        return found

    def _pinned(self, words: Sequence[Word]) -> Family | None:
        """The one family whose packets can have the protocol that the words state, or be IPv4's fragments."""
        before = ""
        for index, (text, _, _) in enumerate(words):
            if text[:1] != "-":
                before = text
                continue
            if text in _FRAGMENT:
                return Family.IPV4
            glued = text.partition("=")[2] if text.startswith(("--protocol=", "--proto=")) else ""
            value = words[index + 1].text if text in _PROTOCOL and index + 1 < len(words) else glued
            if value and before != "!":
                return _OF_ONE_FAMILY.get(parse_protocol(value, self._language) or 0)
            before = text
        return None

    # --- sets ---

    def _set(self, table: Settings) -> Iterator[Set]:
        name = table.required("name", expected="a set's name")
        kind = table.choice("type", ElementType, ElementType.ADDRESS)
        stated = "families" in table
        families = table.choice("families", Families, Families.BOTH).each
        elements = list(_listed(table, "elements"))
        intervals = table.take("intervals", bool, False) if "intervals" in table else None
        table.finish()
        own = _by_family(elements, kind, families, table)
        made = {family: _made_set(family, name, kind, own[family], table) for family in Family}
        if intervals is None:  # of one kind in both families, so that it is the same set to whoever declared it
            intervals = any(entry.intervals for entry in made.values())
        for family in families if stated else self._families_of(name, kind, own):
            self._declare((family, name), table)
            try:
                yield msgspec.structs.replace(made[family], intervals=intervals)
            except ModelError as error:
                raise table.error(error.reason, key="intervals", expected="true, or hosts and single ports") from None

    def _families_of(self, name: str, kind: ElementType, elements: Mapping[Family, Sequence[object]]) -> list[Family]:
        """The families that a set is made for unless it says so: where rules name it or addresses belong."""
        filled = {family for family in Family if kind is ElementType.ADDRESS and elements[family]}
        return [family for family in Family if family in filled or (family, name) in self._used]


class _TextRule:
    """The words of one rule in iptables' language."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        try:
            self.words = split(text)
            refuse_apostrophes(self.words)
        except ParseError as error:
            raise self.error(error.column, error.reason, error.expected) from None
        first = self.words[0].text if self.words else ""
        if not first:
            raise self.error(0, "the rule is empty", "iptables text such as -p tcp --dport 22 -j ACCEPT")
        if first in ("-A", "--append", "-I", "--insert", "-t", "--table", "iptables", "ip6tables"):
            raise self.error(1, f"{first} belongs to a command line", "the rule alone: its chain and table say where")

    def error(self, column: int, reason: str, expected: str) -> ParseError:
        """A refusal at a column of the text."""
        return ParseError(reason, text=self._text, source=self._source, column=column, expected=expected)


def _listed(table: Settings, name: str) -> Iterator[tuple[str, Any]]:
    """The items of a key that is a list, each with its key path."""
    value = table.take(name, list, [])
    for index, item in enumerate(value, 1):
        yield table.key(f"{name}[{index}]"), item


_Element = tuple[str, str]
"""An element's key path and text."""


def _by_family(
    elements: Sequence[tuple[str, Any]], kind: ElementType, families: Collection[Family], table: Settings
) -> dict[Family, list[_Element]]:
    """The elements for each family: ports for both, addresses for their own."""
    found: dict[Family, list[_Element]] = {family: [] for family in Family}
    for path, item in elements:
        if kind is ElementType.PORT:
            text = str(item) if type(item) in (int, str) else ""
            own: Collection[Family] = tuple(Family)
        else:
            text = item if isinstance(item, str) else ""
            own = _family_of(text, path, families, table) if text else ()
        if not text:
            expected = _EXPECTED[kind]
            raise ConfigError(f"{shown(item)} is {described(item)}", file=table.file, key=path, expected=expected)
        for family in own:
            found[family].append((path, text))
    return found


_EXPECTED: Final[Mapping[ElementType, str]] = {
    ElementType.PORT: "a port or FIRST-LAST",
    ElementType.ADDRESS: "an address, ADDRESS/LENGTH or FIRST-LAST",
}


def _family_of(text: str, path: str, families: Collection[Family], table: Settings) -> tuple[Family]:
    try:
        family = parse_address(text.partition("/")[0].partition("-")[0])[0]
    except ModelError as error:
        expected = _EXPECTED[ElementType.ADDRESS]
        raise ConfigError(error.reason, file=table.file, key=path, expected=expected) from None
    if family not in families:
        raise ConfigError(f"{text} is an {family} address", file=table.file, key=path, expected=" or ".join(families))
    return (family,)


def _made_set(family: Family, name: str, kind: ElementType, elements: Sequence[_Element], table: Settings) -> Set:
    try:
        return Set.of(family, name, [text for _, text in elements], type=kind)
    except ModelError as error:
        for path, text in elements:
            try:
                Set.of(family, "s", [text], type=kind)
            except ModelError as one:
                raise ConfigError(one.reason, file=table.file, key=path) from None
        raise table.error(error.reason, key="name") from None
