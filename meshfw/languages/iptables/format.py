"""Printing of one rule in canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshfw.extensions.codecs import PROTOCOL_NAMES, quoted
from meshfw.extensions.language import Language
from meshfw.model import (
    Accept,
    Drop,
    Family,
    Goto,
    Jump,
    Match,
    Not,
    OpaqueMatch,
    OpaqueTarget,
    Return,
    Rule,
    Target,
    matches_any,
)


def format_rule(rule: Rule, *, family: Family, language: Language) -> str:
    """The rule as iptables-save prints it, without ``-A CHAIN``."""
    words: list[str] = []
    for option, held in (("-s", rule.source), ("-d", rule.destination)):
        _base_words(words, option, held)
    for option, interface in (("-i", rule.in_interface), ("-o", rule.out_interface)):
        _base_words(words, option, interface)
    if rule.protocol is not None:
        negated = isinstance(rule.protocol, Not)
        value = rule.protocol.value if isinstance(rule.protocol, Not) else rule.protocol
        words += ["!", "-p"] if negated else ["-p"]
        words.append(protocol_name(value, language))
    if rule.fragment is not None:
        words += ["-f"] if rule.fragment else ["!", "-f"]
    for match in rule.matches if len(rule.matches) < 3 else _told_apart(rule.matches, language):
        if isinstance(match, OpaqueMatch):
            words += ["-m", match.name, *map(quote_opaque, match.words)]
            continue
        extension = language.by_value[type(match)]
        words += ["-m", extension.name]
        words += extension.words(match, family)
    words += _target_words(rule.target, family, language)
    return " ".join(words)


def _told_apart(matches: Sequence[Match], language: Language) -> Sequence[Match]:
    """The matches in an order in which iptables takes every option for one of the match that it stands behind.

    Of the extensions that have an option of that name it means the one that a rule loaded last, and loads each once:
    ``-m mark --mark 1 -m connmark --mark 2 -m mark --mark 3`` it refuses. So the second of a kind goes to the first.
    """
    if len({type(match) for match in matches}) == len(matches):
        return matches
    told: list[Match] = []
    for match in matches:
        at = next((place for place in range(len(told), 0, -1) if type(told[place - 1]) is type(match)), len(told))
        passed = told[at:]
        clash = any(_share_an_option(match, other, language) for other in passed)
        if clash and not match.stateful and not any(other.stateful for other in passed):
            told.insert(at, match)
        else:
            told.append(match)
    return told


def untellable(rule: Rule, language: Language) -> str | None:
    """Why iptables can't be told the rule: an option that it would take for another match's; None where it can be.

    That is where a match that counts stands between two of one kind, and none of them can go elsewhere.
    """
    if len(rule.matches) < 3:
        return None
    told = _told_apart(rule.matches, language)
    for place, match in enumerate(told):
        first = next(at for at, other in enumerate(told) if type(other) is type(match))
        for at, other in enumerate(told[first + 1 : place], first + 1):
            new = all(type(other) is not type(earlier) for earlier in told[:at])
            if new and type(other) is not type(match) and _would_take(other, match, language):
                names = [language.by_value[type(held)].name for held in (match, other)]
                return f"iptables takes an option of the second {names[0]} match for one of {names[1]}"
    return None


def _would_take(other: Match, match: Match, language: Language) -> bool:
    """Whether an option that is printed of a match is one of another's."""
    if isinstance(other, OpaqueMatch) or isinstance(match, OpaqueMatch):
        return False
    taken = {name for option in language.by_value[type(other)].options for name in option.names}
    return not taken.isdisjoint(language.by_value[type(match)].words(match, Family.IPV4))  # names don't vary by family


def _share_an_option(one: Match, other: Match, language: Language) -> bool:
    names = [
        {name for option in language.by_value[type(match)].options for name in option.names}
        for match in (one, other)
        if not isinstance(match, OpaqueMatch)
    ]
    return len(names) == 2 and not names[0].isdisjoint(names[1])


def quote_opaque(word: str) -> str:
    """A word of an opaque extension: quoted only where restore would split or change it."""
    return quoted(word) if not word or set(word) & set(' \t"\\') else word


def protocol_name(value: int, language: Language) -> str:
    """The protocol as iptables-save prints it: by the name that iptables or the host has for it."""
    known = PROTOCOL_NAMES.get(value)
    if known is None:
        known = next((name for name, number in language.hosts.protocols.items() if number == value), str(value))
    return known


def _base_words(words: list[str], option: str, held: Any) -> None:
    if held is None or matches_any(held):
        return
    if isinstance(held, Not):
        words.append("!")
        held = held.value
    words += [option, str(held)]


def _target_words(target: Target | None, family: Family, language: Language) -> list[str]:
    match target:
        case None:
            return []
        case Jump(chain):
            return ["-j", chain]
        case Goto(chain):
            return ["-g", chain]
        case Accept() | Drop() | Return():
            return ["-j", target.label]
        case OpaqueTarget(name, held):
            return ["-j", name, *map(quote_opaque, held)]
        case _:
            extension = language.by_value[type(target)]
            return ["-j", extension.name, *extension.words(target, family)]
