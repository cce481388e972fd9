"""Command lines of iptables as shell scripts have them, folded into what the tables hold after them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from meshfw.errors import FailedCommandError, ParseError
from meshfw.extensions.language import Language
from meshfw.languages.fold import FoldedFamily
from meshfw.languages.iptables import parse_command, placed
from meshfw.languages.lexer import Word
from meshfw.languages.shell import Statement, statements
from meshfw.languages.tables import Dump, DumpNote
from meshfw.model import Family

_TOOL: Final = re.compile(r"(?:/[\w./-]*/)?ip(6?)tables(?:-legacy|-nft)?\Z", re.ASCII)
_RESTORE: Final = re.compile(r"(?:/[\w./-]*/)?ip6?tables(?:-legacy|-nft)?-(?:restore|save)\Z", re.ASCII)
_SUCCEED: Final = frozenset({"true", ":", "set", "echo"})
_EXPECTED: Final = "iptables, ip6tables, or true, set, echo and exit of the shell"


def family_of_tool(word: str) -> Family | None:
    """The family of a command's name: ``iptables``, ``/sbin/ip6tables-legacy`` and the like; None for any other."""
    found = _TOOL.match(word)
    return None if found is None else Family.IPV6 if found[1] else Family.IPV4


def parse_script(text: str, *, language: Language, source: str = "") -> Mapping[Family, Dump]:
    """What the commands of a script leave in tables that were empty before, for each family that it has commands of.

    A command that iptables would fail at is an error, unless ``&&`` or ``||`` behind it makes something of that, as
    under ``set -e``. A listing is passed over with a note.

    Raises:
        ParseError: with source, line and column; ``FailedCommandError`` for a command that iptables would fail at.
    """
    return _Script(language, source).run(text)


class _Script:
    """The state of going through a script: both families, and whether the last command succeeded."""

    def __init__(self, language: Language, source: str) -> None:
        self._language = language
        self._source = source
        self._families: dict[Family, FoldedFamily] = {}
        self._succeeded = True
        self._failure = ""

    def run(self, text: str) -> Mapping[Family, Dump]:
        try:
            listed = statements(text)
        except ParseError as error:
            raise placed(error, text=error.text, source=self._source, line=error.line) from None
        for index, statement in enumerate(listed):
            if statement.joined and (statement.joined == "&&") is not self._succeeded:
                continue
            following = listed[index + 1].joined if index + 1 < len(listed) else ""
            if not self._statement(statement, caught=bool(following)):
                break
        return {family: self._families[family].done() for family in Family if family in self._families}

    def _statement(self, statement: Statement, *, caught: bool) -> bool:
        """Do one command; False where it ends the script."""
        words = statement.words
        while words[0].text == "sudo" and len(words) > 1:
            words = words[1:]
        name = words[0].text
        family = family_of_tool(name)
        try:
            if family is not None:
                self._command(words[1:], family, statement, caught=caught)
            elif name in _SUCCEED:
                self._succeeded = True
            elif name == "exit":
                self._exit(words)
            else:
                raise self._unknown(words[0])
        except ParseError as error:
            raise placed(error, text=statement.text, source=self._source, line=statement.line) from None
        return name != "exit"

    def _exit(self, words: Sequence[Word]) -> None:
        """Leave the script at ``exit``: an error where it says so, or where it says nothing behind a failure."""
        code = words[1].text if len(words) > 1 else "0" if self._succeeded else "1"
        if code != "0":
            reason = f"the script gives up with exit code {code}"
            raise FailedCommandError(f"{reason}: {self._failure}" if not self._succeeded else reason)

    def _unknown(self, word: Word) -> ParseError:
        if _RESTORE.match(word.text):
            return ParseError(
                f"{word.text} reads or writes a dump", column=word.column, expected="the dump as a source of its own"
            )
        if "=" in word.text:
            return ParseError(
                f"{word.text} sets a variable", column=word.column, expected="plain commands: no shell is run here"
            )
        return ParseError(f"{word.text!r} is no command of iptables", column=word.column, expected=_EXPECTED)

    def _command(self, words: Sequence[Word], family: Family, statement: Statement, *, caught: bool) -> None:
        command = parse_command(words, family=family, language=self._language)
        folded = self._families.setdefault(family, FoldedFamily(family, self._language))
        try:
            folded.apply(command, statement.line)
        except FailedCommandError as error:
            if not caught:
                raise
            folded.notes.append(
                DumpNote(statement.line, f"iptables fails here, which the script goes on after: {error.reason}")
            )
            self._succeeded, self._failure = False, error.reason
        else:
            self._succeeded = True
