"""Command lines of iptables: a command such as ``-A CHAIN`` or ``-P CHAIN POLICY``, and the rule that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from meshfw.errors import ParseError
from meshfw.extensions.language import Language
from meshfw.languages.iptables.parse import RuleParser
from meshfw.languages.iptables.vocabulary import COMMANDS
from meshfw.languages.lexer import Word
from meshfw.model import Family, Rule, Table


class Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One command line taken apart (iptables(8), COMMANDS).

    ``name`` is the command's long option without dashes, such as ``append``; empty where the line is one of the other
    family, which iptables-restore(8) skips. ``number`` is a rule's number from 1, 0 where none is given; ``value`` the
    policy of ``policy``, the new name of ``rename-chain``; ``zero`` says that a listing zeroes the counters too.
    """

    name: str = ""
    chain: str = ""
    number: int = 0
    value: str = ""
    zero: bool = False
    table: Table = Table.FILTER
    rules: tuple[Rule, ...] = ()
    counters: tuple[int, int] | None = None


_WITH_RULE: Final = frozenset({"append", "insert", "delete", "replace", "check"})
_WITH_COUNTERS: Final = frozenset({"append", "insert", "replace", "policy"})
_WITHOUT_CHAIN: Final = frozenset({"flush", "zero", "delete-chain", "list", "list-rules"})
_NUMBERED: Final = frozenset({"insert", "delete", "replace", "zero", "list", "list-rules"})
_SWITCHES: Final = frozenset({"verbose", "numeric", "exact", "line-numbers"})
_SHORT: Final = frozenset(name[1] for name in COMMANDS if not name.startswith("--"))
_TAKING: Final = frozenset(
    name[1] for name, meaning in COMMANDS.items() if not name.startswith("--") and meaning not in _SWITCHES
)
_NOTHING_TO_DO: Final = frozenset({"version", "help"})


