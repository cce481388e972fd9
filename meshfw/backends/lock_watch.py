"""Hints that somebody may have written to the legacy tables: whoever does takes a lock, and that can be watched.

The kernel tells nobody of changes to these tables. But each iptables-legacy opens one lock file and closes it when it
is done (iptables(8), -w), and inotify(7) tells of both. That is a hint and no more: tools that only list take the lock
too, the file is the same for every network namespace that sees it, and writers that take no lock are found by looking.
Who it was isn't told either; while the lock is held, /proc/locks says it, so a watcher that is quick sees the name, and
one that is late sees none.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from meshfw.backend import Event
from meshfw.files.inotify import (
    CLOSE_NOWRITE,
    CLOSE_WRITE,
    CREATE,
    IGNORED,
    MOVED_TO,
    ONLYDIR,
    OPEN,
    OVERFLOW,
    Inotify,
)
from meshfw.kernel.lock import LOCKS, flock_holder, xtables_lock_file

_TRIES: Final = 5
_PAUSE: Final = 20e-6
"""Seconds between two looks at who has opened the file or locked it."""
_YOUNG: Final = 8
"""How many of the youngest processes are looked at."""
_LOCKS_SIZE: Final = 1 << 16


def lock_watch() -> LockWatch | None:
    """A watch of the lock's file; None where it can't be (no inotify instance, no such directory, no permission)."""
    try:
        return LockWatch(xtables_lock_file())
    except OSError:
        return None


class LockWatch:
    """The ends of others' turns at a lock file, as events: each writer's close, when what it wrote is in the kernel.

    The file is made where it's missing, as every iptables-legacy makes it, and may go and come again; its directory may
    not. OSError where it can't be watched.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._name = os.path.basename(self._path)
        self._files: set[int] = set()
        self._pending: list[Event] = []
        self._holder = (0, "")
        self._inotify = Inotify()
        self._more = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._either = select.epoll()
        self._locks = -1
        try:
            self._directory = self._inotify.add(os.path.dirname(self._path), CREATE | MOVED_TO | ONLYDIR)
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._follow()
            self._inotify.read()  # of our own making it
            for descriptor in (self._inotify.fileno(), self._more):
                self._either.register(descriptor, select.EPOLLIN)
            with suppress(OSError):  # without it nobody is named
                self._locks = os.open(LOCKS, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable, at the beginning of somebody's turn too; -1 once it is closed."""
        return -1 if self._either.closed else self._either.fileno()

    def close(self) -> None:
        """Watch no longer; a second call does nothing."""
        if not self._either.closed:
            self._either.close()
            self._inotify.close()
            os.close(self._more)
            if self._locks >= 0:
                os.close(self._locks)

    def events(self) -> tuple[Event, ...]:
        """One event for each turn that ended since the last call; half a millisecond may go by to see whose one is.

        ``pid`` and ``command`` are who was seen holding the lock, 0 and empty where nobody was.
        """
        if self._either.closed:
            return ()
        with suppress(BlockingIOError):
            os.eventfd_read(self._more)
        found = [*self._pending, *(event for event, _ in self._ended(naming=True))]
        self._pending = []
        return tuple(found)

    def _follow(self) -> None:
        self._files.add(self._inotify.add(self._path, OPEN | CLOSE_WRITE | CLOSE_NOWRITE))

    def _ended(self, *, naming: bool = False) -> list[tuple[Event, bool]]:
        """The turns that ended, each with whether the file was open for writing, as only our own kind opens it."""
        ended: list[tuple[Event, bool]] = []
        waiting = False
        for _ in range(_TRIES):
            for event in self._inotify.read():
                if event.mask & OVERFLOW:
                    ended.append((Event(), False))
                elif event.watch == self._directory:
                    if event.name == self._name:  # made by somebody who opened it, and may be done
                        ended.append((Event(), False))
                        with suppress(OSError):
                            self._follow()
                elif event.mask & IGNORED:
                    self._files.discard(event.watch)
                elif event.mask & OPEN:
                    waiting = True
                elif event.watch in self._files:
                    ended.append((Event(*self._holder), bool(event.mask & CLOSE_WRITE)))
                    self._holder, waiting = (0, ""), False
            if not (naming and waiting) or self._named():
                break
            time.sleep(_PAUSE)
        return ended

    def _named(self) -> bool:
        """Whether somebody was found holding the lock, or about to; who it was is then known."""
        with suppress(OSError, ValueError):
            file = os.stat(self._path)
            holder = flock_holder(os.pread(self._locks, _LOCKS_SIZE, 0), file) or _young_opener(file)
            if holder is not None:
                with open(f"/proc/{holder}/comm", encoding="utf-8", errors="surrogateescape") as name:
                    self._holder = (holder, name.read().removesuffix("\n"))
                return True
        return False

    @contextmanager
    def sparing(self) -> Iterator[Callable[[], None]]:
        """A block in which our own turn is no event; it calls what it gets as soon as it has the lock.

        Two equal events of inotify's in a row are told as one, so those before ours are taken note of then: whoever
        had the lock before us has closed the file.
        """

        def taken() -> None:
            self._pending += (event for event, _ in self._ended())

        try:
            yield taken
        finally:
            ended = self._ended()
            own = next((at for at in reversed(range(len(ended))) if ended[at][1]), len(ended) - 1)
            self._pending += (event for at, (event, _) in enumerate(ended) if at != own)
            if self._pending:
                os.eventfd_write(self._more, 1)


@contextmanager
def own_opening(watch: LockWatch | None) -> Iterator[Callable[[], None]]:
    """A block in which a backend takes the lock, for its watch; without one nothing is done."""
    if watch is None:
        yield lambda: None
        return
    with watch.sparing() as taken:
        yield taken


def _young_opener(file: os.stat_result) -> int | None:
    """The one of the youngest processes that has a file open; None where none of those that may be looked at has.

    Woken by the opening, on the same processor, we stand in the way of whoever opened it: nobody has the lock yet, and
    as soon as we go to sleep it's taken and given back before we are woken again.
    """
    with open("/proc/loadavg", "rb") as last:
        youngest = int(last.read().split()[4])  # proc(5): the process that was made last
    for pid in range(youngest, max(youngest - _YOUNG, 1), -1):
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd") if pid != os.getpid() else ():
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), file):
                    return pid
    return None
