"""What iptables says of the bytes that stand, and what that means: asked for, learned from commits, or known again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from meshfw.backends.iptables_lexicon import Lexicon, outline
from meshfw.backends.iptables_listing import Reading, matched, printed_rules
from meshfw.backends.iptables_raw import Look, Part, RawRule, Reader
from meshfw.backends.iptables_text import asked_chains, chain_of, comment_text
from meshfw.backends.iptables_tool import ChainRules, Tool
from meshfw.backends.spellings import KnownTexts, Printed
from meshfw.errors import CommandError
from meshfw.extensions.language import Language
from meshfw.kernel.lock import XtablesLock
from meshfw.model import Chain, Dispatcher, Family, Rule
from meshfw.plan import Plan


class Texts:
    """The texts of one owner's rules in one variant of iptables.

    They come from three places, cheapest first: from a commit's own processes, which print what they left; from an
    earlier run, for rules that this one can't tell; and from one process for each family that is asked.
    """

    def __init__(self, owner: str, language: Language, *, reader: Reader, tool: Tool) -> None:
        self._owner = owner
        self._reader = reader
        self._tool = tool
        self._lexicon = Lexicon(owner, language, apart=not tool.variant.legacy)
        self._spellings = KnownTexts(f"spellings-{tool.variant.name}")
        self._forms = KnownTexts(f"forms-{tool.variant.name}")
        self._told: dict[tuple[object, ...], bool] = {}

    def want(self, lists: Sequence[Chain | Dispatcher]) -> None:
        """Take down what is wanted, so that rules without a typed value are known however they're printed."""
        self._lexicon.want(lists, self._spellings)

    def written(self, rule: Rule, family: Family) -> str:
        """The text that iptables is given for a rule."""
        return self._lexicon.written(rule, family)

    def forget(self) -> None:
        """Have every text asked for again: something went wrong, and one that was misread would go wrong again."""
        self._lexicon.forget()

    def reading(self, family: Family, *, adopt: bool) -> Reading:
        """How bytes of a family are read."""
        return Reading(
            owner=self._owner,
            adopt=adopt,
            text=lambda rule: self._lexicon.text(family, rule),
            jump=lambda rule: self._reader.meaning(family, rule).jump,
            named=self._lexicon.named,
            rules=self._lexicon.rules,
        )

    # --- asking ---

    def missing(self, look: Look, part: Part | None) -> dict[Family, list[ChainRules]]:
        """The chains with rules whose bytes are new, by family.

        A rule of which iptables can't tell everything isn't asked for: its text would say less than it does.
        """
        found: dict[Family, list[ChainRules]] = {}
        for table, name, rules in look.chains(part):
            family = table[0]
            new = [rule for rule in self._lexicon.unknown(family, rules) if not self._recalled(family, rule)]
            if any(self._reader.meaning(family, rule).told for rule in new):
                told = tuple(self._reader.meaning(family, rule).told for rule in rules)
                found.setdefault(family, []).append(ChainRules(table, name, rules, told))
        return found

    def _recalled(self, family: Family, rule: RawRule) -> bool:
        """Whether a rule is known by its bytes alone.

        Those of a comment, which a marker is, say it all: whose a chain is doesn't hang on what else stands in it. Of
        what iptables can't tell it is known whether an earlier run had it written.
        """
        meaning = self._reader.meaning(family, rule)
        text = comment_text(meaning.comment) if meaning.comment else None
        if not meaning.told:
            text = self._forms.printed(family, _digest(rule))
        self._lexicon.remember(family, (rule,), (text,))
        return text is not None

    def ask(self, asked: Mapping[Family, Sequence[ChainRules]], look: Look, lock: XtablesLock | None) -> str | None:
        """Learn the texts of chains' rules, with one process for each family, where they are what was looked at.

        None where somebody wrote meanwhile: a chain of ours that is another then isn't learned from, and another look
        is due. What else comes back names the chains for which asking failed: whose they are would be a guess.
        """
        answers: list[tuple[Family, ChainRules, Sequence[str | None]]] = []
        silent: list[str] = []
        for family, new in asked.items():
            left = {item[:2]: f"{family} {item.table[1]} {item.chain}" for item in new}
            for item, lines in self._printed(family, new, look, lock):
                texts: Sequence[str | None] | None
                texts = [None] * len(item.told) if lines is None else matched(item.told, lines)
                if texts is not None:
                    del left[item[:2]]
                    answers.append((family, item, texts))
            silent.extend(left.values())
        undisturbed = self._reader.still(look)
        now = look if undisturbed else self._reader.look()
        for family, item, texts in answers:
            if [rule.body for rule in now.table(item.table).chains.get(item.chain, ())] == [r.body for r in item.rules]:
                self._lexicon.remember(family, item.rules, texts)
        return ", ".join(silent) if undisturbed else None

    def _printed(
        self, family: Family, chains: Sequence[ChainRules], look: Look, lock: XtablesLock | None
    ) -> list[tuple[ChainRules, list[str] | None]]:
        try:
            return self._tool.printed(family, chains, lock=lock)
        except CommandError:
            if self._reader.still(look):
                raise
            return []  # one of them is gone already

    # --- learning ---

    def learn(self, plan: Plan, printed: Mapping[Family, str], look: Look) -> None:
        """Learn from what a commit's own processes printed, and from what it left."""
        for family, output in printed.items():
            asked = asked_chains(plan, family, owner=self._owner)
            for (table, chain), texts in zip(asked, printed_rules(output, [name for _, name in asked]), strict=False):
                rules = look.table(table).chains.get(chain, ())
                if len(rules) == len(texts):  # whatever is new was made by that process, from a text of ours
                    self._lexicon.remember(family, rules, texts)
        self._learn_written(plan, look)

    def _learn_written(self, plan: Plan, look: Look) -> None:
        """Take down what isn't to be seen of the rules just written: other spellings, and forms that are new to us."""
        spellings: list[Printed] = []
        forms: list[Printed] = []
        for change in plan.lists:
            family, unsure = change.key.family, self._lexicon.unsure(change.key)
            held = look.table((family, change.key.table)).chains.get(chain_of(self._owner, change), ())[1:]
            for raw, rule in zip(held, change.rules, strict=False):
                told = self._is_told(family, raw, rule)
                text = self._lexicon.text(family, raw) if unsure or not told else None
                if text is None:
                    continue
                if not told:
                    forms.append((family, _digest(raw), text))
                written = self._lexicon.written(rule, family)
                if text != written and self._lexicon.learn(family, rule, text):
                    spellings.append((family, written, text))
        if spellings:
            self._spellings.keep(spellings)
        if forms:
            self._forms.keep(forms)

    def _is_told(self, family: Family, raw: RawRule, rule: Rule) -> bool:
        """Whether iptables tells all of a rule that it has just built; looked at once for each kind of rule."""
        key: tuple[object, ...] = (family, *outline(rule))
        told = self._told.get(key)
        if told is None:
            told = self._told[key] = self._reader.meaning(family, raw).told
        return told


def _digest(rule: RawRule) -> str:
    """What a rule's bytes are known by in a file."""
    return hashlib.sha256(rule.body).hexdigest()
