"""Parsing of one rule's words, option by option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from meshfw.errors import FamilyError, FamilyParseError, ModelError, ParseError
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.extensions.language import Language
from meshfw.languages.iptables.addresses import parse_networks
from meshfw.languages.iptables.loaded import Loaded, Opaque
from meshfw.languages.iptables.vocabulary import (
    BASE_OPTIONS,
    COMMANDS,
    GLUED,
    GONE,
    INVERTIBLE,
    OPAQUE_TARGETS,
    VERDICTS,
    parse_protocol,
    unabbreviated,
)
from meshfw.languages.lexer import Word
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


class RuleParser:
    """The state of parsing one rule's words."""

    def __init__(self, words: Sequence[Word], *, family: Family, language: Language) -> None:
        self._words = words
        self._at = 0
        self._family = family
        self._language = language
        self._fields: dict[str, Any] = {}
        self._several: dict[str, tuple[Network, ...]] = {}
        self.counters: tuple[int, int] | None = None
        self._matches: list[Loaded | Opaque] = []
        self._target: Loaded | Opaque | Target | None = None
        self._matches_at_target = 0
        self._negated: Word | None = None
        self._protocol: int | None = None
        self._implied = False

    def parse(self) -> tuple[Rule, ...]:
        """The rules that the words make: one, or one for each pair of addresses."""
        self._all_options()
        return self._rules()

    def _all_options(self) -> None:
        while self._at < len(self._words):
            word = self._words[self._at]
            self._at += 1
            if word.text == "!":
                if self._negated is not None:
                    raise self._error("two negations", word, "one ! before an option")
                self._negated = word
            else:
                self._option(word)
        if self._negated is not None:
            raise self._error("a negation of nothing", self._negated, "an option behind !")

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
        if value.text == "!" and not value.quoted:
            following = self._words[self._at].text if self._at < len(self._words) else "-"
            if following[:1] not in ("-", "!"):
                raise self._error("the negation stands behind the option", value, f"! {option.text} VALUE")
        return value

    def _no_value(self) -> bool:
        """Whether the next word is an option, or there is none."""
        return self._at >= len(self._words) or self._words[self._at].text[:1] in ("-", "!")

    def _option(self, word: Word) -> None:
        text = word.text
        base = BASE_OPTIONS.get(text)
        if base is not None and not (text == "--proto" and self._exact(text)):  # short for --protocol, or policy's own
            self._base(base, word)
        elif text in COMMANDS:
            self._command(COMMANDS[text], word)
        elif not text.startswith("-"):
            raise self._error(f"{text!r} is not an option", word, "an option such as -s, -m or -j")
        elif text.startswith("--"):
            if "=" in text:
                self._option(self._unglue(word, text.index("="), 1))
            else:
                self._extension_option(word)
        elif len(text) > 2 and text[1] in GLUED:
            self._option(self._unglue(word, 2, 0))
        else:
            self._extension_option(word)

    def _command(self, name: str, word: Word) -> None:
        """Take an option that says where the rule goes: a rule alone has none."""
        raise self._error(f"{word.text} belongs to a whole command line", word, "the rule alone: what follows -A CHAIN")

    def _unglue(self, word: Word, cut: int, skip: int) -> Word:
        """The option of ``--option=value`` or ``-xvalue``, of which the value is put back as the next word."""
        value = Word(word.text[cut + skip :], word.column + cut + skip, quoted=True)
        self._words = [*self._words[: self._at], value, *self._words[self._at :]]
        return Word(word.text[:cut], word.column)

    def _take_negation(self, word: Word, *, allowed: bool) -> bool:
        if self._negated is None:
            return False
        if not allowed:
            raise self._error(f"{word.text} can't be negated", self._negated)
        self._negated = None
        return True

    # --- base options ---

    def _base(self, field: str, word: Word) -> None:
        negated = self._take_negation(word, allowed=field in INVERTIBLE)
        if field in self._fields:
            raise self._error(f"{word.text} is given twice", word)
        if field == "fragment":
            self._fields[field] = not negated
        elif field in ("ipv4", "ipv6"):
            if field != self._family:
                self._other_family(word)
        elif field == "counters":
            self._fields.update(counters=self._base_counters(word))
        else:
            getattr(self, f"_base_{field}")(word, self._value(word), negated)

    def _set(self, field: str, value: Any, negated: bool) -> None:
        self._fields[field] = Not(value) if negated else value

    def _other_family(self, word: Word) -> None:
        raise FamilyParseError(f"{word.text} in a rule for {self._family}", column=word.column)

    def _base_counters(self, word: Word) -> tuple[int, int]:
        """``-c PACKETS BYTES``, or both in one word and joined by a comma."""
        value = self._value(word)
        packets, comma, octets = value.text.partition(",")
        if not comma:
            octets = self._value(word).text
        if not (packets + octets).isascii() or not packets.isdigit() or not octets.isdigit():
            raise self._error(f"{packets!r} and {octets!r} are no counters", value, "-c PACKETS BYTES")
        return int(packets), int(octets)

    def _address(self, field: str, value: Word, negated: bool) -> None:
        if value.text.startswith("@"):
            self._set(field, SetRef(value.text[1:]), negated)
            return
        try:
            networks = parse_networks(value.text, family=self._family, resolve=self._language.hosts.resolve)
        except ModelError as error:
            expected = f"an {self._family} address, ADDRESS/LENGTH, ADDRESS/MASK or @SET"
            raise self._refused(error, value, expected) from None
        if len(networks) == 1:
            self._set(field, networks[0], negated)
            return
        if negated:
            raise self._error(f"! {value.text} would be several rules", value, "one address behind !, or a set")
        self._several[field] = networks

    def _base_source(self, _word: Word, value: Word, negated: bool) -> None:
        self._address("source", value, negated)

    def _base_destination(self, _word: Word, value: Word, negated: bool) -> None:
        self._address("destination", value, negated)

    def _interface(self, field: str, value: Word, negated: bool) -> None:
        if value.text == "+" and not negated:
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
            self._matches.append(Opaque(value.text))
            return
        self._known_family(extension, value)
        self._matches.append(Loaded(extension, value))

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
            self._target = Loaded(extension, value)
        elif name in GONE:
            raise self._error(f"{name} is gone", value, GONE[name])
        elif name in OPAQUE_TARGETS:
            self._target = Opaque(name)
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
        if option.field in loaded.fields and not option.many:
            raise self._error(f"{word.text} is given twice", word)
        value: Any = option.preset
        if option.words and not (option.optional and self._no_value()):
            values = [self._value(word) for _ in range(option.words)]
            codec = cast("Codec", option.codec)  # an option with words has one: tested for every extension
            context = ParseContext(self._family, self._protocol, self._language.hosts)
            text = values[0].text if len(values) == 1 else " ".join(item.text for item in values)
            try:
                value = codec.parse(text, context)
            except ModelError as error:
                raise self._refused(error, values[0], codec.expected) from None
        held = Not(value) if negated else value
        given = (*loaded.fields.get(option.field, ()), (option.name, held))
        loaded.fields[option.field] = given if option.many else held

    def _loaded(self) -> list[Loaded]:
        return [item for item in (self._target, *reversed(self._matches)) if isinstance(item, Loaded)]

    def _exact(self, name: str) -> tuple[Loaded, Option] | None:
        for item in (self._target, *reversed(self._matches)):
            if isinstance(item, Loaded):
                option = item.extension.named.get(name)
                if option is not None:
                    return item, option
        return None

    def _find(self, name: str) -> tuple[Loaded, Option] | None:
        """The loaded extension that has the option: the target, then the matches, last first, then the protocol's."""
        found = self._exact(name) or self._implied_match(name)
        if found is not None:
            return found
        abbreviated = [
            (loaded, option)
            for loaded in self._loaded()
            for option in loaded.extension.options
            if any(spelling.startswith(name) for spelling in option.names)
        ]
        return abbreviated[0] if len({option.field for _, option in abbreviated}) == 1 else None

    def _implied_match(self, name: str) -> tuple[Loaded, Option] | None:
        extension = self._language.implied.get(self._protocol) if self._protocol is not None else None
        if extension is None or self._implied or self._family not in extension.value.families:
            return None
        option = extension.named.get(name)
        if option is None:
            return None
        loaded = Loaded(extension, Word(extension.name))
        self._matches.append(loaded)
        self._implied = True
        return loaded, option

    def _opaque_option(self, word: Word) -> None:
        owner = self._opaque_owner()
        whole = unabbreviated(word.text) if owner is None else None
        if whole is not None:
            self._option(Word(whole, word.column))
            return
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

    def _opaque_owner(self) -> Opaque | None:
        """Whose option an unknown one is: the unknown target's or match's, whichever stands nearer before it."""
        if isinstance(self._target, Jump) and self._matches_at_target == len(self._matches):
            self._target = Opaque(self._target.chain)
        if isinstance(self._target, Opaque) and self._matches_at_target == len(self._matches):
            return self._target
        for item in reversed(self._matches):
            if isinstance(item, Opaque):
                return item
        return self._target if isinstance(self._target, Opaque) else None

    # --- the rule ---

    def _rules(self) -> tuple[Rule, ...]:
        target = self._target
        self.counters = self._fields.pop("counters", None)
        rule = Rule(
            matches=tuple(self._made_match(item) for item in self._matches),
            target=self._made_target(target) if isinstance(target, Loaded | Opaque) else target,
            **self._fields,
        )
        why = rule.problem(self._family)
        if why:
            raise ParseError(why)
        return self._spread(rule) if self._several else (rule,)

    def _spread(self, rule: Rule) -> tuple[Rule, ...]:
        """The rule for each pair of addresses, all destinations of the first source first, as iptables has it."""
        for addresses in (rule.source, rule.destination):
            if isinstance(addresses, Not):
                raise ParseError(f"! {addresses.value} beside several addresses", expected="one rule for each of them")
        sources = self._several.get("source", (rule.source,))
        destinations = self._several.get("destination", (rule.destination,))
        return tuple(
            msgspec.structs.replace(rule, source=source, destination=destination)
            for source in sources
            for destination in destinations
        )

    def _made(self, loaded: Loaded) -> Match | Target:
        context = ParseContext(self._family, self._protocol, self._language.hosts)
        try:
            return loaded.extension.make(loaded.fields, context)
        except ModelError as error:
            raise self._refused(error, loaded.word) from None

    def _made_match(self, item: Loaded | Opaque) -> Match:
        if isinstance(item, Opaque):
            return OpaqueMatch(item.name, tuple(item.words))
        return cast("Match", self._made(item))  # Language keeps matches and targets apart

    def _made_target(self, item: Loaded | Opaque) -> Target:
        if isinstance(item, Opaque):
            return OpaqueTarget(item.name, tuple(item.words))
        return cast("Target", self._made(item))  # Language keeps matches and targets apart
