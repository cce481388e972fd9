"""The rules of one line: the parser's front door, which says where a refusal stands."""

from __future__ import annotations

from collections.abc import Iterable

from meshfw.errors import ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables.parse import RuleParser
from meshfw.languages.lexer import Word, split
from meshfw.model import Family, Rule


def parse_rules(
    rule: str | Iterable[str | Word], *, family: Family, language: Language, source: str = "", line: int = 0
) -> tuple[Rule, ...]:
    """The rules of one line in restore quoting, or of a list of words, without ``-A CHAIN``.

    They are several where the line lists addresses (``-s 10.0.0.1,10.0.0.2``), or names a host that has several.

    Raises:
        ParseError: with line and column; ``FamilyParseError`` where the rule belongs to the other family.
    """
    text = rule if isinstance(rule, str) else ""
    try:
        words = split(rule) if isinstance(rule, str) else [w if isinstance(w, Word) else Word(w) for w in rule]
        return RuleParser(words, family=family, language=language).parse()
    except ParseError as error:
        raise placed(error, text=text, source=source, line=line) from None


def parse_rule(
    rule: str | Iterable[str | Word], *, family: Family, language: Language, source: str = "", line: int = 0
) -> Rule:
    """The one rule of a line; see :func:`parse_rules`, and its errors.

    Raises:
        ParseError: also for a line that makes several rules.
    """
    rules = parse_rules(rule, family=family, language=language, source=source, line=line)
    if len(rules) > 1:
        raise ParseError(
            f"the addresses make {len(rules)} rules of one",
            text=rule if isinstance(rule, str) else "",
            source=source,
            line=line,
            expected="one rule for each address, a set, or parse_rules, which gives them all",
        )
    return rules[0]


def placed(error: ParseError, *, text: str, source: str, line: int) -> ParseError:
    """The same refusal with its place said."""
    return type(error)(
        error.reason, text=text or error.text, source=source, line=line, column=error.column, expected=error.expected
    )
