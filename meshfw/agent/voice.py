"""What the agent tells the world: its log, its status, its service manager, and whoever counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from meshfw.agent.notify import Notifier
from meshfw.agent.status import Culprit, Drift, Phase, Status
from meshfw.backend import Costs, Event, Outcome, Report
from meshfw.plan import Plan
from meshfw.printable import counted

_DRIFTS: Final = 20
"""Repairs that the status remembers."""
_TOPICS: Final = 1000
"""Matters of which it's remembered that they were told."""
_CONFIGURATION: Final = "configuration"
_LINES: Final = 20
"""Lines of a plan that the status has of each."""
_TOLD: Final = 5
"""Lines of a plan that are logged."""


class Counters(Protocol):
    """Whoever counts what happens, such as the metrics."""

    def reconciled(self, report: Report, seconds: float) -> None:
        """A reconcile ended well."""
        ...

    def idle(self) -> None:
        """A look found that nothing had changed."""
        ...

    def failed(self, error: Exception) -> None:
        """A reconcile or a loading of the sources failed."""
        ...

    def drifted(self, plan: Plan, culprits: Sequence[Culprit]) -> None:
        """What others had changed was repaired."""
        ...

    def watched(self, event: Event) -> None:
        """A write was heard of."""
        ...

    def contended(self, name: str) -> None:
        """A rival keeps undoing the rules; an empty name: no more."""
        ...

    def defect(self) -> None:
        """Two readers of one kernel disagreed."""
        ...

    def costs(self, costs: Costs) -> None:
        """What the backend has spent."""
        ...

    def status(self, status: Status) -> None:
        """What the agent says of itself now."""
        ...


