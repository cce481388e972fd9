"""The time of a piece of work: wall, and user and system time with that of the children."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable

from benchmarks.results import Sample

ONCE = "once"
"""The step of a sample of something short: what its first calls did, and the others need not do again."""
_LOOP_SECONDS = 0.05  # what a sample of something short shall take ...
_FIRST = 3  # calls that may have something to do for the last time
_LEAST_LOOPS = 5  # ... unless so many take longer


def timed(work: Callable[[], None], loops: int = 1) -> Sample:
    """The time of one call, the mean of ``loops``; garbage of before is collected before."""
    gc.collect()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    for _ in range(loops):
        work()
    wall_after, cpu_after = time.perf_counter(), _cpu_seconds()
    return Sample((wall_after - wall) / loops, (cpu_after - cpu) / loops)


def looped(work: Callable[[], None], most: int) -> Sample:
    """One sample, of up to so many calls in a row, behind a few first ones that do what is only done once.

    What those took more than as many others is its step :data:`ONCE`.
    """
    first = timed(work, _FIRST).wall
    loops = max(_LEAST_LOOPS, min(most, int(_LOOP_SECONDS / timed(work).wall)))
    sample = timed(work, loops)
    return Sample(sample.wall, sample.cpu, {ONCE: max(0.0, _FIRST * (first - sample.wall))})


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
