"""The trials: what the rules' keeper does over time, beside writers and at rest, as a table.

A cell (cell.py) is one apply, over in a moment. A trial goes on: rounds of damage and repair, minutes of rest beside a
real ``meshfw agent``, reconciles by the hundred thousand.
"""

from __future__ import annotations

from typing import Final

import msgspec

from benchmarks.subjects import SUBJECTS


class TrialRequest(msgspec.Struct, frozen=True):
    """Which trial to make, with which backend, with so many rules; the unit of ``amount`` is the trial's."""

    trial: str
    subject: str
    rules: int
    amount: float

    @property
    def longest(self) -> float:
        """The seconds that it takes by its nature, on top of what any may take."""
        return self.amount if TRIALS[self.trial].unit == SECONDS else 0.0


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: ``amount`` says how long it goes on, in its ``unit``; the short ones are those of a smoke run."""

    name: str
    title: str
    subjects: tuple[str, ...]
    rules: int
    amount: float
    unit: str
    short_rules: int
    short_amount: float


SECONDS: Final = "seconds"
MODEL: Final = "model"
"""The subject of trials that need no backend."""
BESIDE: Final = ", beside "
"""What stands between a quantity and the circumstance in which it was measured once more."""
_ALL: Final = tuple(SUBJECTS)

TRIALS: Final = {
    kind.name: kind
    for kind in (
        Kind(
            name="latency",
            title="flushed by somebody else, until repaired",
            subjects=_ALL,
            rules=1_000,
            amount=20,
            unit="rounds",
            short_rules=100,
            short_amount=1,
        ),
        Kind(
            name="beside",
            title="the agent beside a writer of rules of his own, 10 commits a second",
            subjects=_ALL,
            rules=10_000,
            amount=60,
            unit=SECONDS,
            short_rules=100,
            short_amount=0.5,
        ),
        Kind(
            name="rival",
            title="the agent against a rival who puts his rule into our chain 10 times a second",
            subjects=_ALL,
            rules=1_000,
            amount=60,
            unit=SECONDS,
            short_rules=100,
            short_amount=1.5,
        ),
        Kind(
            name="rest",
            title="the agent at rest",
            subjects=_ALL,
            rules=10_000,
            amount=600,
            unit=SECONDS,
            short_rules=100,
            short_amount=0.5,
        ),
        Kind(
            name="reconciles",
            title="reconciles in a row, one in a hundred with a rule to change",
            subjects=_ALL,
            rules=1_000,
            amount=100_000,
            unit="reconciles",
            short_rules=100,
            short_amount=500,
        ),
        Kind(
            name="diff",
            title="the difference of two rulesets, 1 % of whose rules differ",
            subjects=(MODEL,),
            rules=10_000,
            amount=5,
            unit="samples",
            short_rules=200,
            short_amount=1,
        ),
        Kind(
            name="edit",
            title="one rule inserted or replaced, at some places of the ruleset",
            subjects=("nft",),
            rules=10_000,
            amount=5,
            unit="samples",
            short_rules=200,
            short_amount=1,
        ),
    )
}
"""All trials, by name, in the order in which they are shown."""
