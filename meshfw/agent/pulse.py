"""Whether the agent's loop lives: what others may ask from any thread."""

from __future__ import annotations

import time
from collections.abc import Callable

Doubt = Callable[[], str]
"""Why something isn't so; empty where it is."""


class Pulse:
    """The loop's sign of life: each beat says within how many seconds the next one comes at the latest."""

    def __init__(self, *, grace: float = 30.0) -> None:
        self._grace = grace
        self._due = time.monotonic() + grace

    def beat(self, within: float) -> None:
        """The loop lives, and beats again within so many seconds."""
        self._due = time.monotonic() + within + self._grace

    def doubt(self) -> str:
        """Why the loop may hang; empty where it's in time. A machine's sleep doesn't count (clock_gettime(2))."""
        late = time.monotonic() - self._due
        return "" if late <= 0 else f"the loop is late by {late + self._grace:.0f} s"
