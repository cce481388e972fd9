"""Printing of one rule in canonical form."""

from __future__ import annotations

from typing import Any

from meshfw.extensions.codecs import PROTOCOL_NAMES, quoted
from meshfw.extensions.language import Language
from meshfw.model import (
    Accept,
    Drop,
    Family,
    Goto,
    Jump,
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
    for match in rule.matches:
        if isinstance(match, OpaqueMatch):
            words += ["-m", match.name, *map(quote_opaque, match.words)]
            continue
        extension = language.by_value[type(match)]
        words += ["-m", extension.name]
        words += extension.words(match, family)
    words += _target_words(rule.target, family, language)
    return " ".join(words)


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
