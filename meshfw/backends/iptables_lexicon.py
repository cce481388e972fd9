"""What the texts that iptables prints mean: rules as they were declared, or else as they're parsed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.backends.iptables_raw import RawRule
from meshfw.backends.layout import iptables_chain, owned_iptables_chain
from meshfw.backends.spellings import KnownTexts
from meshfw.errors import MeshfwError
from meshfw.extensions.language import Language
from meshfw.extensions.tcp import Tcp
from meshfw.extensions.udp import Udp
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import Chain, ChainKey, Dispatcher, Family, Goto, Jump, Match, Not, OpaqueMatch, OpaqueTarget, Rule
from meshfw.snapshot import ListKey

_LEAST: Final = 20_000
"""Texts that are remembered at least, or else four for each rule that is wanted; beyond, all are learned anew."""
_LEFT: Final = 1_000
"""Rules no longer wanted whose texts stay."""


class Lexicon:
    """Texts and rules of one owner, both ways: what was learned once isn't parsed or asked for again.

    A rule of a match or target without a typed value may be printed otherwise than it was written. That is learned by
    :meth:`learn` from what a commit of ours left, and its text then means the rule that was declared.

    ``apart``: a source and a destination port that are both excluded are written as two matches. Where they stand in
    one, iptables-nft 1.8.9 excludes none but packets that have both.
    """

    def __init__(self, owner: str, language: Language, *, apart: bool) -> None:
        self._owner = owner
        self._language = language
        self._apart = apart
        self._texts: dict[tuple[Family, bytes], str] = {}
        self._rules: dict[tuple[Family, str], Rule | None] = {}
        self._spellings: dict[tuple[Family, str], list[Rule]] = {}
        self._written: dict[int, tuple[Rule, Family, str]] = {}
        self._shortened: dict[str, str] = {}
        self._wanted: Mapping[ListKey, Sequence[Rule]] = {}
        self._lists: dict[ListKey, tuple[Chain | Dispatcher, bool]] = {}
        self._most = _LEAST

    # --- bytes and texts ---

    def text(self, family: Family, rule: RawRule) -> str | None:
        """The text of a rule; None for one that iptables can't tell, or whose text isn't known yet."""
        return self._texts.get((family, rule.body))

    def unknown(self, family: Family, rules: Sequence[RawRule]) -> list[RawRule]:
        """The rules whose text isn't known."""
        return [rule for rule in rules if (family, rule.body) not in self._texts]

    def remember(self, family: Family, rules: Iterable[RawRule], texts: Iterable[str | None]) -> None:
        """Take down what iptables printed for rules of which it tells everything; None where that isn't sure."""
        if len(self._texts) > self._most:
            self._texts.clear()
        known = ((rule, text) for rule, text in zip(rules, texts, strict=True) if text is not None)
        self._texts.update(((family, rule.body), text) for rule, text in known)

    def forget(self) -> None:
        """Have every text asked for again: something went wrong, and one that was misread would go wrong again."""
        self._texts.clear()

    # --- texts and rules ---

    def written(self, rule: Rule, family: Family) -> str:
        """The text that iptables is given for a rule."""
        known = self._written.get(id(rule))
        if known is not None and known[0] is rule and known[1] is family:
            return known[2]
        text = format_rule(self._stored(rule), family=family, language=self._language)
        self._written[id(rule)] = (rule, family, text)
        if self._rules.get((family, text)) is None:
            self._rules[family, text] = rule
        return text

    def _outgrow(self, lists: Sequence[Chain | Dispatcher]) -> None:
        """Let go what was written of rules that nobody wants any more: sources make new ones for years."""
        count = sum(len(wanted.rules) for wanted in lists)
        self._most = max(_LEAST, 4 * count)
        if len(self._rules) > self._most:
            self._rules.clear()
        if len(self._written) > 2 * count + _LEFT:
            held = {id(rule) for wanted in lists for rule in wanted.rules}
            self._written = {number: entry for number, entry in self._written.items() if number in held}

    def want(self, lists: Sequence[Chain | Dispatcher], spellings: KnownTexts | None = None) -> None:
        """Take down what is wanted, and of rules without a typed value the texts by which they're known again."""
        self._outgrow(lists)
        known, self._lists = self._lists, {}
        for wanted in lists:
            held = known.get(wanted.key)
            if held is None or held[0] is not wanted:
                held = (wanted, any(is_opaque(rule) for rule in wanted.rules))
            self._lists[wanted.key] = held
        self._wanted = {key: wanted.rules for key, (wanted, opaque) in self._lists.items() if opaque}
        for key, rules in self._wanted.items():
            for rule in filter(is_opaque, rules):
                written = self.written(rule, key.family)
                printed = spellings.printed(key.family, written) if spellings is not None else None
                if printed is not None:
                    self._spell(key.family, rule, printed)

    def unsure(self, key: ListKey) -> bool:
        """Whether a list that is wanted has rules without a typed value."""
        return key in self._wanted

    def learn(self, family: Family, rule: Rule, text: str) -> bool:
        """Whether a text may be another writing of a rule that was just written; it is taken for it from now on."""
        if not is_opaque(rule):
            return False
        found = self._meaning(family, text)
        if found is None or _without_words(found) != _without_words(rule):
            return False
        self._spell(family, rule, text)
        return True

    def _spell(self, family: Family, rule: Rule, text: str) -> None:
        spellings = self._spellings.setdefault((family, text), [])
        if rule not in spellings:
            spellings.append(rule)

    def rules(self, key: ListKey, texts: Sequence[str | None]) -> list[Rule | None]:
        """What the texts of one list mean; where a text has several spellings, those that are wanted there in turn."""
        family = key.family
        if not all((family, text) in self._rules for text in texts):
            self._foresee(key)
        found = [
            None if text is None else self._rules.get((family, text)) or self._meaning(family, text) for text in texts
        ]
        if self._spellings:
            self._respell(key, texts, found)
        return found

    def _foresee(self, key: ListKey) -> None:
        """Write what is wanted of a list: most of what stands there is that, and to parse that would take longer."""
        wanted, _ = self._lists.get(key, (None, False))
        for rule in wanted.rules if wanted is not None else ():
            self.written(rule, key.family)

    def _respell(self, key: ListKey, texts: Sequence[str | None], found: list[Rule | None]) -> None:
        wanted: dict[str, list[Rule]] = {}
        for index, text in enumerate(texts):
            spellings = self._spellings.get((key.family, text)) if text is not None else None
            if text is None or not spellings:
                continue
            if text not in wanted:
                wanted[text] = [
                    rule
                    for rule in self._wanted.get(key, ())
                    if rule in spellings or self.written(rule, key.family) == text
                ]
            found[index] = wanted[text].pop(0) if wanted[text] else spellings[0]

    def _meaning(self, family: Family, text: str) -> Rule | None:
        """The rule of a text, parsed; None for one that is no rule of ours."""
        if (family, text) in self._rules:
            return self._rules[family, text]
        try:
            rule = self._logical(parse_rule(text, family=family, language=self._language))
        except MeshfwError:
            rule = None
        if len(self._rules) > self._most:
            self._rules.clear()
        self._rules[family, text] = rule
        return rule

    # --- names of chains ---

    def named(self, chain: str, key: ListKey) -> None:
        """Take down whose chain a name is, which a shortened one doesn't tell."""
        if isinstance(key, ChainKey) and self._shortened.get(chain, chain.removeprefix(f"{self._owner}-")) != key.name:
            self._shortened[chain] = key.name
            self._rules.clear()  # rules that lead there were taken for leading elsewhere

    def _stored(self, rule: Rule) -> Rule:
        if self._apart and any(_is_joint(match) for match in rule.matches):
            rule = msgspec.structs.replace(
                rule, matches=tuple(part for match in rule.matches for part in _parts(match))
            )
        target = rule.target
        if not isinstance(target, Jump | Goto):
            return rule
        name = iptables_chain(self._owner, target.chain)
        self._shortened[name] = target.chain
        return msgspec.structs.replace(rule, target=type(target)(name))

    def _logical(self, rule: Rule) -> Rule | None:
        target = rule.target
        if not isinstance(target, Jump | Goto):
            return rule
        if not owned_iptables_chain(self._owner, target.chain):
            # The text can't tell a chain of somebody's from a target that the language doesn't know.
            stranger: Any = OpaqueTarget(target.chain)
            return msgspec.structs.replace(rule, target=stranger) if isinstance(target, Jump) else None
        name = self._shortened.get(target.chain) or target.chain.removeprefix(f"{self._owner}-")
        if iptables_chain(self._owner, name) != target.chain:
            return None
        return msgspec.structs.replace(rule, target=type(target)(name))


