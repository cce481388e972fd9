"""What wakes the agent: descriptors that become readable, signals, and words from other threads, behind one poll(2)."""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Protocol

_MILLISECOND: Final = 1000
_OVER: Final = select.POLLHUP | select.POLLNVAL
_LONGEST: Final = 60.0
"""Seconds of one wait at most: poll(2) doesn't count the time that a machine sleeps."""


class Readable(Protocol):
    """Something with a descriptor to wait for."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class Ears:
    """One place to wait in: named descriptors, words said from any thread or signal handler, and a time limit."""

    def __init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._words: deque[str] = deque()
        self._named: dict[int, str] = {}
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)

    def close(self) -> None:
        """Give the descriptor of the words back; a second call does nothing."""
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    def say(self, word: str) -> None:
        """Wake whoever waits, with a word; from any thread, and from a signal handler."""
        self._words.append(word)
        with suppress(OSError, ValueError):  # closed meanwhile: nobody waits any more
            os.eventfd_write(self._bell, 1)

    def listen(self, named: Mapping[str, Readable]) -> None:
        """Wait for these from now on, and for no others."""
        for descriptor in self._named:
            with suppress(KeyError, OSError, ValueError):
                self._poll.unregister(descriptor)
        self._named = {readable.fileno(): name for name, readable in named.items()}
        for descriptor in self._named:
            self._poll.register(descriptor, select.POLLIN)

    def wait(self, seconds: float) -> frozenset[str]:
        """The names and words that woke us; empty after the time, or sooner."""
        ready = self._poll.poll(int(max(0.0, min(seconds, _LONGEST)) * _MILLISECOND) + (seconds > 0))
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        found = {self._named[descriptor] for descriptor, _ in ready if descriptor in self._named}
        for descriptor, what in ready:
            if what & _OVER and not what & select.POLLIN:  # nothing will come from it, and it would wake us for ever
                self._poll.unregister(descriptor)
        while self._words:
            found.add(self._words.popleft())
        return frozenset(found)


@contextmanager
def signals(ears: Ears, words: Mapping[int, str]) -> Iterator[None]:
    """A block in which some signals are words to the ears instead of what they were."""

    def hear(number: int, _frame: FrameType | None) -> None:
        ears.say(words[number])

    old = {number: signal.signal(number, hear) for number in words}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
