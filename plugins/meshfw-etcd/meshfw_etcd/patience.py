"""Patience with a store that is away for a while: a request is made again until it is answered or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from meshfw_etcd.errors import UnreachableError

T = TypeVar("T")
_FIRST: Final = 0.1
_LONGEST: Final = 2.0


def patiently(ask: Callable[[], T], *, patience: float) -> T:
    """What the store answers, asked again while it can't be reached, for so many seconds.

    Only for what may be asked twice.

    Raises:
        UnreachableError: it never answered. Whatever else ``ask`` raises.
    """
    end, pause = time.monotonic() + patience, _FIRST
    while True:
        try:
            return ask()
        except UnreachableError:
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
