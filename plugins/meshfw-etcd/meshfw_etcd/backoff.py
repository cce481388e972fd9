"""Pauses between tries: longer each time, and never the same for two nodes, who would all come back at one moment."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Final

_FIRST: Final = 0.2
LONGEST: Final = 15.0
"""Seconds of a pause, before chance takes up to half of it or adds that."""


class Backoff:
    """The pauses of one series of tries; ``chance`` gives numbers from 0 to 1."""

    def __init__(self, *, longest: float = LONGEST, chance: Callable[[], float] = random) -> None:
        self._longest = longest
        self._chance = chance
        self._next = _FIRST

    def pause(self) -> float:
        """The seconds to wait before the next try."""
        pause = self._next * (0.5 + self._chance())
        self._next = min(self._longest, self._next * 2)
        return pause

    def reset(self) -> None:
        """Begin anew: a try went well."""
        self._next = _FIRST
