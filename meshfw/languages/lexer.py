"""The words of a line of iptables-restore input, with their columns.

iptables-restore has a quoting of its own (iptables, xshared.c, add_param_to_argv): only the double quote
quotes, the backslash escapes inside quotes only, the apostrophe is a letter, and a closing quote ends the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from meshfw.errors import ParseError


class Word(NamedTuple):
    """One word, the column where it begins (from 1; 0: unknown), and whether quotes held it together."""

    text: str
    column: int = 0
    quoted: bool = False


_new: Final = tuple.__new__  # half the time of the class itself; there are a dozen words in every rule
_PLAIN: Final = re.compile(r"[^ \t\"]+")


def split(line: str) -> list[Word]:
    """The words of one line; ``ParseError`` for a quote that isn't closed."""
    words: list[Word] = []
    if '"' not in line:
        column = 1
        for text in line.replace("\t", " ").split(" "):
            if text:
                words.append(_new(Word, (text, column, False)))
            column += len(text) + 1
        return words
    at = 0
    while at < len(line):
        if line[at] in " \t":
            at += 1
            continue
        start = at
        plain = _PLAIN.match(line, at)
        text = plain.group() if plain else ""
        at += len(text)
        quoted = at < len(line) and line[at] == '"'
        if quoted:
            held, at = _quoted(line, at)
            text += held
        words.append(Word(text, start + 1, quoted))
    return words


def _quoted(line: str, at: int) -> tuple[str, int]:
    """The text between the quote at ``at`` and its closing one, and the index behind that."""
    held: list[str] = []
    index = at + 1
    while index < len(line):
        char = line[index]
        if char == '"':
            return "".join(held), index + 1
        if char == "\\" and index + 1 < len(line):
            index += 1
            char = line[index]
        held.append(char)
        index += 1
    raise ParseError("the quote is never closed", text=line, column=at + 1, expected='a closing "')


def refuse_apostrophes(words: Iterable[Word]) -> None:
    """``ParseError`` for a word in apostrophes, which are letters here, and were meant for quotes."""
    for text, column, quoted in words:
        if text[:1] == "'" and not quoted:
            raise ParseError("an apostrophe is a letter here, and no quote", column=column, expected='"..."')
