"""When repairing stops being worth it at once: a rival who keeps undoing the rules, and a change that never holds.

Both are pure bookkeeping over moments that the caller gives, in seconds of a clock that also runs while the machine
sleeps: a rival must not be forgotten, nor a pause be over late, because a lid was closed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from random import random
from typing import Final

from meshfw.agent.status import Culprit
from meshfw.settings import AgentSettings

_JITTER: Final = 0.5
"""The share by which a pause may be longer, so that two agents that undo each other don't do it in step."""


class Rivalry:
    """How often others undid our rules lately, and from when on the next repair may be made.

    Up to ``rival_limit`` repairs within ``rival_window`` are made at once. After that each one waits twice as long as
    the one before, until for a whole window nothing had to be repaired.
    """

    def __init__(self, settings: AgentSettings, *, chance: Callable[[], float] = random) -> None:
        self._limit = settings.rival_limit
        self._window = settings.rival_window
        self._first = settings.back_off
        self._longest = settings.back_off_longest
        self._chance = chance
        self._repairs: deque[float] = deque()
        self._culprits: Counter[str] = Counter()
        self._pause = 0.0
        self._calm_at = 0.0
        self.not_before = 0.0
        """The moment before which no repair is to be made."""
        self.name = ""
        """Who the rival is, as long as it is one."""

    def repaired(self, now: float, culprits: Iterable[Culprit]) -> str:
        """Take note of a repair; the rival's name when this is what makes one of him, else empty."""
        self.calmed(now)
        while self._repairs and self._repairs[0] <= now - self._window:
            self._repairs.popleft()
        self._repairs.append(now)
        self._culprits.update(culprit.command or str(culprit) for culprit in culprits)
        if not self.name and len(self._repairs) < self._limit:
            return ""
        self._pause = min(self._longest, self._pause * 2 if self._pause else self._first)
        self.not_before = now + self._pause * (1 + _JITTER * self._chance())
        self._calm_at = self.not_before + max(self._window, self._pause)
        if self.name:
            return ""
        self.name = self._who()
        return self.name

    def calmed(self, now: float) -> str:
        """The rival who has let the rules be for long enough, and is none any more; empty where there is none such."""
        if not self.name or now < self._calm_at:
            return ""
        gone, self.name = self.name, ""
        self._pause = self.not_before = 0.0
        self._repairs.clear()
        self._culprits.clear()
        return gone

    def forgive(self) -> None:
        """Begin anew: somebody in charge has spoken."""
        self._calm_at = 0.0
        self.calmed(0.0)
        self._repairs.clear()
        self._culprits.clear()

    @property
    def next_change(self) -> float | None:
        """The moment at which a rival would be none any more; None while there is none."""
        return self._calm_at if self.name else None

    def _who(self) -> str:
        known = [name for name, _ in self._culprits.most_common() if name]
        return known[0] if known else str(Culprit())


class Convergence:
    """Whether the same change is made again and again although nobody undoes it: then it never holds, by our own fault.

    A repair that somebody was heard to make necessary says nothing about us, and begins the count anew.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._change: Hashable = None
        self._times = 0

    def made(self, change: Hashable, *, explained: bool) -> bool:
        """Take note of a change; whether it's time to stop making it."""
        if explained or change != self._change:
            self._times = 0
        self._change = change
        self._times += 1
        return self._times >= self._patience

    def held(self) -> None:
        """Nothing had to be changed."""
        self._change, self._times = None, 0