class Voice:
    """Says each thing where it belongs: once in the log, and as the latest status.

    ``status`` is a frozen value that other threads may read at any moment.
    """

    def __init__(self, status: Status, *, notifier: Notifier, counters: Sequence[Counters] = ()) -> None:
        self.status = status
        self.notifier = notifier
        self.counters = counters
        self._log = logging.getLogger("meshfw.agent")
        self._said: dict[str, str] = {}

    def doubt(self) -> str:
        """Why the kernel may not hold what is wanted; empty where it's known to."""
        status = self.status
        return "" if status.healthy else status.reason or f"it is {status.phase}"

    @property
    def headline(self) -> str:
        """What it's doing and why, on a line."""
        return f"{self.status.phase}: {self.status.reason}" if self.status.reason else self.status.phase

    def note(self, **changes: Any) -> None:
        """Change some of the status."""
        before, self.status = self.status, msgspec.structs.replace(self.status, **changes)
        if (before.phase, before.reason) != (self.status.phase, self.status.reason):
            self.notifier.status(self.headline)
        for counter in self.counters:
            counter.status(self.status)

    def info(self, message: str, **fields: object) -> None:
        """Something happened that is as it should be."""
        self._log.info(message, extra=fields)

    def warning(self, message: str, **fields: object) -> None:
        """Something that an operator should know."""
        self._log.warning(message, extra=fields)

    def error(self, message: str, **fields: object) -> None:
        """Something that an operator should mend."""
        self._log.error(message, extra=fields)

    def once(self, topic: str, message: str, **fields: object) -> None:
        """A warning that is said again only when it changes; an empty message: no longer the matter."""
        before = self._said.pop(topic, "")
        if message:
            self._said[topic] = message  # behind all others: the one that was longest not the matter is forgotten first
            if len(self._said) > _TOPICS:
                del self._said[next(iter(self._said))]
        if message == before:
            return
        if message:
            self._log.warning(message, extra=fields)
        else:
            self._log.info("over: %s", before, extra=fields)

    def asked(self) -> None:
        """Somebody wants to know: what keeps a configuration from being taken is said again."""
        self._said.pop(_CONFIGURATION, None)

    def taken(self, warnings: Sequence[str]) -> None:
        """A configuration was taken, with these warnings."""
        self.note(warnings=tuple(warnings))
        self._said.pop(_CONFIGURATION, None)
        self.info("the configuration was read anew")

    def refused(self, reason: str) -> None:
        """A configuration was not taken; the same reason is said once, however often it's tried again."""
        self.note(warnings=(reason,))
        self.once(_CONFIGURATION, f"the configuration is not taken, and the old one stays: {reason}")

    def told(self, warnings: list[str]) -> None:
        """Say what was collected, each once, and empty the list: it would grow for as long as the agent runs."""
        for warning in warnings:
            self.once(warning, warning)
        warnings.clear()

    def heard(self, event: Event) -> None:
        """A write of somebody else's."""
        self.note(events=self.status.events + 1)
        for counter in self.counters:
            counter.watched(event)

    def idle(self) -> None:
        """A look found by the fingerprint alone that all is as it was."""
        self.note(outcomes=self._counted(Outcome.IDLE), reconciled=time.time())
        for counter in self.counters:
            counter.idle()

    def _counted(self, outcome: str) -> dict[str, int]:
        return {**self.status.outcomes, outcome: self.status.outcomes.get(outcome, 0) + 1}

    def reconciled(self, report: Report, seconds: float, *, costs: Costs) -> None:
        """A reconcile ended well."""
        self.note(outcomes=self._counted(report.outcome), reconciled=time.time(), processes=costs.processes)
        for counter in self.counters:
            counter.reconciled(report, seconds)
            counter.costs(costs)

    def applied(self, report: Report, lines: Sequence[str]) -> None:
        """What is newly wanted was put in place."""
        self.note(changed=time.time())
        self.info(f"applied {counted(len(lines), 'change')} ({report.backend})", changes=list(lines[:_TOLD]))

    def drifted(self, report: Report, lines: Sequence[str], culprits: Sequence[Culprit]) -> None:
        """What others had changed was repaired."""
        drift = Drift(time=time.time(), culprits=tuple(culprits), changes=len(lines), lines=tuple(lines[:_LINES]))
        self.note(drifts=(drift, *self.status.drifts[: _DRIFTS - 1]), changed=drift.time)
        self._log.warning(
            "drift: %s changed our rules; repaired by %s in %s",
            named(culprits),
            counted(len(lines), "change"),
            counted(report.commits, "transaction"),
            extra={"culprits": list(dict.fromkeys(map(str, culprits))), "changes": list(drift.lines[:_TOLD])},
        )
        for counter in self.counters:
            counter.drifted(report.plan, culprits)

    def failed(self, error: Exception, message: str, *, retry: float) -> None:
        """A reconcile failed, and is tried again at a moment (seconds since the epoch)."""
        outcomes = self._counted("failed")
        self.note(phase=Phase.FAILING, healthy=False, reason=message, next_try=retry, outcomes=outcomes)
        self.once("failure", message, error=type(error).__name__)
        for counter in self.counters:
            counter.failed(error)

    def contended(self, name: str) -> None:
        """A rival keeps undoing the rules, or none does any more."""
        if name:
            self._log.error(
                "contended with %s: it keeps undoing our rules; repairs now wait longer each time",
                name,
                extra={"rival": name},
            )
        else:
            self._log.info("%s lets our rules be", self.status.contended)
        self.note(contended=name)
        for counter in self.counters:
            counter.contended(name)

    def defect(self, lines: Sequence[str]) -> None:
        """A second reader found what the first one had missed."""
        self._log.error(
            "a defect of meshfw: read anew through the tools, the kernel's rules differ although nothing had changed; "
            "please report it: %s",
            "; ".join(lines[:_LINES]),
            extra={"differences": list(lines[:_LINES])},
        )
        for counter in self.counters:
            counter.defect()


def named(culprits: Iterable[Culprit]) -> str:
    """Those who wrote, in words, each command once."""
    names = list(dict.fromkeys(str(culprit) for culprit in culprits))
    if not names:
        return str(Culprit())
    shown = names[:3] + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
