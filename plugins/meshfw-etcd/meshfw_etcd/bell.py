"""A bell: a descriptor that one thread polls and another makes readable."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class Bell:
    """Word that something may have changed, from any thread: what a source's ``changes`` gives (eventfd(2))."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Make it readable; once it's closed this does nothing."""
        with self._lock, suppress(BlockingIOError):
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def drain(self) -> bool:
        """Whether it has rung since."""
        try:
            return os.eventfd_read(self._descriptor) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