def _is_joint(match: Match) -> bool:
    """Whether it excludes ports at both ends."""
    return isinstance(match, Tcp | Udp) and isinstance(match.sport, Not) and isinstance(match.dport, Not)


def _parts(match: Match) -> tuple[Match, ...]:
    if isinstance(match, Tcp | Udp) and _is_joint(match):
        return msgspec.structs.replace(match, dport=None), type(match)(dport=match.dport)
    return (match,)


def is_opaque(rule: Rule) -> bool:
    """Whether some of it has no typed value."""
    return isinstance(rule.target, OpaqueTarget) or any(isinstance(match, OpaqueMatch) for match in rule.matches)


def _without_words(rule: Rule) -> Rule:
    """The rule with the words of what has no typed value left out."""
    matches = tuple(OpaqueMatch(match.name) if isinstance(match, OpaqueMatch) else match for match in rule.matches)
    target = OpaqueTarget(rule.target.name) if isinstance(rule.target, OpaqueTarget) else rule.target
    return msgspec.structs.replace(rule, matches=matches, target=target)


def outline(rule: Rule) -> tuple[Any, ...]:
    """What of a rule decides of which kinds of expression iptables builds it."""
    plain = (rule.source is None, rule.destination is None, rule.in_interface is None, rule.out_interface is None)
    return (*plain, rule.protocol is None, rule.fragment, *map(type, rule.matches), type(rule.target))
