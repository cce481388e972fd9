"""One rule in both languages: iptables' canonical text, nft's statement, or the reason why there is none.

Each rule is an answer by itself: an error is a value here, so that a stream of rules goes on behind a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from meshfw.errors import FamilyParseError, InexpressibleError, MeshfwError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.dump import hook_of
from meshfw.languages.iptables import format_rule, parse_rules
from meshfw.languages.nft import APPROXIMATED, FAMILIES, SPOKEN_NAMES, render_rule
from meshfw.model import (
    Family,
    Goto,
    Jump,
    OpaqueMatch,
    OpaqueTarget,
    Rule,
    Table,
    hook_problem,
    interface_problem,
    table_problem,
)


class Kind(StrEnum):
    """What is wrong with a rule."""

    INPUT = "input"
    """The request itself: no JSON object, or one without a rule."""
    SYNTAX = "syntax"
    """No rule of iptables."""
    FAMILY = "family"
    """A rule of the other family."""
    PLACEMENT = "placement"
    """No rule for this table or chain."""
    OPAQUE = "opaque"
    """An extension without a typed value: iptables may know it, nft's language can't be told."""
    INEXPRESSIBLE = "inexpressible"
    """A rule that nft has no way to say."""
    APPROXIMATED = "approximated"
    """The same, and what comes near was asked for: it stands there, and is no translation."""


class Failure(msgspec.Struct, frozen=True):
    """Why a part of the answer is missing."""

    message: str
    kind: Kind


class Translated(msgspec.Struct, frozen=True):
    """The answer for one rule: a canonical text for each rule it stands for, and an nft statement for each.

    A rule that can't be said in nft has its canonical text and an error. An nft list may begin with commands that add
    the objects its statements refer to.
    """

    canonical: tuple[str, ...] = ()
    nft: tuple[str, ...] = ()
    error: Failure | None = None
    warnings: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True):
    """Where a rule is to stand: a table and a chain of iptables; an empty one isn't known, and isn't checked."""

    table: str = ""
    chain: str = ""


_ANYWHERE: Final = Place()


def translated(
    rule: str | Sequence[str],
    *,
    family: Family,
    language: Language,
    place: Place = _ANYWHERE,
    nft: bool = True,
    approximate: bool = False,
) -> Translated:
    """The rule in both languages, or without ``nft`` in iptables' own; a text is in restore quoting.

    With ``approximate`` nft's part may be what comes near, each with a warning that begins so.
    """
    try:
        rules = parse_rules(rule, family=family, language=language)
        texts = tuple(format_rule(held, family=family, language=language) for held in rules)
    except FamilyParseError as error:
        return Translated(error=Failure(_told(error), Kind.FAMILY))
    except ParseError as error:
        return Translated(error=Failure(_told(error), Kind.SYNTAX))
    for held in rules:
        why = misplaced(held, place)
        if why:
            return Translated(error=Failure(why, Kind.PLACEMENT))
    warnings = tuple(loss.text for held in rules for loss in held.losses())
    if not nft:
        return Translated(texts, warnings=warnings)
    context = _Context(family, language, place, approximate)
    return _in_nft(rules, texts, context, warnings=warnings)


class _Context(msgspec.Struct, frozen=True):
    """What rules are rendered by."""

    family: Family
    language: Language
    place: Place
    approximate: bool


def _in_nft(
    rules: Sequence[Rule], texts: tuple[str, ...], context: _Context, *, warnings: tuple[str, ...]
) -> Translated:
    family, place = context.family, context.place
    objects: dict[str, None] = {}
    statements = []
    meters: set[str] = set()
    hook = hook_of(place.chain, Table(place.table)) if place.table else None
    for rule in rules:
        try:
            said = render_rule(
                rule,
                family=family,
                language=context.language,
                names=SPOKEN_NAMES,
                hook=hook,
                approximate=context.approximate,
            )
            said.claim_meters(meters)
        except InexpressibleError as error:
            kind = Kind.OPAQUE if _opaque(rule) else Kind.INEXPRESSIBLE
            return Translated(texts, error=Failure(error.reason, kind), warnings=warnings)
        objects.update((held.command(FAMILIES[family], place.table or Table.FILTER), None) for held in said.objects)
        statements.append(str(said))
        warnings += said.warnings
    near = next((told for told in warnings if told.startswith(APPROXIMATED)), None)
    failure = None if near is None else Failure(near.removeprefix(APPROXIMATED), Kind.APPROXIMATED)
    return Translated(texts, (*objects, *statements), error=failure, warnings=warnings)


def _opaque(rule: Rule) -> bool:
    return isinstance(rule.target, OpaqueTarget) or any(isinstance(match, OpaqueMatch) for match in rule.matches)


def misplaced(rule: Rule, place: Place) -> str | None:
    """Why a rule can't stand in a place; None where it can, or where the place isn't known."""
    if not place.table:
        return None
    if place.table not in _TABLES:
        return f"there is no table {place.table}; iptables has {', '.join(Table)}"
    table = Table(place.table)
    if isinstance(rule.target, Jump | Goto) and hook_of(rule.target.chain, table) is not None:
        return f"{rule.target.label}: a built-in chain can't be jumped to"
    hook = hook_of(place.chain, table)
    return table_problem(rule, table) or (
        (hook and (hook_problem(rule, (hook,)) or interface_problem(rule, hook))) or None
    )


_TABLES: Final = frozenset(Table)


def _told(error: MeshfwError) -> str:
    return str(error).partition("\n")[0]
