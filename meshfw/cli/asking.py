"""The question on a terminal whether a change on trial is to stay; no answer within its time means no."""

from __future__ import annotations

import select
import sys
import termios
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

from meshfw.backend import Site
from meshfw.backends.instance import only_writer
from meshfw.cli.confirm import CONFIRMED, UNDONE, asking
from meshfw.cli.output import warn
from meshfw.cli.signals import Ended
from meshfw.errors import PendingError
from meshfw.safety.pending import Pending, Register, Stamp, clock, register_of
from meshfw.safety.settling import confirm, settle, undo

_LOOK: Final = 0.25
"""Seconds between two looks at the record, which somebody else may confirm or undo."""
_YES: Final = frozenset({"", "y", "yes"})
_NO: Final = frozenset({"n", "no", "undo"})
_LATE: Final = "not confirmed in time: the old rules are back"


class _Answer(Enum):
    YES = "yes"
    NO = "no"
    LATE = "late"
    ELSEWHERE = "elsewhere"
    """Somebody else confirmed or undid it."""
    NOBODY = "nobody"
    """There is nobody to answer."""


def ask(site: Site, pending: Pending, arguments: Namespace) -> int:
    """0 when the change was confirmed, 1 when it was undone; Ctrl-C is an answer too.

    Without anybody to answer, as when the terminal is lost, the change stays on trial until its time is over.
    """
    register = register_of(site)
    try:
        answer = _answer(register, register.stamp(), pending)
    except Ended:  # the guard goes on, and whoever comes back in time can confirm it
        raise
    except KeyboardInterrupt:
        print()
        _end(site, arguments, undo)
        print(UNDONE)
        raise
    if answer is _Answer.NOBODY:
        print(f"\n{asking(pending)}")
        return 0
    if answer is _Answer.YES:
        try:
            _end(site, arguments, confirm)
        except PendingError:
            answer = _Answer.ELSEWHERE
    elif answer is _Answer.NO:
        with suppress(PendingError):
            _end(site, arguments, undo)
    elif answer is _Answer.LATE:
        _end(site, arguments, settle)
    if answer is _Answer.ELSEWHERE:
        answer = _Answer.YES if register.undone() is None else _Answer.LATE if pending.overdue else _Answer.NO
    print({_Answer.YES: CONFIRMED, _Answer.NO: UNDONE, _Answer.LATE: _LATE}[answer])
    return 0 if answer is _Answer.YES else 1


def _end(site: Site, arguments: Namespace, how: Callable[[Site, list[str]], object]) -> None:
    warnings: list[str] = []
    with only_writer(site, timeout=arguments.lock_timeout):
        how(site, warnings)
    warn(warnings)


def _answer(register: Register, stamp: Stamp, pending: Pending) -> _Answer:
    with suppress(termios.error):  # what was typed before the question is no answer to it
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    while True:
        left = max(pending.deadline - clock(), 0)
        print(
            f"the new rules are in place; keep them? Enter: yes, n: undo now ({left:.0f} s left) ", end="", flush=True
        )
        while not select.select([sys.stdin], [], [], _LOOK)[0]:
            if register.stamp() != stamp:
                print()
                return _Answer.ELSEWHERE
            if pending.overdue:
                print()
                return _Answer.LATE
        line = sys.stdin.readline()
        if not line:
            return _Answer.NOBODY
        word = line.strip().lower()
        if word in _YES:
            return _Answer.YES
        if word in _NO:
            return _Answer.NO
