"""A trial: what every voice says of each probe under one ruleset, and where they don't agree, made small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from meshfw.errors import MeshfwError
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.model import ChainKey, Family, Goto, Hook, Jump, Ruleset
from meshfw.reconcile import apply, checked
from meshfw.testing.judge.frames import Probe
from meshfw.testing.judge.making import elements
from meshfw.testing.judge.probing import Aim
from meshfw.testing.judge.road import Arrival, GovernedRoad, Outcome, text
from meshfw.testing.judge.saying import Opinion, spoken
from meshfw.testing.judge.shrinking import shrunk, shrunk_away
from meshfw.testing.judge.telling import told

REPORTED: Final = 5
"""Disagreements of one ruleset that are shrunk; more of them have the same few reasons mostly."""

Evaluate = Callable[[Ruleset], Callable[[Probe], Opinion]]
"""The voice that only reads a ruleset: its opinion on each probe."""


class Disagreement(msgspec.Struct, frozen=True):
    """One probe on which the voices differ, and the least of a ruleset under which they still do."""

    family: Family
    rules: tuple[str, ...]
    packet: str
    voices: Mapping[str, str]

    def __str__(self) -> str:
        said = "\n".join(f"    {name}: {words}" for name, words in self.voices.items())
        rules = "\n".join(f"    {line}" for line in self.rules)
        return f"{self.family}\n  rules:\n{rules}\n  packet: {self.packet}\n  said:\n{said}"


class Judgement(msgspec.Struct, kw_only=True):
    """What a trial found: probes by what became of them, disagreements, and what proves nothing.

    ``abstained`` counts probes of which the evaluation couldn't tell, ``crossed`` those whose voices differed only
    while other probes were about: their connection met another's.
    """

    probes: int = 0
    outcomes: dict[str, int] = {}
    disagreements: list[Disagreement] = []
    refusals: list[Disagreement] = []
    differing: int = 0
    abstained: int = 0
    crossed: int = 0

    def add(self, other: Judgement) -> None:
        """Take in what another trial found."""
        self.probes += other.probes
        for name, count in other.outcomes.items():
            self.outcomes[name] = self.outcomes.get(name, 0) + count
        self.disagreements += other.disagreements
        self.refusals += other.refusals
        self.differing += other.differing
        self.abstained += other.abstained
        self.crossed += other.crossed


class Bench:
    """The voices: roads, each under one backend, and one that evaluates packets."""

    def __init__(
        self,
        roads: Sequence[GovernedRoad],
        *,
        language: Language,
        evaluate: Evaluate | None = None,
        reported: int = REPORTED,
    ) -> None:
        self._roads = tuple(roads)
        self._language = language
        self._evaluate = evaluate
        self._reported = reported

    def accepted(self, ruleset: Ruleset) -> bool:
        """Whether every backend can hold the ruleset."""
        try:
            for road in self._roads:
                checked(road.backend, ruleset)
        except MeshfwError:
            return False
        return True

    def judge(self, ruleset: Ruleset, probes: Sequence[Probe], *, family: Family, tracked: bool = True) -> Judgement:
        """What the voices say of each probe, and where they differ, shrunk."""
        ruleset, refusals = self._loadable(ruleset, family)
        found = Judgement(probes=len(probes), refusals=refusals)
        heard = [road.run(ruleset, probes, tracked=tracked) for road in self._roads]
        suspects: list[Probe] = []
        asked = self._asked(ruleset)
        for probe, outcomes in zip(probes, zip(*heard, strict=True), strict=True):
            name = kind(outcomes[0])
            found.outcomes[name] = found.outcomes.get(name, 0) + 1
            opinion = asked(probe)
            found.abstained += opinion.unsure and self._evaluate is not None
            if not agreed(probe, outcomes, opinion, crowded=True):
                suspects.append(probe)
        for probe in suspects:
            self._confirm(ruleset, probe, found, family=family, tracked=tracked)
        return found

    def _loadable(self, ruleset: Ruleset, family: Family) -> tuple[Ruleset, list[Disagreement]]:
        """The ruleset without the rules that a kernel refuses, though its backend would hold them; and those rules."""
        refusals: list[Disagreement] = []
        while refused := {road.name: str(why) for road in self._roads if (why := _refused(road, ruleset))}:
            road = next(road for road in self._roads if road.name in refused)
            least = shrunk(ruleset, partial(_is_refused, road))
            said = {road.name: str(_refused(road, least) or "takes it") for road in self._roads}
            rules = lines(least, family=family, language=self._language)
            refusals.append(Disagreement(family=family, rules=rules, packet="none: it is not loaded", voices=said))
            ruleset = shrunk_away(ruleset, partial(_is_taken, road))
        return ruleset, refusals

    def _confirm(self, ruleset: Ruleset, probe: Probe, found: Judgement, *, family: Family, tracked: bool) -> None:
        """Ask again about one probe alone, and shrink what the voices still don't agree on."""
        if found.differing >= self._reported:
            found.differing += 1
            return
        if not self.differ(ruleset, probe, tracked=tracked):
            found.crossed += 1
            return
        found.differing += 1
        least = shrunk(ruleset, lambda smaller: self.differ(smaller, probe, tracked=tracked))
        found.disagreements.append(
            Disagreement(
                family=family,
                rules=lines(least, family=family, language=self._language),
                packet=told(probe),
                voices=self.said(least, probe, tracked=tracked),
            )
        )

    def differ(self, ruleset: Ruleset, probe: Probe, *, tracked: bool) -> bool:
        """Whether the voices differ on one probe alone; False where a backend can't hold the ruleset."""
        try:
            outcomes = [road.run(ruleset, (probe,), tracked=tracked)[0] for road in self._roads]
        except MeshfwError:
            return False
        return not agreed(probe, outcomes, self._asked(ruleset)(probe))

    def said(self, ruleset: Ruleset, probe: Probe, *, tracked: bool) -> dict[str, str]:
        """What each voice says of a probe, in words."""
        said = {road.name: text(road.run(ruleset, (probe,), tracked=tracked)[0], probe) for road in self._roads}
        if self._evaluate is not None:
            said["packet.py"] = spoken(self._asked(ruleset)(probe))
        return said

    def _asked(self, ruleset: Ruleset) -> Callable[[Probe], Opinion]:
        return self._evaluate(ruleset) if self._evaluate is not None else lambda probe: Opinion()


