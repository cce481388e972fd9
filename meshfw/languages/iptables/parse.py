"""Parsing of one rule's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from meshfw.errors import FamilyError, FamilyParseError, ModelError, ParseError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.language import Language
from meshfw.languages.iptables.vocabulary import (
    BASE_OPTIONS,
    COMMANDS,
    GLUED,
    INVERTIBLE,
    OPAQUE_TARGETS,
    VERDICTS,
    parse_protocol,
)
from meshfw.languages.lexer import Word, split
from meshfw.model import (
    Family,
    Goto,
    Interface,
    Jump,
    Match,
    Network,
    Not,
    OpaqueMatch,
    OpaqueTarget,
    Rule,
    SetRef,
    Target,
)


class _Loaded:
    """An extension met in a rule and the fields its options have filled so far."""

    def __init__(self, extension: Extension, word: Word) -> None:
        self.extension = extension
        self.word = word
        self.fields: dict[str, Any] = {}


class _Opaque:
    """A match or target without a typed value, and its words so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.words: list[str] = []


class _RuleParser:
    """The state of parsing one rule's words."""

    def __init__(self, words: Sequence[Word], *, family: Family, language: Language) -> None:
        self._words = words
        self._at = 0
        self._family = family
        self._language = language
        self._fields: dict[str, Any] = {}
        self._matches: list[_Loaded | _Opaque] = []
        self._target: _Loaded | _Opaque | Target | None = None
        self._matches_at_target = 0
        self._negated: Word | None = None
        self._protocol: int | None = None
        self._implied = False

    def parse(self) -> Rule:
        while self._at < len(self._words):
            word = self._words[self._at]
            self._at += 1
            if word.text == "!" and not word.quoted:
                if self._negated is not None:
                    raise self._error("two negations", word, "one ! before an option")
                self._negated = word
            else:
                self._option(word)
        if self._negated is not None:
            raise self._error("a negation of nothing", self._negated, "an option behind !")
        return self._rule()

    def _error(self, reason: str, word: Word | None, expected: str = "") -> ParseError:
        return ParseError(reason, column=word.column if word else 0, expected=expected)

    def _refused(self, error: ModelError, word: Word, expected: str = "") -> ParseError:
        kind = FamilyParseError if isinstance(error, FamilyError) else ParseError
        return kind(str(error), column=word.column, expected=expected)

    def _value(self, option: Word) -> Word:
        if self._at >= len(self._words):
            raise self._error(f"{option.text} has no value", option, f"a value behind {option.text}")
        self._at += 1
        value = self._words[self._at - 1]
        following = self._words[self._at] if self._at < len(self._words) else None
        if value == ("!", value.column, False) and following is not None and following.text[:1] not in ("-", "!"):
            raise self._error("the negation stands behind the option", value, f"! {option.text} VALUE")
        return value

    def _no_value(self) -> bool:
        """Whether the next word is an option, or there is none."""
        return self._at >= len(self._words) or self._words[self._at].text[:1] in ("-", "!")

    def _option(self, word: Word) -> None:
        text = word.text
        if word.quoted or not text.startswith("-"):
            raise self._error(f"{text!r} is not an option", word, "an option such as -s, -m or -j")
        if text.startswith("--") and "=" in text:
            text = self._unglue(word, text.index("="), 1)
        elif not text.startswith("--") and len(text) > 2 and text[1] in GLUED:
            text = self._unglue(word, 2, 0)
        if text in COMMANDS:
            raise self._error(f"{text} belongs to a whole command line", word, "the rule alone: what follows -A CHAIN")
        base = BASE_OPTIONS.get(text)
        if base is not None:
            self._base(base, Word(text, word.column))
        else:
            self._extension_option(Word(text, word.column))

    def _unglue(self, word: Word, cut: int, skip: int) -> str:
        """Split ``--option=value`` or ``-xvalue`` and put the value back as the next word."""
        value = Word(word.text[cut + skip :], word.column + cut + skip, quoted=True)
        self._words = [*self._words[: self._at], value, *self._words[self._at :]]
        return word.text[:cut]

    def _take_negation(self, word: Word, *, allowed: bool) -> bool:
        negated = self._negated is not None
        if negated and not allowed:
            raise self._error(f"{word.text} can't be negated", self._negated)
        self._negated = None
        return negated

    # --- base options ---

    def _base(self, field: str, word: Word) -> None:
        negated = self._take_negation(word, allowed=field in INVERTIBLE)
        if field in self._fields:
            raise self._error(f"{word.text} is given twice", word)
        if field == "fragment":
            self._fields[field] = not negated
        elif field in ("ipv4", "ipv6"):
            if field != self._family:
                raise FamilyParseError(f"{word.text} in a rule for {self._family}", column=word.column)
        elif field == "counters":
            self._value(word), self._value(word)
        else:
            getattr(self, f"_base_{field}")(word, self._value(word), negated)

    def _set(self, field: str, value: Any, negated: bool) -> None:
        self._fields[field] = Not(value) if negated else value

    def _address(self, field: str, value: Word, negated: bool) -> None:
        if value.text.startswith("@"):
            self._set(field, SetRef(value.text[1:]), negated)
            return
        expected = f"an {self._family} address, ADDRESS/LENGTH, ADDRESS/MASK or @SET"
        if "," in value.text:
            raise self._error("several addresses in one rule", value, "one rule for each address, or a set")
        try:
            network = Network.parse(value.text)
        except ModelError as error:
            raise self._refused(error, value, expected) from None
        if network.family is not self._family:
            raise FamilyParseError(
                f"{value.text} is an {network.family} address in an {self._family} rule", column=value.column
            )
        if network.mask:
            self._set(field, network, negated)
        elif negated:
            raise self._error(f"! {value.text} matches nothing", value, expected)

    def _base_source(self, _word: Word, value: Word, negated: bool) -> None:
        self._address("source", value, negated)

    def _base_destination(self, _word: Word, value: Word, negated: bool) -> None:
        self._address("destination", value, negated)

    def _interface(self, field: str, value: Word, negated: bool) -> None:
        if value.text == "+":
            if negated:
                raise self._error("! + matches nothing", value, "an interface's name")
            return
        try:
            self._set(field, Interface(value.text), negated)
        except ModelError as error:
            raise self._refused(error, value, "an interface's name, or its beginning and +") from None

    def _base_in_interface(self, _word: Word, value: Word, negated: bool) -> None:
        self._interface("in_interface", value, negated)

    def _base_out_interface(self, _word: Word, value: Word, negated: bool) -> None:
        self._interface("out_interface", value, negated)

    def _base_protocol(self, _word: Word, value: Word, negated: bool) -> None:
        protocol = parse_protocol(value.text, self._language)
        if protocol is None:
            raise self._error(f"{value.text!r} is not a protocol", value, "a name such as tcp, or 0 to 255")
        if protocol == 0:
            if negated:
                raise self._error("! -p all matches nothing", value)
            return
        self._set("protocol", protocol, negated)
        self._protocol = None if negated else protocol

    def _base_match(self, word: Word, value: Word, _negated: bool) -> None:
        extension = self._language.matches.get(value.text)
        if extension is None:
            self._matches.append(_Opaque(value.text))
            return
        self._known_family(extension, value)
        self._matches.append(_Loaded(extension, value))

    def _known_family(self, extension: Extension, word: Word) -> None:
        if self._family not in extension.value.families:
            raise FamilyParseError(f"{extension.name} does not exist for {self._family}", column=word.column)

    def _base_jump(self, word: Word, value: Word, _negated: bool) -> None:
        self._one_target(word)
        name = value.text
        extension = self._language.targets.get(name)
        if name in VERDICTS:
            self._target = VERDICTS[name]
        elif extension is not None:
            self._known_family(extension, value)
            self._target = _Loaded(extension, value)
        elif name in OPAQUE_TARGETS:
            self._target = _Opaque(name)
        else:
            self._target = Jump(name)

    def _base_goto(self, word: Word, value: Word, _negated: bool) -> None:
        self._one_target(word)
        self._target = Goto(value.text)

    def _one_target(self, word: Word) -> None:
        if self._target is not None:
            raise self._error("a rule has one target", word)
        self._matches_at_target = len(self._matches)

    # --- options of extensions ---

    def _extension_option(self, word: Word) -> None:
        found = self._find(word.text)
        if found is None:
            self._opaque_option(word)
            return
        loaded, option = found
        negated = self._take_negation(word, allowed=option.invertible)
        if option.field in loaded.fields:
            raise self._error(f"{word.text} is given twice", word)
        value: Any = option.preset
        if option.words and not (option.optional and self._no_value()):
            values = [self._value(word) for _ in range(option.words)]
            codec = cast("Codec", option.codec)  # an option with words has one: tested for every extension
            context = ParseContext(self._family, self._protocol, self._language.hosts)
            try:
                value = codec.parse(" ".join(item.text for item in values), context)
            except ModelError as error:
                raise self._refused(error, values[0], codec.expected) from None
        loaded.fields[option.field] = Not(value) if negated else value

    def _find(self, name: str) -> tuple[_Loaded, Option] | None:
        """The loaded extension that has the option: the target, then the matches, last first, then the protocol's."""
        candidates = [item for item in (self._target, *reversed(self._matches)) if isinstance(item, _Loaded)]
        for loaded in candidates:
            for option in loaded.extension.options:
                if name == option.name or name in option.aliases:
                    return loaded, option
        implied = self._implied_match(name)
        if implied is not None:
            return implied
        abbreviated = [
            (loaded, option)
            for loaded in candidates
            for option in loaded.extension.options
            if any(spelling.startswith(name) for spelling in option.names)
        ]
        return abbreviated[0] if len({option.field for _, option in abbreviated}) == 1 else None

    def _implied_match(self, name: str) -> tuple[_Loaded, Option] | None:
        extension = self._language.implied.get(self._protocol) if self._protocol is not None else None
        if extension is None or self._implied or self._family not in extension.value.families:
            return None
        for option in extension.options:
            if name in option.names:
                loaded = _Loaded(extension, Word(extension.name))
                self._matches.append(loaded)
                self._implied = True
                return loaded, option
        return None

    def _opaque_option(self, word: Word) -> None:
        owner = self._opaque_owner()
        if owner is None:
            hint = "-m or -p before it" if self._protocol is None else "the -m that it belongs to before it"
            raise self._error(f"unknown option {word.text}", word, hint)
        if self._negated is not None:
            owner.words.append("!")
            self._negated = None
        owner.words.append(word.text)
        while self._at < len(self._words):
            following = self._words[self._at]
            if not following.quoted and (following.text.startswith("-") or following.text == "!"):
                break
            owner.words.append(following.text)
            self._at += 1

    def _opaque_owner(self) -> _Opaque | None:
        """Whose option an unknown one is: the unknown target's or match's, whichever stands nearer before it."""
        if isinstance(self._target, Jump) and self._matches_at_target == len(self._matches):
            self._target = _Opaque(self._target.chain)
        if isinstance(self._target, _Opaque) and self._matches_at_target == len(self._matches):
            return self._target
        for item in reversed(self._matches):
            if isinstance(item, _Opaque):
                return item
        return self._target if isinstance(self._target, _Opaque) else None

    # --- the rule ---

    def _rule(self) -> Rule:
        target = self._target
        rule = Rule(
            matches=tuple(self._made_match(item) for item in self._matches),
            target=self._made_target(target) if isinstance(target, _Loaded | _Opaque) else target,
            **self._fields,
        )
        why = rule.problem(self._family)
        if why:
            raise ParseError(why)
        return rule

    def _made(self, loaded: _Loaded) -> Match | Target:
        context = ParseContext(self._family, self._protocol, self._language.hosts)
        try:
            return loaded.extension.make(loaded.fields, context)
        except ModelError as error:
            raise self._refused(error, loaded.word) from None

    def _made_match(self, item: _Loaded | _Opaque) -> Match:
        if isinstance(item, _Opaque):
            return OpaqueMatch(item.name, tuple(item.words))
        return cast("Match", self._made(item))  # Language keeps matches and targets apart

    def _made_target(self, item: _Loaded | _Opaque) -> Target:
        if isinstance(item, _Opaque):
            return OpaqueTarget(item.name, tuple(item.words))
        return cast("Target", self._made(item))  # Language keeps matches and targets apart


def parse_rule(
    rule: str | Iterable[str | Word], *, family: Family, language: Language, source: str = "", line: int = 0
) -> Rule:
    """The rule of one line in restore quoting, or of a list of words, without ``-A CHAIN``.

    Raises:
        ParseError: with line and column; ``FamilyParseError`` where the rule belongs to the other family.
    """
    text = rule if isinstance(rule, str) else ""
    try:
        words = split(rule) if isinstance(rule, str) else [w if isinstance(w, Word) else Word(w) for w in rule]
        return _RuleParser(words, family=family, language=language).parse()
    except ParseError as error:
        raise _placed(error, text=text, source=source, line=line) from None


def _placed(error: ParseError, *, text: str, source: str, line: int) -> ParseError:
    return type(error)(
        error.reason, text=text or error.text, source=source, line=line, column=error.column, expected=error.expected
    )
