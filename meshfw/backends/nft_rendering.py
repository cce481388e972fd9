"""The nft texts of rules, kept for as long as their chains are wanted, and what of a chain nft can't say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from meshfw.alignment import shared_ends
from meshfw.backend import Unsupported
from meshfw.backends.layout import names_in
from meshfw.backends.nft_text import chain_name
from meshfw.errors import InexpressibleError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.languages.nft import ONE_METER, NftText, render_on_hooks, told_by_hook
from meshfw.model import Chain, ChainKey, DispatcherKey, Family, Hook, Rule, Ruleset
from meshfw.plan import Plan
from meshfw.snapshot import ListKey

_NAME_MAX: Final = 255  # linux/netfilter/nf_tables.h, NFT_NAME_MAXLEN with the final NUL


class _Hooks:
    """The hooks that lead to the lists of a ruleset, found where somebody asks."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self._reach: Mapping[ChainKey, Collection[Hook]] | None = None

    def of(self, key: ListKey) -> Collection[Hook]:
        if isinstance(key, DispatcherKey):
            return (key.hook,)
        if self._reach is None:
            self._reach = self.ruleset.reach()
        return self._reach.get(key, ())


class Renderings:
    """The texts of the rules of every chain that was looked at last."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._texts: dict[ListKey, tuple[Chain, tuple[NftText, ...]]] = {}
        self._meters: dict[ListKey, tuple[Chain, tuple[tuple[int, str], ...]]] = {}
        self._hooks = _Hooks(Ruleset())
        self._placed: dict[ListKey, Collection[Hook]] = {}

    def place(self, ruleset: Ruleset) -> None:
        """Take a ruleset for the one in which the chains stand: it tells from which hooks packets come to them."""
        if self._hooks.ruleset is not ruleset:
            self._hooks = _Hooks(ruleset)
            for key in [key for key, hooks in self._placed.items() if self._hooks.of(key) != hooks]:
                del self._placed[key]
                self._texts.pop(key, None)

    def rule(self, key: ListKey, rule: Rule) -> NftText:
        """The text of one rule of a list.

        Raises:
            InexpressibleError: nft has no way to say it.
        """
        return self._render(rule, key)

    def chain(self, chain: Chain) -> tuple[NftText, ...]:
        """The texts of a chain's rules; only those are rendered that an earlier chain of that name didn't have there.

        Raises:
            InexpressibleError: nft has no way to say one of them.
        """
        known = self._texts.get(chain.key)
        if known is not None and known[0] is chain:
            return known[1]
        old, texts = known if known is not None else (None, ())
        start, end = (0, 0) if old is None else shared_ends(old.rules, chain.rules)
        memo: dict[int, NftText] = {}
        if old is not None:
            gone = slice(start, len(texts) - end)
            memo = {id(rule): text for rule, text in zip(old.rules[gone], texts[gone], strict=True)}
        middle = tuple(
            memo.get(id(rule)) or self._render(rule, chain.key) for rule in chain.rules[start : len(chain.rules) - end]
        )
        found = texts[:start] + middle + texts[len(texts) - end :]
        self._texts[chain.key] = (chain, found)
        return found

    def _render(self, rule: Rule, key: ListKey) -> NftText:
        hooks: Collection[Hook] = ()
        if told_by_hook(rule, self._language):
            hooks = self._placed[key] = self._hooks.of(key)
        names = names_in(key.table)
        text = render_on_hooks(rule, hooks=hooks, family=key.family, language=self._language, names=names)
        if text.objects:
            kinds = " and ".join(sorted({held.kind for held in text.objects}))
            raise InexpressibleError(f"it needs a {kinds} object, and this backend keeps none")
        for loss in rule.losses():  # read back it would be another rule, and put right for ever
            if "native" in loss.variants:
                raise InexpressibleError(loss.text)
        return text

    def keep(self, wanted: Collection[ListKey]) -> None:
        """Forget all chains but these."""
        self._texts = {key: held for key, held in self._texts.items() if key in wanted}
        self._meters = {key: held for key, held in self._meters.items() if key in wanted}
        self._placed = {key: held for key, held in self._placed.items() if key in wanted}

    def of_plan(self, plan: Plan) -> Callable[[ListKey, Rule], NftText]:
        """The text of any rule of a plan's changed lists."""
        self.place(plan.desired)
        known: dict[ListKey, dict[int, NftText]] = {}
        for change in plan.lists:
            if isinstance(change.new, Chain):
                texts = self.chain(change.new)
                known[change.key] = {id(rule): text for rule, text in zip(change.new.rules, texts, strict=True)}

        def render(key: ListKey, rule: Rule) -> NftText:
            return known.get(key, {}).get(id(rule)) or self.rule(key, rule)

        return render

    def findings(self, chain: Chain) -> Iterator[Unsupported]:
        """What of a chain nft can't say, rule by rule."""
        name = chain_name(chain.key)
        if len(name) > _NAME_MAX:
            yield Unsupported(str(chain.key), f"its nft name has {len(name)} characters; {_NAME_MAX} are allowed")
        try:
            self.chain(chain)
        except InexpressibleError:  # of some rule: now of which, and of which others
            for index, rule in enumerate(chain.rules, 1):
                try:
                    self.rule(chain.key, rule)
                except InexpressibleError as error:
                    text = format_rule(rule, family=chain.family, language=self._language)
                    yield Unsupported(f"{chain.key}, rule {index}", error.reason, text)

    def shared_meters(self, chains: Iterable[Chain]) -> Iterator[Unsupported]:
        """The rules that would need a meter of the name that another rule's has in the same table."""
        first: dict[tuple[Family, str], str] = {}
        for chain in chains:
            for index, name in self._meters_of(chain):
                where = f"{chain.key}, rule {index}"
                other = first.setdefault((chain.family, name), where)
                if other != where:
                    text = format_rule(chain.rules[index - 1], family=chain.family, language=self._language)
                    yield Unsupported(where, f"meter {name} is that of {other}: {ONE_METER}", text)

    def _meters_of(self, chain: Chain) -> tuple[tuple[int, str], ...]:
        """The meters of a chain by the numbers of their rules; none of one that can't be said."""
        known = self._meters.get(chain.key)
        if known is not None and known[0] is chain:
            return known[1]
        held, texts = self._texts.get(chain.key, (None, ()))
        found = tuple(
            (index, name) for index, text in enumerate(texts if held is chain else (), 1) for name in text.meters
        )
        self._meters[chain.key] = (chain, found)
        return found