def _refused(road: GovernedRoad, ruleset: Ruleset) -> MeshfwError | None:
    """Why a kernel doesn't take a ruleset; None where it does, and where its backend says beforehand that it won't."""
    try:
        apply(road.backend, Ruleset())
        checked(road.backend, ruleset)
    except MeshfwError:
        return None
    try:
        apply(road.backend, ruleset)
    except MeshfwError as error:
        return error
    return None


def _is_refused(road: GovernedRoad, ruleset: Ruleset) -> bool:
    return _refused(road, ruleset) is not None


def _is_taken(road: GovernedRoad, ruleset: Ruleset) -> bool:
    return _refused(road, ruleset) is None


def agreed(probe: Probe, outcomes: Sequence[Outcome], opinion: Opinion, *, crowded: bool = False) -> bool:
    """Whether all outcomes are one, and of those that the evaluation takes for possible.

    Where it's ``crowded``, two connections may be translated to the same ends; then the kernel gives one of them
    another source port by lot, or drops what has no ports.
    """
    first = outcomes[0]
    if any(outcome != first for outcome in outcomes[1:]):
        if not crowded:
            return False
        lots = opinion.translates
        plain = [_without_lots(outcome) if lots else outcome for outcome in outcomes]
        if any(outcome != plain[0] for outcome in plain[1:]):
            return False
    return opinion.allows(probe, first, crowded=crowded)


def _without_lots(outcome: Outcome) -> tuple[object, ...]:
    """The outcome without the source port or identifier of a packet, which may have been drawn by lot."""
    return tuple(
        (event.place, event.seen._replace(sport=-1), len(event.data)) if isinstance(event, Arrival) else event
        for event in outcome
    )


def kind(outcome: Outcome) -> str:
    """What became of a probe, in a word or two."""
    if not outcome:
        return "gone"
    event = outcome[0]
    return f"delivered to the {event.place}" if isinstance(event, Arrival) else f"rejected with {event.kind}"


def lines(ruleset: Ruleset, *, family: Family, language: Language) -> tuple[str, ...]:
    """A ruleset's rules in canonical text, each behind its table and chain, and the attachments that matter."""
    found = []
    for item in ruleset.attachments:
        policy = f", policy {item.policy}" if item.policy != "return" else ""
        found.append(f"{item.table} {item.hook} leads to {item.chain}{policy}")
    for chain in ruleset.chains:
        found += [
            f"{chain.table}: -A {chain.name} {format_rule(rule, family=family, language=language)}"
            for rule in chain.rules
        ]
    held = elements(ruleset, family)
    named = {name for name in held if any(f"@{name}" in line for line in found)}
    found += [f"set {entry.name}" for entry in ruleset.sets if entry.name in named]
    return tuple(found)


def aims(ruleset: Ruleset) -> list[Aim]:
    """Every rule of a ruleset on every hook from which packets come to it."""
    found: list[Aim] = []
    for item in ruleset.attachments:
        todo, seen = [item.chain], {item.chain}
        while todo:
            chain = ruleset.chain(ChainKey(item.family, item.table, todo.pop()))
            for rule in chain.rules if chain else ():
                found.append(Aim(rule, Hook(item.hook)))
                if isinstance(rule.target, Jump | Goto) and rule.target.chain not in seen:
                    seen.add(rule.target.chain)
                    todo.append(rule.target.chain)
    return found
