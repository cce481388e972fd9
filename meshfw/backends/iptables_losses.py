"""Rules whose meaning a variant of iptables loses when it stores them: refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

from meshfw.backend import Unsupported
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule, untellable
from meshfw.model import Chain, ChainKey, Match, Rule, Ruleset

_MADE_ONE = ("tcp", "udp")


class Losses:
    """What one variant, ``legacy`` or ``nft``, would store as another rule; a chain without any is looked at once."""

    def __init__(self, variant: str, language: Language) -> None:
        self._variant = variant
        self._language = language
        self._free: dict[ChainKey, Chain] = {}

    def findings(self, ruleset: Ruleset) -> Iterator[Unsupported]:
        """The rules that lose their meaning."""
        known, self._free = self._free, {}
        for chain in ruleset.chains:
            found = [] if known.get(chain.key) is chain else list(self._of_chain(chain))
            if not found:
                self._free[chain.key] = chain
            yield from found

    def _of_chain(self, chain: Chain) -> Iterator[Unsupported]:
        for index, rule in enumerate(chain.rules, 1):
            for reason in self.of_rule(rule):
                text = format_rule(rule, family=chain.family, language=self._language)
                yield Unsupported(f"{chain.key}, rule {index}", reason, text)

    def of_rule(self, rule: Rule) -> Iterator[str]:
        """What becomes of a rule that loses its meaning."""
        yield from (loss.text for loss in rule.losses() if self._variant in loss.variants)
        clash = untellable(rule, self._language)
        if clash:
            yield clash
        again = self._said_again(rule) if self._variant == "nft" else None
        if again:
            yield again

    def _said_again(self, rule: Rule) -> str | None:
        """What of a rule iptables-nft-save wouldn't print: it makes one tcp or udp match of all that it finds."""
        for name in _MADE_ONE:
            value = self._language.matches[name].value if name in self._language.matches else None
            places = [place for place, match in enumerate(rule.matches) if type(match) is value and _is_native(match)]
            if len(places) < 2:
                continue
            if any(match.stateful for match in rule.matches[places[0] : places[-1]]):
                return f"a match that counts stands between two {name} matches: iptables-nft-save prints them as one"
            held = [rule.matches[place] for place in places]
            for field in held[0].__struct_fields__:
                if len({getattr(match, field) for match in held} - {None}) > 1:
                    return f"two {name} matches state the {field}, and iptables-nft-save prints the last one only"
        return None


def _is_native(match: Match) -> bool:
    """Whether iptables-nft stores a tcp or udp match in nf_tables' own words: none that is bare or has an option."""
    stated = {field for field in match.__struct_fields__ if getattr(match, field) is not None}
    return bool(stated) and "option" not in stated
