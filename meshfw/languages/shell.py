"""Shell text as far as it is a list of plain commands: words, quotes, ``;``, ``&&``, ``||`` (POSIX.1, 2.2 and 2.10).

Nothing here runs a shell: what only a shell could work out (variables, substitutions, loops, pipes) is refused where it
stands.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from meshfw.errors import ParseError
from meshfw.languages.lexer import Word


class Statement(msgspec.Struct, frozen=True, gc=False):
    """One simple command: its words, what joins it to the one before, its line, and the text that columns refer to.

    ``joined`` is ``&&``, ``||`` or empty; ``text`` is a whole line, lines that a backslash continues put together.
    """

    words: tuple[Word, ...]
    joined: str
    line: int
    text: str


_PLAIN: Final = re.compile(r"[^ \t\r\n\\'\"$`;&|<>()#]+")
_PLAIN_LINE: Final = re.compile(r"[^\\'\"$`;&|<>()#\n]*(?=\n|\Z)")
_WORD: Final = re.compile(r"[^ \t\r]+")
_BLANK: Final = re.compile(r"[ \t\r]+")
_REDIRECTION: Final = re.compile(
    r"(?:[0-9]?|&)>{1,2}[ \t]*(?:/dev/null|&[0-9])(?=[\s;&|]|\Z)|<[ \t]*/dev/null(?=[\s;&|]|\Z)"
)
_NO_SHELL: Final = "a plain command: no shell is run here"
_REFUSED: Final = {
    "$": "a variable or substitution",
    "`": "a command substitution",
    "(": "a subshell or function",
    ")": "a subshell or function",
    "|": "a pipe",
    "&": "a command in the background",
    "<": "a redirection",
    ">": "a redirection",
}
_KEYWORDS: Final = frozenset("if then elif else fi for while until do done case esac function { } [ [[ !".split())


def statements(text: str) -> tuple[Statement, ...]:
    """The commands of a script in their order.

    Raises:
        ParseError: what only a shell could work out, with line and column.
    """
    return _Scanner(text).scan()


class _Scanner:
    """The state of reading a script: the index in it, and the line, command and word put together so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = self._first = 1
        self._shown: list[str] = []
        self._joined = ""
        self._words: list[Word] = []
        self._of_line: list[tuple[tuple[Word, ...], str]] = []
        self._found: list[Statement] = []

    def scan(self) -> tuple[Statement, ...]:
        while self._at < len(self._text):
            self._next()
        self._end_line()
        if self._joined:
            raise ParseError(f"nothing behind {self._joined}", line=self._line, expected="a command")
        return tuple(self._found)

    def _next(self) -> None:
        char = self._text[self._at]
        if not self._shown and (whole := _PLAIN_LINE.match(self._text, self._at)) and whole.group():
            self._plain_line(whole.group())
        elif char in " \t\r":
            self._take(_BLANK.match(self._text, self._at))
        elif char == "\n":
            self._end_line()
            self._at += 1
            self._line += 1
            self._first = self._line
        elif char == "#":
            end = self._text.find("\n", self._at)
            self._skip((len(self._text) if end < 0 else end) - self._at)
        elif self._text.startswith(("\\\n", "\\\r\n"), self._at):
            self._continue()
        elif redirection := _REDIRECTION.match(self._text, self._at):
            self._take(redirection)
        elif self._text.startswith(("&&", "||"), self._at):
            self._operator(self._text[self._at : self._at + 2])
        elif char == ";":
            self._operator(";")
        else:
            self._word()

    def _plain_line(self, line: str) -> None:
        """A line of words alone, as most are."""
        words = [Word(found.group(), found.start() + 1) for found in _WORD.finditer(line)]
        if words and words[0].text in _KEYWORDS and not self._words:
            raise self._error(f"{words[0].text} is of the shell's own language", words[0].column)
        self._words += words
        self._skip(len(line))

    def _take(self, found: re.Match[str] | None) -> None:
        self._skip(len(found.group()) if found else 1)

    def _skip(self, count: int) -> None:
        self._shown.append(self._text[self._at : self._at + count])
        self._at += count

    def _continue(self) -> None:
        """Go on in the next line, of which the shell sees no end."""
        self._at += 2 if self._text[self._at + 1] == "\n" else 3
        self._line += 1

    @property
    def _column(self) -> int:
        return sum(map(len, self._shown)) + 1

    def _error(self, reason: str, column: int, expected: str = _NO_SHELL) -> ParseError:
        end = self._text.find("\n", self._at)
        shown = "".join(self._shown) + self._text[self._at : len(self._text) if end < 0 else end]
        return ParseError(reason, text=shown.rstrip(), line=self._first, column=column, expected=expected)

    def _operator(self, operator: str) -> None:
        if not self._words:
            raise self._error(f"{operator} without a command before it", self._column, "a command")
        self._end_command()
        self._skip(len(operator))
        self._joined = operator.rstrip(";")

    def _end_command(self) -> None:
        if self._words:
            self._of_line.append((tuple(self._words), self._joined))
            self._words, self._joined = [], ""

    def _end_line(self) -> None:
        self._end_command()
        shown = "".join(self._shown).rstrip()
        self._found.extend(Statement(words, joined, self._first, shown) for words, joined in self._of_line)
        self._of_line, self._shown = [], []

    def _word(self) -> None:
        """One word, of plain and quoted parts."""
        column = self._column
        parts: list[str] = []
        quoted = False
        while self._at < len(self._text):
            char = self._text[self._at]
            plain = _PLAIN.match(self._text, self._at)
            if plain is not None or (char == "#" and parts):
                part = plain.group() if plain else char
                parts.append(part)
                self._skip(len(part))
            elif char in "'\"":
                parts.append(self._quoted(char))
                quoted = True
            elif self._text.startswith(("\\\n", "\\\r\n"), self._at):
                self._continue()
            elif char == "\\":
                if self._at + 1 == len(self._text):
                    raise self._error("the backslash has nothing behind it", self._column, "a character that it quotes")
                parts.append(self._text[self._at + 1])
                self._skip(2)
                quoted = True
            elif char in _REFUSED and not (char in "&|;" and parts) and not (char in "<>" and parts):
                raise self._error(f"{char} is {_REFUSED[char]}", self._column)
            else:
                break
        text = "".join(parts)
        if not self._words and not quoted and text in _KEYWORDS:
            raise self._error(f"{text} is of the shell's own language", column)
        self._words.append(Word(text, column, quoted))

    def _quoted(self, quote: str) -> str:
        """The text between two quotes; in double ones a backslash escapes what would be special there."""
        start = self._column
        held: list[str] = []
        self._skip(1)
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == quote:
                self._skip(1)
                return "".join(held)
            if quote == '"':
                if self._text.startswith("\\\n", self._at):
                    self._continue()
                    continue
                if char == "\\" and self._text[self._at + 1 : self._at + 2] in tuple('$`"\\'):
                    held.append(self._text[self._at + 1])
                    self._skip(2)
                    continue
                if char in "$`":
                    raise self._error(f"{char} is {_REFUSED[char]}", self._column)
            if char == "\n":
                break
            held.append(char)
            self._skip(1)
        raise self._error("the quote is never closed in its line", start, f"a closing {quote}")
