"""Word of files that change, as the kernel tells of it: inotify(7), through the C library, with no process.

What counts for a file's name is the way to it: editors put a new file in place of the old one by rename(2), a
directory may be missing and come later, and each part of a path may be a symbolic link that somebody turns to
another place (Kubernetes turns ``..data`` in the directory of a ConfigMap). So every directory on the way is watched
for the one name that matters in it, and the file itself for writes that come by another way (a bind mount, another
hard link).

Not told: a write through mmap(2), a write whose writer never closes the file, a mount on the way, and what another
host writes to a network file system.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:  # at run time it's imported where it's used, not by every start of the command line
    import ctypes

# linux/inotify.h
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
CLOSE_NOWRITE: Final = 0x10
OPEN: Final = 0x20
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x1000000

_EVENT: Final = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name
_SIZE: Final = 1 << 16
_READS: Final = 64
_LINKS: Final = 40  # path_resolution(7)
_ATTEMPTS: Final = 8
_WAY: Final = CREATE | DELETE | MOVED_FROM | MOVED_TO | CLOSE_WRITE | ATTRIB | ONLYDIR
_FILE: Final = CLOSE_WRITE | ATTRIB | DELETE_SELF | MOVE_SELF


class Told(NamedTuple):
    """One event: the number of the watch (-1: events were lost), what happened, and to which name in a directory."""

    watch: int
    mask: int
    name: str


class Inotify:
    """An inotify instance that never blocks; OSError where the system gives none (EMFILE: too many of this user's)."""

    def __init__(self) -> None:
        self._libc = _libc()
        self._descriptor = _checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """The descriptor that becomes readable; -1 once it is closed."""
        return self._descriptor

    def add(self, path: str, mask: int) -> int:
        """The number of the watch of what is there now; OSError where it can't be watched (ENOENT, EACCES, ENOSPC)."""
        return _checked(self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask))

    def remove(self, watch: int) -> None:
        """End a watch; one that is over already (its file is gone) is fine."""
        self._libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[Told]:
        """What happened since the last call; bounded, so the rest of a flood stays for the next one."""
        told: list[Told] = []
        for _ in range(_READS if self._descriptor >= 0 else 0):
            try:
                data = os.read(self._descriptor, _SIZE)
            except BlockingIOError:
                break
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                name = data[offset - length : offset].rstrip(b"\0")
                told.append(Told(watch, mask, os.fsdecode(name)))
        return told

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FileChanges:
    """Changes of some files, by their names: ``fileno`` and ``drain`` of a :class:`~meshfw.source.Changes`.

    Made before the files are read, it misses nothing that comes after. A path is relative to the directory of now.
    Files and directories may be missing. OSError where the system gives no inotify instance.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(os.path.abspath(path) for path in paths)
        self._names: dict[int, set[str]] = {}
        self.unwatched: tuple[str, ...] = ()
        """Directories and files that can't be watched (EACCES, or ENOSPC: fs.inotify.max_user_watches)."""
        self._inotify = Inotify()
        try:
            self._watch()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable when one of the files may be another; -1 once it is closed."""
        return self._inotify.fileno()

    def drain(self) -> bool:
        """Take note of what there is, and whether one of the files may be another: its neighbours are told of too."""
        changed = False
        for _ in range(_ATTEMPTS):
            events = self._inotify.read()
            if not events:
                break
            if any(self._matters(event) for event in events):
                changed = True
                self._watch()  # which ends watches, and the end of each is an event again
        return changed

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        self._inotify.close()

    def _matters(self, event: Told) -> bool:
        if event.watch < 0:  # IN_Q_OVERFLOW
            return True
        names = self._names.get(event.watch)
        if names is None or event.mask & IGNORED:  # what a watch leaves that we have ended, or that ended by an event
            return False
        return not event.name or event.name in names

    def _watch(self) -> None:
        """Watch every way as it is now; again until it stands still: it may have changed before it was watched."""
        for _ in range(_ATTEMPTS):
            ways = [*self._ways()]
            names: dict[int, set[str]] = {}
            unwatched: list[str] = []
            for place, name in ways:
                try:
                    watch = self._inotify.add(place, _WAY if name else _FILE)
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                        unwatched.append(place)
                    continue
                names.setdefault(watch, set()).add(name)
            for gone in self._names.keys() - names.keys():
                self._inotify.remove(gone)
            self._names, self.unwatched = names, tuple(dict.fromkeys(unwatched))
            if ways == [*self._ways()]:
                return

    def _ways(self) -> Iterator[tuple[str, str]]:
        for path in self._paths:
            yield from _way(path)


def _way(path: str) -> Iterator[tuple[str, str]]:
    """The directories by which the kernel comes to a path, each with the name that matters there; the file comes last.

    It ends where something is missing.
    """
    place, links = "/", 0
    left = [part for part in reversed(path.split("/")) if part]
    while left:
        part = left.pop()
        if part in {".", ".."}:
            place = os.path.dirname(place) if part == ".." else place
            continue
        yield place, part
        there = os.path.join(place, part)
        try:
            target = os.readlink(there)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it's missing, or can't be looked at
                return
            place = there
            continue
        links += 1
        if links > _LINKS:
            return
        place = "/" if target.startswith("/") else place
        left += [part for part in reversed(target.split("/")) if part]
    yield place, ""


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)  # what the interpreter has loaded: a search would spawn compilers
    libc.inotify_init1.argtypes = (ctypes.c_int,)
    libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)
    return libc


def _checked(result: int) -> int:
    """What a call of the C library gave; OSError where that is -1."""
    import ctypes

    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
