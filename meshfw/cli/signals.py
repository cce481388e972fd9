"""The signals that end a command: each like Ctrl-C, so that what was begun is put back before the command ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # what a service manager or timeout(1) sends, and a lost terminal


class Ended(KeyboardInterrupt):
    """A signal that asks the command to end; ``number`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def heeded_signals() -> Iterator[None]:
    """A block that such a signal ends by :class:`Ended`; one that was ignored before (nohup(1)) stays so."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    old = {number: signal.getsignal(number) for number in _ENDING}
    for number, held in old.items():
        if held is signal.SIG_DFL:
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, held in old.items():
            if held is signal.SIG_DFL:
                signal.signal(number, held)


def _end(number: int, _frame: FrameType | None) -> None:
    raise Ended(number)
