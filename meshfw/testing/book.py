"""The law book as a whole: all laws, the cases that each is tried on, and what it covers of a backend."""

from __future__ import annotations

from typing import Final

from meshfw.model import Ruleset
from meshfw.testing import drift_laws, failure_laws, laws, packet_laws, watch_laws
from meshfw.testing.coverage import Coverage, coverage
from meshfw.testing.edits import edited, middle
from meshfw.testing.lab import Case, Lab, Law
from meshfw.testing.rulesets import compact, compact_changed, small

__all__ = ["LAWS", "cases_of", "report", "try_law"]

LAWS: Final[tuple[Law, ...]] = (
    *laws.LAWS,
    *drift_laws.LAWS,
    *packet_laws.LAWS,
    *failure_laws.LAWS,
    *watch_laws.LAWS,
)
"""The whole book."""


def report(lab: Lab) -> Coverage:
    """What the book covers of a lab's backend: every law, those that its capabilities or the lab narrow with why."""
    return coverage(lab, LAWS)


def cases_of(law: Law, lab: Lab) -> tuple[Case, ...]:
    """The fixed cases that a law is tried on: everything at once, and for a generated law small ones too."""
    other = lab.sample
    for name in ("move a rule", "edit a rule in place", "remove a chain", "change a policy", "remove an element"):
        other = edited(other, name, middle) or other
    whole = Case(lab.sample, other)
    if not law.generated:
        return (whole,)
    return (
        whole,
        Case(compact(lab.families), compact_changed(lab.families)),
        Case(small(lab.families), Ruleset()),
        Case(Ruleset(), small(lab.families)),
    )


def try_law(law: Law, lab: Lab) -> None:
    """Try a law on its fixed cases; AssertionError, or the backend's own error, where it is broken."""
    for case in cases_of(law, lab):
        lab.reset()
        law.run(lab, case)
        lab.tried += 1
    lab.reset()
