"""The pulse of a kernel's tables, felt from outside: a number that moves with each commit, asked all the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from benchmarks.bare import BareGeneration, BareRead
from benchmarks.subjects import Subject
from meshfw.testing.netns import Netns

_INTERVAL: Final = 0.0002


class Pulse:
    """What moves with each commit to a subject's tables in a namespace, to be felt inside a block.

    For nf_tables it's the generation; for legacy tables their shapes, the number and size of their entries, which an
    edit that changes no size doesn't move.
    """

    def __init__(self, subject: Subject, room: Netns) -> None:
        self._subject = subject
        self._room = room
        self._stack = ExitStack()

    def __enter__(self) -> Pulse:
        with ExitStack() as stack, self._room.entered():
            self.now: Callable[[], int | bytes]
            if self._subject.bare is BareRead:
                self.now = stack.enter_context(BareRead()).shapes
            else:
                self.now = stack.enter_context(BareGeneration()).number
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def beats(self, act: Callable[[], None], *, quiet: float, longest: float) -> list[float]:
        """The moments (time.perf_counter) at which it moved since ``act`` began, until it didn't for ``quiet`` seconds.

        ``longest`` is how many seconds it's felt at most.
        """
        found: list[float] = []
        last = self.now()
        act()
        since = time.perf_counter()
        end = since + longest
        while (moment := time.perf_counter()) - since < quiet and moment < end:
            value = self.now()
            if value != last:
                moment = time.perf_counter()
                found.append(moment)
                last, since = value, moment
            time.sleep(_INTERVAL)
        return found
