"""Rules whose meaning a variant of iptables loses when it stores them: refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

from meshfw.backend import Unsupported
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.model import Chain, ChainKey, Ruleset


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
            for loss in rule.losses():
                if self._variant in loss.variants:
                    text = format_rule(rule, family=chain.family, language=self._language)
                    yield Unsupported(f"{chain.key}, rule {index}", loss.text, text)
