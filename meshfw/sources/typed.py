"""Rules as TOML tables: iptables' long options as keys, turned into the words that the rule parser reads.

The keys come out of the language's own tables of options, so a plugin's extension has its keys at once. What a value
means, and what is wrong with it, is the parser's affair; each word remembers the key it came from. Keys have no order
in TOML, so matches that count or remember stand behind all that don't, whatever order they were written in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from meshfw.errors import ConfigError
from meshfw.extensions.extension import Extension, Option
from meshfw.extensions.language import Language
from meshfw.languages.iptables import parse_protocol
from meshfw.languages.lexer import Word
from meshfw.model import Match
from meshfw.source import Settings, alternatives, described, shown, suggestion

_BASE: Final[Mapping[str, str]] = {
    "source": "-s",
    "src": "-s",
    "destination": "-d",
    "dst": "-d",
    "in-interface": "-i",
    "out-interface": "-o",
    "protocol": "-p",
    "proto": "-p",
}
_FRAGMENT: Final = Option("-f", "fragment", words=0, invertible=True)
_TARGETS: Final[Mapping[str, str]] = {"target": "-j", "jump": "-j", "goto": "-g"}


class TypedRule:
    """The words of one rule table, without its ``family``; ``keys`` are the keys that words came from, by column."""

    def __init__(self, table: Settings, language: Language) -> None:
        self.words: list[Word] = []
        self.keys: list[str] = []
        self._table = table
        self._language = language
        self._protocol: int | None = None
        self._target: Extension | None = None
        self._target_name = ""
        self._groups: dict[str, tuple[Word, list[Word]]] = {}
        self._behind: list[Word] = []
        self._read(table.rest())

    def error(self, column: int, reason: str, expected: str) -> ConfigError:
        """The parser's refusal of a word, at the key that the word came from."""
        key = self.keys[column - 1] if 0 < column <= len(self.keys) else ""
        return self._table.error(reason, key=key, expected=expected)

    def _read(self, table: Mapping[str, Any]) -> None:
        tail = self._read_target({key: value for key, value in table.items() if key in _TARGETS})
        for key, value in table.items():
            if key in _BASE and not self._is_match(key, value):
                self._base(key, value)
            elif key == "fragment":
                self.words += self._option(key, value, _FRAGMENT, "-f")
        for key, value in table.items():
            if self._is_match(key, value) or (key not in _BASE and key not in _TARGETS and key != "fragment"):
                self._extended(key, value)
        for name, held in sorted(self._groups.values(), key=self._is_stateful):
            self.words += [Word("-m", name.column), name, *held]
        self.words += [*tail, *self._behind]

    def _is_stateful(self, group: tuple[Word, list[Word]]) -> bool:
        """Whether a match counts or remembers: it sees only packets that met all else, as a table has no order."""
        value = self._language.matches[group[0].text].value
        return issubclass(value, Match) and value.stateful

    def _column(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    # --- base options and the target ---

    def _read_target(self, table: Mapping[str, Any]) -> list[Word]:
        words: list[Word] = []
        for key, value in table.items():
            if not isinstance(value, str) or not value:
                reason = "it is empty" if value == "" else f"{shown(value)} is {described(value)}"
                raise self._table.error(reason, key=key, expected="a target's or chain's name")
            column = self._column(key)
            words += [Word(_TARGETS[key], column), Word(value, column, quoted=True)]
            if key != "goto":
                self._target_name = value
                self._target = self._language.targets.get(value)
        return words

    def _base(self, key: str, value: Any) -> None:
        option = _BASE[key]
        column = self._column(key)
        negated, text = self._one(key, value, invertible=True, expected="text, or { not = text }")
        if option == "-p" and not negated:
            self._protocol = parse_protocol(text, self._language)
        self.words += [*_negation(negated, column), Word(option, column), Word(text, column, quoted=True)]

    # --- options of extensions ---

    def _is_match(self, key: str, value: Any) -> bool:
        """Whether a key with such a value is a match by name, rather than an option; ``dst`` and ``ecn`` are both."""
        if key not in self._language.matches:
            return False
        if value is True:
            return self._target is None or _find(self._target, f"--{key}") is None
        return isinstance(value, dict) and set(value) != {"not"}

    def _extended(self, key: str, value: Any) -> None:
        if self._is_match(key, value):
            self._match(self._language.matches[key], key, value)
            return
        owner, option = self._owner(key)
        words = self._option(key, value, option, f"--{key}")
        if owner.is_target:
            self._behind += words
        else:
            self._group(owner.name, words[0].column).extend(words)

    def _match(self, extension: Extension, key: str, value: Any) -> None:
        """A match by name: true for one without options, or a table of its own options."""
        group = self._group(key, self._column(key))
        for name, held in value.items() if isinstance(value, dict) else ():
            option = _find(extension, f"--{name}")
            if option is None:
                known = [spelling[2:] for entry in extension.options for spelling in entry.names]
                near = suggestion(name, known)
                expected = alternatives(known) if known else "true"
                raise self._table.error(
                    f"match {key} has no option {name}{near}", key=f"{key}.{name}", expected=expected
                )
            group += self._option(f"{key}.{name}", held, option, f"--{name}")

    def _group(self, name: str, column: int) -> list[Word]:
        return self._groups.setdefault(name, (Word(name, column, quoted=True), []))[1]

    def _owner(self, key: str) -> tuple[Extension, Option]:
        """The extension whose option the key is: the target's, the protocol's match's, or the only other one's."""
        name = f"--{key}"
        implied = self._language.implied.get(self._protocol) if self._protocol is not None else None
        for extension in (self._target, implied):
            option = _find(extension, name) if extension is not None else None
            if extension is not None and option is not None:
                return extension, option
        found = [
            (extension, option) for extension in self._language.by_value.values() if (option := _find(extension, name))
        ]
        free = [(ext, option) for ext, option in found if not ext.is_target and ext.implied_by is None]
        if len(free) == 1:
            return free[0]
        raise self._unowned(key, [extension for extension, _ in found], [extension for extension, _ in free])

    def _unowned(self, key: str, found: list[Extension], free: list[Extension]) -> ConfigError:
        if free:
            names = alternatives(extension.name for extension in free)
            ways = alternatives(f"{extension.name} = {{ {key} = ... }}" for extension in free)
            return self._table.error(f"it is an option of {names}: say of which", key=key, expected=ways)
        matches = [extension for extension in found if not extension.is_target]
        if matches:
            ways = alternatives(f'protocol = "{extension.name}"' for extension in matches)
            return self._table.error("it is an option of the protocol's match", key=key, expected=f"{ways} beside it")
        if found:
            ways = alternatives(f'target = "{extension.name}"' for extension in found)
            return self._table.error("it is an option of another target", key=key, expected=f"{ways} beside it")
        if self._target is None and self._target_name.isupper():
            hint = f"the rule as text: {self._target_name} has no typed keys"
        else:
            hint = "one of iptables' long options without its dashes, a match's name, or the rule as text"
        return self._table.error(f"unknown key{suggestion(key, self._known())}", key=key, expected=hint)

    def _known(self) -> Iterator[str]:
        yield from (*_BASE, *_TARGETS, "fragment", "family", *self._language.matches)
        for extension in self._language.by_value.values():
            for option in extension.options:
                yield from (name[2:] for name in option.names)

    # --- values ---

    def _option(self, key: str, value: Any, option: Option, name: str) -> list[Word]:
        column = self._column(key)
        if option.words == 0:
            negated = isinstance(value, dict)
            if value is not True and value != {"not": True}:
                expected = "true, or { not = true }" if option.invertible else "true"
                raise self._table.error(f"{shown(value)}: it has no value", key=key, expected=expected)
            return [*_negation(negated, column), Word(name, column)]
        expected = option.codec.expected if option.codec is not None else "a value"
        if option.words > 1:
            negated, texts = self._several(key, value, option.words, expected)
        else:
            negated, text = self._one(key, value, invertible=option.invertible, expected=expected)
            texts = [text]
        return [*_negation(negated, column), Word(name, column), *(Word(text, column, quoted=True) for text in texts)]

    def _one(self, key: str, value: Any, *, invertible: bool, expected: str) -> tuple[bool, str]:
        """Whether a value is negated, and its text; a list is joined by commas."""
        negated, held = self._sign(key, value)
        if isinstance(held, str) and invertible and not negated and held.startswith("!"):
            negated, held = True, held[1:].lstrip()
        if isinstance(held, list) and held:
            return negated, ",".join(
                self._scalar(f"{key}[{index}]", item, expected) for index, item in enumerate(held, 1)
            )
        return negated, self._scalar(key, held, expected)

    def _several(self, key: str, value: Any, count: int, expected: str) -> tuple[bool, list[str]]:
        """Whether a value is negated, and its words: of a list, or of a text."""
        negated, held = self._sign(key, value)
        if isinstance(held, str) and held.startswith("!"):
            negated, held = True, held[1:].lstrip()
        texts = held.split() if isinstance(held, str) else held
        if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise self._table.error(f"{shown(held)} is not {count} words", key=key, expected=expected)
        return negated, texts

    def _sign(self, key: str, value: Any) -> tuple[bool, Any]:
        if not isinstance(value, dict):
            return False, value
        if set(value) != {"not"}:
            raise self._table.error(f"{shown(value)} is a table", key=key, expected="a value, or { not = value }")
        return True, value["not"]

    def _scalar(self, key: str, value: Any, expected: str) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            found = "an empty list" if value == [] else f"{shown(value)}, {described(value)}"
            raise self._table.error(f"found {found}", key=key, expected=expected)
        return str(value)


def _negation(negated: bool, column: int) -> list[Word]:
    return [Word("!", column)] if negated else []


def _find(extension: Extension, name: str) -> Option | None:
    return next((option for option in extension.options if name in option.names), None)
