"""Looking and repairing: what one look finds, who is to blame, whether a repair is made, and when to look again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from meshfw.agent.keeper import Keeper, Keeping, Repair
from meshfw.agent.past import Past
from meshfw.agent.rivals import Convergence, Rivalry
from meshfw.agent.status import Culprit, Phase
from meshfw.agent.voice import Voice
from meshfw.backend import Event, Report
from meshfw.errors import LockError, MeshfwError
from meshfw.model import Ruleset
from meshfw.plan import Formatter, Plan
from meshfw.safety.pending import Pending, at, clock
from meshfw.settings import AgentSettings

_HEARTBEAT: Final = 10.0
"""Seconds between two looks that nothing has asked for, at least."""
_SHARE: Final = 1000
"""Such looks take at most a thousandth of the time."""
_HEARD_SHARE: Final = 20
"""Looks that events ask for take at most a twentieth of the time."""
_GRACE: Final = 1.0
"""Seconds after a trial's end in which its guard undoes it, before we do."""
_TRIAL_PAUSE: Final = 2.0
"""Seconds between two looks at a trial at most: nobody tells of a confirmation."""
_CULPRITS: Final = 16


class Watchman:
    """Keeps a kernel to a ruleset, look by look; times are those of ``clock``, in seconds.

    ``alive`` is called while something takes long.
    ``next_look`` is when to look again at the latest. ``outcome`` is what the last look came to: the report where the
    kernel now holds what is wanted, why it never will, or None where neither is known.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        voice: Voice,
        past: Past,
        formatter: Formatter,
        clock: Callable[[], float],
        chance: Callable[[], float],
        alive: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._voice = voice
        self._past = past
        self._formatter = formatter
        self._clock = clock
        self._alive = alive
        self._rivalry = Rivalry(settings, chance=chance)
        self._convergence = Convergence(settings.patience)
        self._kept: Keeping | None = None
        self._begun = False
        self._stuck: tuple[str, ...] | None = None
        self._culprits: list[Culprit] = []
        self._tries: tuple[str, Keeping] | None = None
        self._costs: deque[float] = deque([0.0], maxlen=2)
        self._waited = 0.0
        self._looked = 0.0
        self.next_look = 0.0
        self.outcome: Report | str | None = None

    # --- hearing ---

    def heard(self, event: Event) -> float | None:
        """When to look because of a write of somebody else's; None where it needs no look."""
        self._voice.heard(event)
        if not event.near:
            return None
        if len(self._culprits) < _CULPRITS:
            self._culprits.append(Culprit(event.pid, event.command))
        return max(self._clock() + self._settings.debounce, self._looked + _HEARD_SHARE * self._costs[-1])

    def begin(self) -> None:
        """Know of no repair yet: what a backend that was just opened finds amiss is nobody's doing."""
        self._kept, self._begun = None, False
        self._culprits = []

    def forgive(self) -> None:
        """Begin anew, since somebody in charge has spoken: no rival is known, and nothing has been tried in vain."""
        self._rivalry.forgive()
        if self._voice.status.contended:
            self._voice.contended("")
        self._convergence.held()
        self._stuck = None

    @property
    def calm_at(self) -> float | None:
        """When a rival would be none any more; None while there is none."""
        return self._rivalry.next_change

    def calm(self) -> None:
        """Say so when a rival is none any more."""
        if self._rivalry.calmed(self._clock()):
            self._voice.contended("")

    # --- looking ---

    @property
    def declared(self) -> Ruleset | None:
        """The declared rules that were last put in place well; None before any were."""
        return self._kept.declared if self._kept is not None else None

    def look(self, keeper: Keeper, kept: Keeping) -> bool:
        """Look, and repair what differs; False where somebody else has applied meanwhile, and must be heard first.

        Raises:
            MeshfwError: as :func:`meshfw.reconcile.apply`, LockError, and RolledBackError.
        """
        begun, commits = time.perf_counter(), keeper.commits
        self.next_look, self._waited, self.outcome = float("inf"), 0.0, None
        try:
            going_on = self._quiet(keeper, kept) or self._keep(keeper, kept)
            if keeper.commits == commits:  # a repair is worth what it takes
                self._costs.append(time.perf_counter() - begun - self._waited)
            return going_on
        finally:
            self._looked = self._clock()
            # One slow reading says little about the looks that follow, which mostly read nothing.
            spacing = min(self._settings.resync, max(_HEARTBEAT, _SHARE * min(self._costs)))
            self.next_look = min(self.next_look, self._looked + spacing)

    def _quiet(self, keeper: Keeper, kept: Keeping) -> bool:
        """Whether nothing has happened, by the fingerprint alone."""
        report = keeper.idle(kept)
        if report is None or keeper.on_trial():
            return False
        self.outcome = report
        self._voice.idle()
        self._fine()
        return True

    def _keep(self, keeper: Keeper, kept: Keeping) -> bool:
        if keeper.on_trial() and self._tried(keeper, kept):
            return True
        drifted = kept is self._kept
        if drifted and self._clock() < self._rivalry.not_before:
            self._wait()
            return True
        if self._stuck is not None and self._lines(keeper.plan(kept)) == self._stuck:
            return True
        self._stuck = None
        with self._alone(keeper):
            if not self._begun:
                keeper.after_restart()
                self._begun = True
            if (
                keeper.settle() is not None
            ):  # tried since we looked: the next look, at once and without the lock, is its
                self.next_look = self._clock()
                return True
            if self._past.moved():
                return False
            if keeper.overruled(kept) if drifted else self._past.refuses(kept.declared):
                return False
            if drifted:
                repair = keeper.repair(kept)
            else:
                repair = keeper.apply(kept, record=self._settings.last_good, meanwhile=self._alive)
            self._kept = kept
            self._past.seen()
        self._repaired(keeper, repair, drifted=drifted)
        return True

    @contextmanager
    def _alone(self, keeper: Keeper) -> Iterator[None]:
        """A block in which no other meshfw writes; the wait for that is no cost of a look."""
        begun = time.perf_counter()
        with keeper.alone():
            self._waited += time.perf_counter() - begun
            yield

    def _tried(self, keeper: Keeper, kept: Keeping) -> bool:
        """Whether a change is on trial; one whose time is over and that nobody has undone is undone here."""
        pending = keeper.pending()
        if pending is not None and pending.overdue:
            with self._alone(keeper):
                pending = keeper.settle()
        if pending is not None:
            self._watch_trial(keeper, kept, pending)
        return pending is not None

    def _watch_trial(self, keeper: Keeper, kept: Keeping, pending: Pending) -> None:
        """Keep what somebody tries until it's confirmed or undone: by its guard in time, and else by us."""
        left = max(0.0, pending.deadline - clock()) + _GRACE
        self.next_look = self._clock() + min(left, _TRIAL_PAUSE)
        if keeper.idle(kept) is not None:  # which is what stands, tried or not
            self._fine()
            return
        tried = self._trial(keeper, pending)
        if keeper.idle(tried) is None and not self._keep_trial(keeper, tried, pending):
            return
        self._culprits = []
        reason = f"a change is on trial until {at(pending.until)}"
        if (self._voice.status.phase, self._voice.status.reason) != (Phase.TRIAL, reason):
            self._voice.note(phase=Phase.TRIAL, healthy=True, reason=reason, next_try=pending.until)

    def _trial(self, keeper: Keeper, pending: Pending) -> Keeping:
        """What is on trial, the same object as long as it's the same change."""
        if self._tries is None or self._tries[0] != pending.token:
            self._tries = pending.token, keeper.keeping(keeper.tried(pending))
        return self._tries[1]

    def _keep_trial(self, keeper: Keeper, tried: Keeping, pending: Pending) -> bool:
        """Whether what is on trial stands, repaired where somebody else has changed it."""
        if self._clock() < self._rivalry.not_before:
            self._wait()
            return False
        try:
            with keeper.alone(timeout=0.0):
                now = keeper.pending()
                if now is None or now.token != pending.token:
                    return False
                repair = keeper.repair(tried)
        except LockError:  # whoever tries it is at work still
            return True
        culprits = tuple(self._culprits) if repair.changed else ()
        report = self._reported(keeper, repair, culprits)
        if repair.changed:
            self._voice.drifted(report, self._lines(report.plan), culprits)
            self._quarrel(culprits)
        return True

    def _reported(self, keeper: Keeper, repair: Repair, culprits: tuple[Culprit, ...]) -> Report:
        """The report of a reconcile with those who made it necessary, as everybody is told of it."""
        report = msgspec.structs.replace(repair.report, culprits=tuple(dict.fromkeys(map(str, culprits))))
        self._voice.reconciled(report, repair.seconds, costs=keeper.backend.cache.costs)
        self._voice.told([*report.warnings, *keeper.shop.plugins.reconciled(report)])
        return report

    def _quarrel(self, culprits: tuple[Culprit, ...]) -> None:
        """Count a repair against those who made it necessary."""
        rival = self._rivalry.repaired(self._clock(), culprits)
        if rival:
            self._voice.contended(rival)

    def _repaired(self, keeper: Keeper, repair: Repair, *, drifted: bool) -> None:
        culprits = tuple(self._culprits) if drifted and repair.changed else ()
        self.outcome = report = self._reported(keeper, repair, culprits)
        self._fine()
        if not repair.changed:  # all was read, and right
            self._convergence.held()
            return
        lines = self._lines(report.plan)
        if not drifted:
            self._voice.applied(report, lines)
            return
        self._voice.drifted(report, lines, culprits)
        if self._convergence.made(lines, explained=bool(culprits) or keeper.watch is None):
            self._give_up(lines)
            return
        self._quarrel(culprits)

    def _fine(self) -> None:
        """The kernel holds what is wanted."""
        self._culprits = []
        self._voice.once("failure", "")
        status = self._voice.status
        if not status.healthy or status.phase is not Phase.WATCHING or status.next_try:
            self._voice.note(phase=Phase.WATCHING, healthy=True, reason="", next_try=0.0)

    def _wait(self) -> None:
        """Leave the rules as they are until the rival's pause is over."""
        self.next_look = self._rivalry.not_before
        if self._voice.status.phase is not Phase.BACKING_OFF:
            due = time.time() + self._rivalry.not_before - self._clock()
            reason = f"contended with {self._rivalry.name}"
            self._voice.note(phase=Phase.BACKING_OFF, healthy=False, reason=reason, next_try=due)

    # --- what never holds ---

    def unproven(self, keeper: Keeper, kept: Keeping) -> None:
        """Commits were made that the kernel doesn't hold: the same ones again and again are given up."""
        try:
            lines = self._lines(keeper.plan(kept))
        except MeshfwError:  # which the next look meets again
            return
        if self._convergence.made(lines, explained=bool(self._culprits)):
            self._give_up(lines)

    def _give_up(self, lines: tuple[str, ...]) -> None:
        """Stop making a change that never holds, until something else is wanted or there."""
        self._stuck = lines
        reason = f"the same change was made {self._settings.patience} times and never held: {'; '.join(lines[:3])}"
        self.outcome = reason
        self._voice.error(reason, changes=list(lines))
        self._voice.note(phase=Phase.STUCK, healthy=False, reason=reason)

    def check(self, keeper: Keeper, kept: Keeping) -> bool:
        """Read everything again through the tools; what differs although nothing had changed is a defect of ours."""
        if self._voice.status.phase is not Phase.WATCHING:
            return False
        try:
            found = keeper.cross_check(kept, lines=self._lines)
        except (MeshfwError, OSError) as error:
            self._voice.once("full check", f"the full check failed: {error}")
            return False
        self._voice.once("full check", "")
        if found is not None and not found:
            self._convergence.held()
        if not found:
            return False
        self._voice.defect(found)
        keeper.backend.cache.drop("a full check found differences")
        return True

    def _lines(self, plan: Plan) -> tuple[str, ...]:
        """The lines of a change."""
        return tuple(str(edit) for edit in plan.edits(self._formatter))
