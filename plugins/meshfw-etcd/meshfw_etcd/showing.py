"""What ``meshfw fleet`` says: roll-outs and the state of the fleet, as text for people and as data for programs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from meshfw_etcd.fleet import Fleet
from meshfw_etcd.judging import named
from meshfw_etcd.pushing import Outcome
from meshfw_etcd.releases import Rollout

_COMMANDING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What could command a terminal (ECMA-48) or reorder a line (UAX #9): errors are the nodes' words."""


def printable(text: str) -> str:
    """The text of one line with escapes for what could command a terminal."""
    return _COMMANDING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# --- a roll-out --------------------------------------------------------------------------------------------------


def plan_lines(state: Rollout, *, rules: int) -> Iterator[str]:
    """Who would get a release, and when."""
    yield f"release {state.release}, {rules} rules, in place of {f'release {state.base}' if state.base else 'nothing'}"
    for number, end in enumerate(state.route.ends, 1):
        names = state.route.order[:end]
        yield f"stage {number}: {len(names)} node{'' if end == 1 else 's'} ({named(names)})"
    yield f"stage {len(state.route.ends) + 1}: all nodes"


def plan_data(state: Rollout, *, rules: int) -> dict[str, Any]:
    """The same as data."""
    stages = [list(state.route.order[:end]) for end in state.route.ends]
    return {"release": state.release, "base": state.base, "rules": rules, "stages": stages}


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """How a roll-out ended, in words."""
    verdict = outcome.verdict
    if outcome.phase == "done":
        yield f"release {outcome.release} is done: {len(verdict.applied)} of {_all(outcome)} nodes hold it"
        if outcome.reason:
            yield f"look at those: {outcome.reason}"
            yield "'meshfw fleet rollback' brings back what stood before it, if anything did"
    else:
        yield f"release {outcome.release} was {outcome.phase}, and no other node has seen it: {outcome.reason}"
        if outcome.tried:
            missing = f"; not yet: {named(verdict.missing)}" if verdict.missing else ""
            yield f"back on what they held: {named(verdict.applied) or 'none has said so'}{missing}"
    for problem in outcome.problems:
        yield f"couldn't be taken back: {problem}"


def outcome_data(outcome: Outcome) -> dict[str, Any]:
    """The same as data."""
    data: dict[str, Any] = msgspec.to_builtins(outcome)
    verdict = data.pop("verdict")
    del verdict["others"], verdict["later"]
    return {**data, **verdict}


def _all(outcome: Outcome) -> int:
    verdict = outcome.verdict
    return len(verdict.applied) + len(verdict.failed) + len(verdict.missing)


# --- the fleet ---------------------------------------------------------------------------------------------------


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A node as its last word shows it.

    ``state`` is ``applied`` or ``failed`` for the release that it's to hold (``wanted``), ``stale`` where it spoke of
    another last, or too long ago, ``away`` where its agent gives no sign of life, and ``silent`` where it never spoke.
    """

    node: str
    state: str
    wanted: int
    release: int = 0
    holds: int = 0
    error: str = ""
    age: float = 0.0


def node_states(fleet: Fleet, *, older_than: float | None = None) -> tuple[NodeState, ...]:
    """Every node that is known, in the order of names; ``older_than`` is in seconds."""
    now, found = time.time(), []
    for name in sorted(fleet.acks.keys() | fleet.nodes):
        ack, wanted = fleet.acks.get(name), fleet.wanted(name)
        if ack is None:
            found.append(NodeState(node=name, state="silent", wanted=wanted))
            continue
        age = max(0.0, now - ack.time)
        late = older_than is not None and age > older_than
        behind = ack.release != wanted
        state = "failed" if ack.state == "failed" else "stale" if behind or late else "applied"
        if fleet.away(name) and state != "failed":
            state = "away"
        found.append(
            NodeState(
                node=name,
                state=state,
                wanted=wanted,
                release=ack.release,
                holds=ack.holds,
                error=ack.error,
                age=age,
            )
        )
    return tuple(found)


def counts(states: tuple[NodeState, ...]) -> Mapping[str, int]:
    """How many nodes are in each state."""
    kinds = ("applied", "failed", "away", "stale", "silent")
    return {kind: sum(item.state == kind for item in states) for kind in kinds}


def status_lines(fleet: Fleet, states: tuple[NodeState, ...], *, verbose: bool) -> Iterator[str]:
    """The fleet in words: with ``verbose`` each node, else those with which something is wrong."""
    yield f"release {fleet.release} is that of all nodes" if fleet.release else "nothing is published"
    if fleet.rollout is not None:
        yield _rollout_line(fleet.rollout)
    told = ", ".join(f"{number} {kind}" for kind, number in counts(states).items())
    yield f"{len(states)} node{'' if len(states) == 1 else 's'}: {told}"
    for item in states:
        if verbose or item.state != "applied":
            yield f"  {_node_line(item)}"
    if fleet.releases:
        yield f"kept releases: {', '.join(map(str, fleet.releases))}"


def _rollout_line(state: Rollout) -> str:
    ago = f"{max(0.0, time.time() - state.beat):.0f} s ago"
    if state.phase == "trying" and state.route.ends:
        where = (
            f"stage {state.stage + 1} of {len(state.route.ends) + 1}, tried by {named(state.trying) or 'nobody yet'}"
        )
        return f"release {state.release} is being rolled out: {where}; by {state.by}, last heard of {ago}"
    if state.under_way:
        return f"release {state.release} is {state.phase}; by {state.by}, last heard of {ago}"
    return (
        f"the last roll-out was of release {state.release}: {state.phase}{f', {state.reason}' if state.reason else ''}"
    )


def _node_line(item: NodeState) -> str:
    if item.state == "silent":
        return f"{item.node}  silent  has never acknowledged anything"
    told = f"release {item.release} {f'({item.wanted} is wanted)' if item.release != item.wanted else ''}".rstrip()
    held = f", holds {item.holds or 'what it held before'}" if item.state == "failed" else ""
    error = f": {item.error}" if item.error else ""
    asked = " (no sign of life: is it on, and may it write its key below alive/?)" if item.state == "away" else ""
    return f"{item.node}  {item.state}{asked}  {told}{held}, {item.age:.0f} s ago{error}"


def status_data(fleet: Fleet, states: tuple[NodeState, ...]) -> dict[str, Any]:
    """The fleet as data."""
    return {
        "release": fleet.release,
        "revision": fleet.revision,
        "releases": list(fleet.releases),
        "rollout": msgspec.to_builtins(fleet.rollout),
        "counts": dict(counts(states)),
        "nodes": [msgspec.to_builtins(item) for item in states],
    }
