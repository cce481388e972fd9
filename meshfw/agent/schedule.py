"""What is due when: a table of moments, each with the name of what shall happen then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class Schedule:
    """Moments of a clock, in seconds; what is due at once is done in a fixed ``order``."""

    def __init__(self, order: Sequence[str], clock: Callable[[], float]) -> None:
        self._order = tuple(order)
        self._clock = clock
        self._due: dict[str, float] = {}

    def at(self, name: str, when: float) -> None:
        """Have something done at a moment, unless it's due before that already."""
        self._due[name] = min(when, self._due.get(name, when))

    def soon(self, name: str, seconds: float = 0.0) -> None:
        """Have something done after so many seconds at the latest."""
        self.at(name, self._clock() + seconds)

    def postpone(self, name: str, seconds: float) -> None:
        """Have something done after so many seconds, and not before."""
        self._due[name] = self._clock() + seconds

    def left(self, limit: float) -> float:
        """The seconds until something is due, at most so many."""
        now = self._clock()
        return min([limit, *(when - now for when in self._due.values())])

    def take(self) -> Iterator[str]:
        """What is due now, each taken off as it is given."""
        for name in self._order:
            if name in self._due and self._due[name] <= self._clock():
                del self._due[name]
                yield name
