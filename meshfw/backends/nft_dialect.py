"""nft's words for lists and rules, in one value: for backends that reach nf_tables by means of their own.

How something is called is the layout's affair (:mod:`meshfw.backends.layout`), and what a rule is in nft the language's
(:mod:`meshfw.languages.nft`); here both are put together as a backend of somebody else's needs them. A table of one
family holds one owner's lists; which table, and how the text gets into the kernel, is up to the backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshfw.backend import Unsupported
from meshfw.backends.layout import base_chain
from meshfw.backends.nft_depth import deep_paths
from meshfw.backends.nft_listing import POLICIES, list_key, observed_rule
from meshfw.backends.nft_neighbours import own_places_findings
from meshfw.backends.nft_rendering import Renderings
from meshfw.backends.nft_text import POLICY_WORDS, chain_name
from meshfw.errors import InexpressibleError
from meshfw.extensions.language import Language
from meshfw.languages.nft import FAMILIES, NftHook
from meshfw.model import ChainKey, Dispatcher, Family, Ruleset
from meshfw.plan import ListChange, Plan
from meshfw.snapshot import ListKey, ObservedList, ObservedRule


class NftDialect:
    """What lists and rules are in nft's text, and what nft's JSON (libnftables-json(5)) says of them.

    Chain ``a`` of iptables' table filter is the regular chain ``filter-a``, the dispatcher of a hook and place the base
    chain ``filter.input.first``. Text is of nft(8)'s own form; JSON is that of ``nft --json --numeric-priority
    --numeric-protocol list table``.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._renderings = Renderings(language)

    @staticmethod
    def family(family: Family) -> str:
        """The word of nft for a family: ``ip`` or ``ip6``."""
        return FAMILIES[family]

    @staticmethod
    def chain(key: ListKey) -> str:
        """The nft chain of a list."""
        return chain_name(key)

    @staticmethod
    def hooked(dispatcher: Dispatcher) -> str:
        """What makes a dispatcher's chain a base chain: type, hook, priority and policy."""
        return f"{base_chain(dispatcher.key)} policy {POLICY_WORDS[dispatcher.policy]};"

    # --- writing ---

    def findings(self, ruleset: Ruleset) -> Iterator[Unsupported]:
        """What of a ruleset nft can't say, or says in another way than iptables does; the latter are warnings."""
        self._renderings.place(ruleset)
        for chain in ruleset.chains:
            yield from self._renderings.findings(chain)
        yield from self._renderings.shared_meters(ruleset.chains)
        for attachment in ruleset.attachments:
            try:
                self._renderings.rule(attachment.dispatcher, attachment.rule)
            except InexpressibleError as error:
                yield Unsupported(f"attachment to {attachment.dispatcher}", error.reason)
        yield from deep_paths(ruleset, known={})
        yield from own_places_findings(ruleset)

    def rules(self, plan: Plan, change: ListChange) -> tuple[str, ...]:
        """The texts of all rules that a list of a plan shall hold; one that was there counts on from its numbers.

        Raises:
            InexpressibleError: nft can't say one of them.
        """
        render = self._renderings.of_plan(plan)
        texts = []
        for rule, source in zip(change.rules, change.source, strict=True):
            text = render(change.key, rule)
            held = change.old.rules[source] if change.old is not None and source >= 0 else None
            texts.append(str(text) if held is None else text.counting_from(held.packets, held.bytes))
        return tuple(texts)

    # --- reading ---

    def list_of(self, body: Mapping[str, Any]) -> ObservedList | str:
        """The list, still without rules, that a ``chain`` of nft's JSON is; or why it is none of ours."""
        family = _FAMILY.get(body["family"])
        key = None if family is None else list_key(family, body["name"])
        if key is None:
            return f"chain {body['name']} is not one of meshfw's"
        if isinstance(key, ChainKey):
            return f"chain {body['name']} was attached to a hook" if "hook" in body else ObservedList(key)
        if NftHook(body.get("type", ""), body.get("hook", ""), body.get("prio", 0)) != base_chain(key):
            return f"chain {body['name']} was moved to another hook or priority"
        return ObservedList(key, policies=POLICIES[body["policy"]])

    def rule_of(self, key: ListKey, body: Mapping[str, Any]) -> ObservedRule:
        """What a ``rule`` of nft's JSON means in a list; one that no typed rule means is kept as text."""
        return observed_rule(body, key, self._language)


_FAMILY = {word: family for family, word in FAMILIES.items()}
