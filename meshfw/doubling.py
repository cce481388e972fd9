"""What doubles while two backends hold the same rules, so that each packet meets both copies: rule by rule.

What becomes of a match or target that is met twice is its own knowledge (``Match.twice``, ``Target.twice``). What is
found here is how rules play together: a second copy looks at a mark that the first one has changed already. That is
told of by asking the values themselves: what of a packet a target changes, and what a match or target goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from meshfw.model import Chain, Family, Match, Packet, Rule, Ruleset, Table, Target, Twice
from meshfw.plan import Formatter

_NAMES: Final = {"mark": "packet's mark", "ct_mark": "connection's mark", "tos": "type of service", "ttl": "ttl"}
"""What rules may both change and go by: fields of a packet that outlast one copy."""


class Doubled(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of which something doubles: its place, numbers counted from 1, its text, and what comes of it.

    ``alters`` is whether packets or connections leave as others than behind one copy alone.
    """

    family: Family
    table: Table
    chain: str
    rule: int
    text: str
    effect: str
    alters: bool = False

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.chain} rule {self.rule} ({self.text}): {self.effect}"


def doubled(ruleset: Ruleset, text: Formatter) -> tuple[Doubled, ...]:
    """What doubles of a ruleset, in the order of its chains; ``text`` gives a rule as a person writes it."""
    found: list[Doubled] = []
    for chain in ruleset.chains:
        for number, rule in enumerate(chain.rules, 1):
            place = _Place(chain.family, chain.table, chain.name, number)
            found += (place.told(rule, effect, text) for effect in _effects(rule))
    for item in ruleset.attachments:
        place = _Place(item.family, item.table, f"{item.hook}/{item.place} to {item.chain}", 1)
        found += (place.told(item.when, effect, text) for effect in _effects(item.when))
    return (*found, *_looks_again(ruleset, text))


class _Place(msgspec.Struct, frozen=True):
    family: Family
    table: Table
    chain: str
    rule: int

    def told(self, rule: Rule, effect: Twice, text: Formatter) -> Doubled:
        """What doubles of the rule that stands here."""
        return Doubled(
            family=self.family,
            table=self.table,
            chain=self.chain,
            rule=self.rule,
            text=text(rule, self.family),
            effect=effect.effect,
            alters=effect.alters,
        )


def _parts(rule: Rule) -> tuple[Match | Target, ...]:
    return (*rule.matches, *(() if rule.target is None else (rule.target,)))


def _effects(rule: Rule) -> list[Twice]:
    return [told for told in dict.fromkeys(part.twice() for part in _parts(rule)) if told is not None]


# --- how rules play together -------------------------------------------------------------------------------


def _looks_again(ruleset: Ruleset, text: Formatter) -> Iterator[Doubled]:
    """Rules that go by what another rule of the table changes, unless that one always comes before them."""
    tables: dict[tuple[Family, Table], list[Chain]] = {}
    for chain in ruleset.chains:
        tables.setdefault((chain.family, chain.table), []).append(chain)
    for chains in tables.values():
        writers = list(_writers(chains))
        for chain in chains if writers else ():
            for number, rule in enumerate(chain.rules, 1):
                if (found := _met_again(chain, number, rule, writers)) is not None:
                    field, where = found
                    effect = Twice(f"it goes by the {_NAMES[field]}, and the second copy finds what {where} made of it")
                    yield _Place(chain.family, chain.table, chain.name, number).told(rule, effect, text)


_Writer = tuple[Chain, int, frozenset[str]]


def _writers(chains: Iterable[Chain]) -> Iterator[_Writer]:
    for chain in chains:
        for number, rule in enumerate(chain.rules, 1):
            changed = changes(rule.target, chain.family) if rule.target is not None else frozenset()
            if changed:
                yield chain, number, changed


def _met_again(chain: Chain, number: int, rule: Rule, writers: list[_Writer]) -> tuple[str, str] | None:
    """The field that a rule goes by and the place of the rule that changes it, behind it or in another chain."""
    fields = frozenset[str]().union(*(goes_by(part, chain.family) for part in _parts(rule)))
    for other, place, changed in writers if fields else ():
        if fields & changed and (other is not chain or place > number):
            return min(fields & changed), f"{other.name} rule {place}"
    return None


def changes(target: Target, family: Family) -> frozenset[str]:
    """What of a packet a target changes, or may change."""
    return frozenset(
        name
        for packet in _probes(family)
        for name, held in _fields(target.applied(packet)).items()
        if held != getattr(packet, name)
    )


def goes_by(part: Match | Target, family: Family) -> frozenset[str]:
    """What of a packet a match looks at, or a target makes something else of it from."""
    ask: Callable[[Packet], object] = part.meets if isinstance(part, Match) else part.applied
    return frozenset(name for packet in _probes(family) for name in _NAMES if _depends(ask, packet, name))


def _depends(ask: Callable[[Packet], object], packet: Packet, name: str) -> bool:
    known, unknown = ask(packet), ask(msgspec.structs.replace(packet, **{name: None}))
    if isinstance(known, Packet) and isinstance(unknown, Packet):
        return any(held != _fields(unknown)[other] for other, held in _fields(known).items() if other != name)
    return known is not None and unknown is None


def _fields(packet: Packet) -> dict[str, int | None]:
    return {name: getattr(packet, name) for name in _NAMES}


def _probes(family: Family) -> Iterator[Packet]:
    """Packets of which all of these fields are known, with no bit and with every bit."""
    for bits in (0, 0xFFFFFFFF):
        other = ~bits & 0xFFFFFFFF  # or a copy of one mark to the other would change nothing
        yield Packet(family=family, state="ESTABLISHED", mark=bits, ct_mark=other, tos=bits & 0xFF, ttl=bits & 0xFF)