class _CommandParser(RuleParser):
    """The state of parsing one command line's words."""

    def __init__(
        self, words: Sequence[Word], *, family: Family, language: Language, table: Table | None = None
    ) -> None:
        super().__init__(words, family=family, language=language)
        self._restoring = table is not None
        self._table = table or Table.FILTER
        self._name = self._chain = self._text = ""
        self._number = 0
        self._zero = self._skipped = False
        self._switches: dict[str, Word] = {}
        self._commanded: Word | None = None

    def command(self) -> Command:
        """The command of the words."""
        self._all_options()
        if self._skipped:
            return Command()
        if not self._name:
            raise ParseError(
                "no command", expected="-A CHAIN RULE, -N CHAIN, -P CHAIN POLICY or another of iptables(8)"
            )
        rules: tuple[Rule, ...] = ()
        if self._name in _WITH_RULE and not (self._name == "delete" and self._number):
            rules = self._rules()
        else:
            self._refuse_rule()
        self._check_switches()
        return Command(
            name=self._name,
            chain=self._chain,
            number=self._number,
            value=self._text,
            zero=self._zero,
            table=self._table,
            rules=rules,
            counters=self.counters,
        )

    def _refuse_rule(self) -> None:
        self.counters = self._fields.pop("counters", None)
        if self._fields or self._several or self._matches or self._target is not None:
            raise self._error(f"{self._commanded_text} has no rule", self._commanded, "the command alone")

    @property
    def _commanded_text(self) -> str:
        return self._commanded.text if self._commanded is not None else ""

    def _check_switches(self) -> None:
        if self.counters is not None and self._name not in _WITH_COUNTERS:
            raise self._error(f"{self._commanded_text} takes no counters", self._commanded)
        if self._name != "list":
            for name in _SWITCHES & set(self._switches) - {"verbose"}:
                word = self._switches[name]
                raise self._error(f"{word.text} belongs to a listing", word, "it beside -L alone")
        if "wait-interval" in self._switches and "wait" not in self._switches:
            raise self._error("-W without -w", self._switches["wait-interval"], "-w beside it")

    def _option(self, word: Word) -> None:
        text = word.text
        if len(text) > 2 and text[0] == "-" and text[1] in _SHORT:
            # as getopt(3) has it: -nL is -n -L, and -tnat is -t nat
            value = Word(text[2:], word.column + 2, quoted=True)
            if text[1] not in _TAKING:
                value = Word(f"-{text[2:]}", word.column + 1)
            self._words = [*self._words[: self._at], value, *self._words[self._at :]]
            word = Word(text[:2], word.column)
        super()._option(word)

    def _other_family(self, word: Word) -> None:
        if not self._restoring:
            super()._other_family(word)
        self._skipped = True  # iptables-restore looks no further
        self._at = len(self._words)
        self._negated = None

    def _command(self, name: str, word: Word) -> None:
        if self._negated is not None:
            raise self._error(f"{word.text} can't be negated", self._negated)
        if name in _NOTHING_TO_DO:
            raise self._error(f"{word.text} changes nothing", word, "a command about rules")
        if name in _SWITCHES:
            self._switches[name] = word
        elif name == "modprobe":
            self._value(word)
        elif name in ("wait", "wait-interval"):
            self._wait(name, word)
        elif name == "table":
            self._in_table(word)
        else:
            self._one_command(name, word)

    def _wait(self, name: str, word: Word) -> None:
        if self._restoring:
            raise self._error(f"{word.text} in a dump", word, "it as an option of iptables-restore")
        self._switches[name] = word
        value = self._argument()
        if value is not None and not value.text.isdigit():
            raise self._error(f"{value.text!r} is no number of seconds", value, "seconds, or nothing")

    def _in_table(self, word: Word) -> None:
        if self._restoring:
            raise self._error(f"{word.text} in a dump", word, f"*TABLE before the lines of a table, as *{self._table}")
        value = self._value(word)
        if value.text not in set(Table):
            raise self._error(f"unknown table {value.text!r}", value, ", ".join(sorted(Table)))
        self._table = Table(value.text)

    def _one_command(self, name: str, word: Word) -> None:
        if self._name and {name, self._name} in ({"list", "zero"}, {"list-rules", "zero"}):
            self._zero, name = True, "list" if "list" in (name, self._name) else "list-rules"
        elif self._name:
            raise self._error(f"{word.text} beside {self._commanded_text}", word, "one command")
        self._name, self._commanded = name, word
        chain = self._argument() if name in _WITHOUT_CHAIN else self._value(word)
        if chain is not None:
            self._chain = chain.text
        if name in _NUMBERED and (name not in _WITHOUT_CHAIN or chain is not None):
            self._number = self._rule_number(name)
        if name == "replace" and not self._number:
            raise self._error(f"{word.text} has no rule number", word, f"{word.text} CHAIN NUMBER RULE")
        if name in ("policy", "rename-chain"):
            value = self._argument()
            if value is None:
                what = "POLICY" if name == "policy" else "NEW-NAME"
                raise self._error(f"{word.text} {self._chain} says no more", word, f"{word.text} CHAIN {what}")
            self._text = value.text

    def _rule_number(self, name: str) -> int:
        value = self._argument()
        if value is None:
            return 1 if name == "insert" else 0
        if not (value.text.isascii() and value.text.isdigit()) or not 1 <= int(value.text) <= 0x7FFFFFFF:
            raise self._error(f"{value.text!r} is no rule number", value, "a number from 1")
        return int(value.text)

    def _argument(self) -> Word | None:
        """The next word where it is no option: what an option may have behind it, or not (xshared.c, xs_has_arg)."""
        if self._at < len(self._words):
            word = self._words[self._at]
            if word.quoted or word.text[:1] not in ("-", "!"):
                self._at += 1
                return word
        return None


def parse_command(words: Sequence[Word], *, family: Family, language: Language, table: Table | None = None) -> Command:
    """The command of a line's words; ``table`` is the one that a dump has open, None for a command line of its own.

    Raises:
        ParseError: with the column; the caller knows source and line.
    """
    return _CommandParser(words, family=family, language=language, table=table).command()
