"""Hypothesis strategies for rulesets: both families, chains that jump without loops, attachments, sets, odd comments.

A few rules are drawn well and then repeated and shuffled in chains, so that rulesets of hundreds of rules with many
equal ones cost little to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from meshfw.extensions.codecs import Ports
from meshfw.extensions.language import Language
from meshfw.extensions.limit import Limit
from meshfw.extensions.udp import UDP, Udp
from meshfw.model import (
    ACCEPT,
    HOOKS,
    Attachment,
    Chain,
    Comment,
    ElementType,
    Family,
    Goto,
    Hook,
    Jump,
    Network,
    Not,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
    merge_ranges,
)
from meshfw.testing.edits import EDITS, edited
from meshfw.testing.lab import Case
from meshfw.testing.rulesets import CATALOGUE, may_stand, parsed

__all__ = ["cases", "networks", "rules", "rulesets", "sets"]

Accepts = Callable[[Rule, Family, Table], bool]
"""Whether the backend under test can hold a rule in a table of the family."""

COMMENTS: Final = st.one_of(
    st.text(st.characters(exclude_characters="\n\0", codec="utf-8"), min_size=1, max_size=60),
    st.sampled_from(("-j", "--comment", "!", "@peers", "# none", "a  b", " ", "'", '"', "\\", "$(reboot)", "{", "a;b")),
    st.sampled_from(("\u00fc" * 127, "x" * 255, "x" * 128, "x" * 129)),
)
"""Texts of comments, those that some shell, tool or parser may stumble over among them."""
_NAMES: Final = ("first", "second", "third", "a.b", "x" * 60, "LOG", "-".join("abcdefgh"))
_SETS: Final = (("hosts", ElementType.ADDRESS), ("ports", ElementType.PORT), ("other", ElementType.ADDRESS))


def networks(family: Family) -> st.SearchStrategy[Network]:
    """Networks of a family, from all addresses to one host."""

    def network(address: int, length: int) -> Network:
        full = (1 << family.bits) - 1
        mask = full ^ (full >> length)
        return Network(family, address & mask, mask)

    addresses = st.integers(0, (1 << family.bits) - 1)
    return st.builds(network, addresses, st.sampled_from((0, 1, 8, 16, 24, 31, 32, family.bits - 1, family.bits)))


def sets(family: Family, name: str, kind: ElementType) -> st.SearchStrategy[Set]:
    """Sets of one name and kind, with and without intervals, neighbouring elements among them."""
    top = (1 << (family.bits if kind is ElementType.ADDRESS else 16)) - 1
    near = st.integers(0, 40)
    single = st.builds(lambda value: (value, value), near | st.integers(0, top))
    span = st.builds(lambda low, size: (low, min(low + size, top)), near | st.integers(0, top), st.integers(0, 300))

    def made(elements: Iterable[tuple[int, int]], *, intervals: bool) -> Set:
        return Set(family=family, name=name, type=kind, intervals=intervals, elements=merge_ranges(elements))

    return st.one_of(
        st.builds(lambda held: made(held, intervals=False), st.lists(single, max_size=8)),
        st.builds(lambda held: made(held, intervals=True), st.lists(single | span, max_size=8)),
    )


@st.composite
def rules(draw: st.DrawFn, family: Family, table: Table, *, pool: tuple[Rule, ...], accepts: Accepts) -> Rule:
    """Rules out of a pool, with other addresses and comments."""
    rule = draw(st.sampled_from(pool))
    changes: dict[str, Any] = {}
    if rule.source is None and draw(st.booleans()):
        changes["source"] = draw(networks(family))
    if draw(st.booleans()):
        others = tuple(match for match in rule.matches if not isinstance(match, Comment))
        changes["matches"] = (*others, Comment(draw(COMMENTS)))
    changed = msgspec.structs.replace(rule, **changes) if changes else rule
    return changed if accepts(changed, family, table) else rule


@st.composite
def _table(draw: st.DrawFn, family: Family, table: Table, held: tuple[Set, ...], pools: _Pools) -> Ruleset:
    """The chains and attachments of one table of one family."""
    hooks = draw(st.lists(st.sampled_from(sorted(HOOKS[table])), unique=True, max_size=2))
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True, min_size=1, max_size=4))
    pool = pools.of(family, table, hooks)
    found = draw(st.lists(rules(family, table, pool=pool, accepts=pools.accepts), min_size=1, max_size=8))
    found += pools.set_rules(family, table, held)
    chains = []
    for index, name in enumerate(names):
        later = [kind(other) for other in names[index + 1 :] for kind in (Jump, Goto)]
        jumps = [Rule(target=target) for target in draw(st.lists(st.sampled_from(later), max_size=2))] if later else []
        repeated = draw(st.sampled_from((1, 1, 2, 5)))
        body = draw(st.lists(st.sampled_from((*found, *jumps)), max_size=20)) * repeated
        chains.append(Chain(family=family, table=table, name=name, rules=tuple(body)))
    attachments = draw(_attachments(chains, hooks)) if hooks else ()
    return Ruleset(chains=tuple(chains), sets=held, attachments=attachments)


@st.composite
def _attachments(draw: st.DrawFn, chains: list[Chain], hooks: list[Hook]) -> tuple[Attachment, ...]:
    found = []
    for hook in hooks:
        for place in draw(st.lists(st.sampled_from(tuple(Place)), unique=True, max_size=2)):
            policies = (Policy.RETURN, Policy.ACCEPT) if chains[0].table is Table.NAT else tuple(Policy)
            policy = draw(st.sampled_from(policies))
            for chain in draw(st.lists(st.sampled_from(chains), unique=True, max_size=3)):
                when = draw(st.sampled_from((Rule(), Rule(), Rule(protocol=17))))
                held = Attachment(
                    family=chain.family,
                    table=chain.table,
                    hook=hook,
                    place=place,
                    chain=chain.name,
                    rank=draw(st.integers(-2, 2)),
                    policy=policy if when == Rule() else Policy.RETURN,
                    when=when,
                )
                found.append(held)
    return tuple(found)


class _Pools:
    """The catalogue as the language and the backend under test know it, by family, table and hooks."""

    def __init__(self, language: Language, accepts: Accepts, *, accepts_sets: bool) -> None:
        self.accepts = accepts
        self.accepts_sets = accepts_sets
        self._rules: dict[tuple[Family, Table], list[Rule]] = {}
        for family in Family:
            known = [parsed(text, family=family, language=language) for text in CATALOGUE]
            for table in Table:
                fitting = (rule for rule in known if rule is not None and may_stand(rule, table, ()))
                self._rules[family, table] = [rule for rule in fitting if accepts(rule, family, table)]

    def set_rules(self, family: Family, table: Table, held: Iterable[Set]) -> list[Rule]:
        """Rules that name sets: of either sign, and with a match that counts."""
        found = []
        for reference in (SetRef(entry.name) for entry in held if entry.type is ElementType.ADDRESS):
            counting = Rule(matches=(Limit(),))
            found += [Rule(source=reference, target=ACCEPT), Rule(destination=Not(reference), target=ACCEPT)]
            if self.accepts(counting, family, table):
                found.append(msgspec.structs.replace(counting, source=reference))
        for reference in (SetRef(entry.name) for entry in held if entry.type is ElementType.PORT):
            plain = Rule(protocol=UDP, matches=(Udp(sport=Ports(1, 2)),), target=ACCEPT)
            if self.accepts(plain, family, table):
                found.append(msgspec.structs.replace(plain, matches=(Udp(dport=reference),)))
        return found

    def of(self, family: Family, table: Table, hooks: Collection[Hook]) -> tuple[Rule, ...]:
        """The rules that may stand in chains reached from these hooks."""
        return tuple(rule for rule in self._rules[family, table] if may_stand(rule, table, hooks))


def rulesets(
    language: Language,
    *,
    families: Collection[Family] = tuple(Family),
    accepts: Accepts = lambda rule, family, table: True,
    accepts_sets: bool = True,
) -> st.SearchStrategy[Ruleset]:
    """Rulesets of up to some hundred rules, of the extensions that ``language`` knows and ``accepts`` takes."""
    return _rulesets(tuple(sorted(families)), _Pools(language, accepts, accepts_sets=accepts_sets))


@st.composite
def _rulesets(draw: st.DrawFn, families: tuple[Family, ...], pools: _Pools) -> Ruleset:
    parts = []
    for family in draw(st.lists(st.sampled_from(families), unique=True, min_size=1, max_size=len(families))):
        named = draw(st.lists(st.sampled_from(_SETS), unique=True, max_size=2)) if pools.accepts_sets else []
        held = tuple(draw(sets(family, name, kind)) for name, kind in named)
        parts.append(Ruleset(sets=held))
        tables = draw(st.lists(st.sampled_from(tuple(Table)), unique=True, min_size=1, max_size=3))
        parts += [draw(_table(family, table, held, pools)) for table in tables]
    return Ruleset(
        chains=tuple(chain for part in parts for chain in part.chains),
        sets=tuple({(entry.family, entry.name): entry for part in parts for entry in part.sets}.values()),
        attachments=tuple(item for part in parts for item in part.attachments),
    )


@st.composite
def edits(draw: st.DrawFn, ruleset: Ruleset) -> Ruleset:
    """The ruleset after one to three edits of :data:`~meshfw.testing.edits.EDITS`."""
    for name in draw(st.lists(st.sampled_from(tuple(EDITS)), min_size=1, max_size=3)):
        after = edited(ruleset, name, lambda count: draw(st.integers(0, count - 1)))
        ruleset = ruleset if after is None else after
    return ruleset


@st.composite
def cases(draw: st.DrawFn, drawn: st.SearchStrategy[Ruleset]) -> Case:
    """A ruleset and what it becomes: mostly an edit of it, at times another."""
    one = draw(drawn)
    other = draw(drawn) if draw(st.integers(0, 4)) == 0 else draw(edits(one))
    return Case(one, other)
