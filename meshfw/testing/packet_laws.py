"""The law book, third part: what packets meet, and what rules count of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshfw.model import (
    ACCEPT,
    DROP,
    RETURN,
    Attachment,
    Chain,
    ChainKey,
    Comment,
    Family,
    Goto,
    Hook,
    Jump,
    Policy,
    Rule,
    Ruleset,
    Table,
    Target,
)
from meshfw.reconcile import apply
from meshfw.snapshot import Snapshot
from meshfw.testing.lab import Case, Lab, law
from meshfw.testing.loopback import delivers
from meshfw.testing.rulesets import attached, commented


def _needs_counters(lab: Lab) -> str | None:
    if not lab.capabilities.counters:
        return "the backend has no counters"
    return None if lab.namespace or lab.count else "neither a namespace for packets nor a count was given"


def _may_lose(lab: Lab) -> str | None:
    lost = [family.value for family in lab.families if family not in lab.capabilities.counters_move]
    return f"rules that are written again may begin at zero in {' and '.join(lost)}" if lost else None


@law(_needs_counters, eases=(_may_lose,))
def counters_survive(lab: Lab, _case: Case) -> None:
    """Rules that stay or move keep their counters over changes around them, and new rules begin at zero."""
    backend = lab.backend()
    apply(backend, _counted(lab, ("a", "b", "c", "d")))
    lab.meet_packets()
    steps = (("new", "a", "b", "c", "d"), ("a", "b", "d"), ("d", "a", "b"), ("a", "edited", "d"))
    for step, names in enumerate(steps):
        before = _numbers(lab.held())
        assert len(before) >= 3 * len(lab.families), "the counters can't be read"
        chosen = backend if step % 2 else lab.backend()  # with a cache that holds old numbers, and without one
        apply(chosen, _counted(lab, names))
        after = _numbers(lab.held())
        for key, (packets, octets) in after.items():
            low = before.get(key, (0, 0))
            if key[0] not in lab.capabilities.counters_move and (names, key[1]) in _MAY_MOVE:
                continue
            assert packets >= low[0] > 0 or key not in before, f"{names}: rule {key} counted {low}, now {packets}"
            assert octets >= low[1], f"{names}: rule {key} counted {low} bytes, now {octets}"
            assert key in before or packets == 0, f"{names}: new rule {key} begins at {packets}"
        lab.meet_packets()


_MAY_MOVE: Final = frozenset({(("d", "a", "b"), "d"), (("a", "edited", "d"), "a"), (("a", "edited", "d"), "d")})
"""Rules of a step that may be written again, since others or they themselves stay; one of the last step's two does."""


def _counted(lab: Lab, names: tuple[str, ...]) -> Ruleset:
    rules = tuple(commented(name) for name in names)
    return attached(Chain(family=family, table=Table.FILTER, name="first", rules=rules) for family in lab.families)


def _numbers(snapshot: Snapshot) -> dict[tuple[Family, str], tuple[int, int]]:
    """Packets and bytes of each rule of a chain, by family and comment."""
    return {
        (key.family, held.rule.comment): (held.packets, held.bytes)
        for key, listed in snapshot.lists.items()
        if isinstance(key, ChainKey)
        for held in listed.rules
        if held.rule is not None and any(isinstance(match, Comment) for match in held.rule.matches)
    }


def _needs_packets(lab: Lab) -> str | None:
    if not lab.capabilities.kernel:
        return "no packet meets the backend's rules"
    return None if lab.namespace is not None else "no namespace was given"


_WAYS: Final[tuple[tuple[str, tuple[Target, ...], Policy, bool], ...]] = (
    ("an accept is met before the policy", (ACCEPT,), Policy.DROP, True),
    ("no rule leads to the policy", (), Policy.DROP, False),
    ("RETURN leads to the policy", (RETURN, ACCEPT), Policy.DROP, False),
    ("RETURN passes the rules behind it", (RETURN, DROP), Policy.RETURN, True),
    ("a finished goto leads to the policy", (Goto("nothing"), ACCEPT), Policy.DROP, False),
    ("a goto does not come back to the rules behind it", (Goto("nothing"), DROP), Policy.ACCEPT, True),
    ("a jump comes back", (Jump("nothing"), ACCEPT), Policy.DROP, True),
    ("an accept stands before a drop", (ACCEPT, DROP), Policy.RETURN, True),
    ("a drop stands before an accept", (DROP, ACCEPT), Policy.RETURN, False),
)


@law(_needs_packets)
def packets_meet_the_rules_in_order(lab: Lab, _case: Case) -> None:
    """Packets meet the rules in the declared order, in each family alone; RETURN and goto reach the policy."""
    assert lab.namespace is not None
    backend = lab.backend()
    for family in lab.families:
        for what, targets, policy, through in _WAYS:
            apply(backend, _way(family, targets, policy))
            found = delivers(lab.namespace, family)
            assert found is through, f"{family}, {what}: the packet was {'delivered' if found else 'dropped'}"
            for other in set(Family) - {family}:
                assert delivers(lab.namespace, other), f"{what}: rules of {family} stop {other}"


def _way(family: Family, targets: Iterable[Target], policy: Policy) -> Ruleset:
    rules = tuple(Rule(target=target) for target in targets)
    names = {"first": rules, "nothing": ()}
    chains = (Chain(family=family, table=Table.FILTER, name=name, rules=held) for name, held in names.items())
    return attached(chains, policy=policy)


@law(_needs_packets)
def ranks_and_conditions_are_met(lab: Lab, _case: Case) -> None:
    """Attached chains are met in the order of their ranks, and only by packets that meet the conditions."""
    assert lab.namespace is not None
    backend = lab.backend()
    tcp, udp = Rule(protocol=6), Rule(protocol=17)
    for family in lab.families:
        for ranks, when, through in (
            ((1, 2), Rule(), True),
            ((2, 1), Rule(), False),
            ((2, 1), tcp, True),
            ((2, 1), udp, False),
        ):
            apply(backend, _ranked(family, ranks, when))
            found = delivers(lab.namespace, family)
            assert found is through, f"{family}, ranks {ranks}, {when}: {'delivered' if found else 'dropped'}"


def _ranked(family: Family, ranks: tuple[int, int], when: Rule) -> Ruleset:
    """Chain ``yes`` accepts at the first rank, chain ``no`` drops at the second what meets the conditions."""
    made = (("yes", ACCEPT, ranks[0], Rule()), ("no", DROP, ranks[1], when))
    return Ruleset(
        chains=tuple(
            Chain(family=family, table=Table.FILTER, name=name, rules=(Rule(target=target),))
            for name, target, _, _ in made
        ),
        attachments=tuple(
            Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain=name, rank=rank, when=condition)
            for name, _, rank, condition in made
        ),
    )


LAWS: Final = (counters_survive, packets_meet_the_rules_in_order, ranks_and_conditions_are_met)
"""The third part of the book."""
