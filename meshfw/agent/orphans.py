"""The orphans of a container: process 1 becomes the parent of all whose own has ended, and buries them (wait(2))."""

from __future__ import annotations

import os


def bury_orphans() -> int:
    """How many of them had ended, and are gone from the table of processes now; 0 unless this is process 1.

    For a moment at which no process that was started here runs: its end would be taken for an orphan's.
    """
    if os.getpid() != 1:
        return 0
    buried = 0
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            buried += 1
    except ChildProcessError:  # there are none
        pass
    return buried
