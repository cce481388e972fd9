"""Broken backends whose word of events can't be relied upon."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import msgspec

from meshfw.backend import Event, Watch
from meshfw.backends.memory_kernel import MemoryKernel, MemoryWatch
from meshfw.kernel.command import run
from meshfw.testing.broken_writers import Mutated
from meshfw.testing.lab import OWNER

replace = msgspec.structs.replace


class Falsely:
    """A watch whose events are edited."""

    def __init__(self, inner: Watch, edit: Callable[[Event], Event]) -> None:
        self._inner = inner
        self._edit = edit

    def fileno(self) -> int:
        """The inner watch's."""
        return self._inner.fileno()

    def events(self) -> tuple[Event, ...]:
        """The inner watch's, edited."""
        return tuple(self._edit(event) for event in self._inner.events())


class DeafWatch(Mutated):
    """Has a watch that tells of nothing."""

    def watch(self) -> Watch:
        """One that nobody writes to."""
        return self._deaf

    @cached_property
    def _deaf(self) -> MemoryWatch:
        return MemoryKernel().watch(OWNER)


class _Edited(Mutated):
    """Has a watch whose events are edited."""

    edit: Callable[[Event], Event]

    def watch(self) -> Watch:
        """The one that lies."""
        return self._edited

    @cached_property
    def _edited(self) -> Falsely:
        watch = self.inner.watch()
        assert watch is not None
        return Falsely(watch, type(self).edit)


class FarSighted(_Edited):
    """Says of every write that it touched nothing of ours."""

    edit = staticmethod(lambda event: replace(event, near=False))


class TakesAllForOurs(_Edited):
    """Says of every write that it was our own."""

    edit = staticmethod(lambda event: replace(event, own=True))


class BlamesOthers(_Edited):
    """Says of every write that somebody else did it."""

    edit = staticmethod(lambda event: replace(event, own=False))


class KeepsListening(Mutated):
    """Leaves its watch open when it's closed."""

    def close(self) -> None:
        """And nothing happens."""


class AsksToListen(Mutated):
    """Starts a process to listen."""

    def watch(self) -> Watch | None:
        """With the help of one."""
        run(("true",), timeout=10)
        return self.inner.watch()
