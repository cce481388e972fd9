"""The one change of an owner in a network namespace that is on trial: a record on disk, written before anything else.

It holds all that undoing needs: the state to go back to, the backend with its options and plugins, and when. So neither
the rule sources nor the configuration have to be there or right. It belongs to one boot and one namespace: elsewhere
the rules that it speaks of don't stand, and it's void.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from meshfw.backend import Site
from meshfw.backends.instance import Namespace, namespace_of, only_root_of_users
from meshfw.backends.remembered import lasting_netns, state_directory
from meshfw.errors import StateError
from meshfw.files.kept import OddFileError, opened_directory, read_kept, write_kept
from meshfw.history import KEEP
from meshfw.sealed import seal, unseal

_VERSION: Final = 1
_PENDING, _UNDONE = "pending change", "undone change"
_MOST: Final = 1 << 30
"""Bytes: more than the states of any ruleset that a host can hold."""


class Pending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change on trial.

    ``boot`` is the boot's random number and ``deadline`` the seconds of CLOCK_BOOTTIME, which count while the machine
    is suspended, at which it is undone; ``begun`` and ``until`` are the same for people, in seconds since the epoch.
    ``before`` and ``after`` are the documents of the state to go back to and of the one on trial; ``trial`` is the
    digest of the latter. ``keep`` is how many states the history holds.
    """

    token: str
    owner: str
    backend: str
    netns: str | None
    boot: str
    begun: float
    until: float
    deadline: float
    trial: str
    before: str
    after: str
    plugins: bool | tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = {}
    keep: int = KEEP

    @property
    def overdue(self) -> bool:
        """Whether its time is over."""
        return clock() >= self.deadline


class Undone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a change that was to be undone: when, why, and the error of the last try where it isn't yet.

    ``error`` is empty where the old rules are back; ``tries`` counts those that failed.
    """

    time: float
    reason: str
    trial: str = ""
    error: str = ""
    tries: int = 0


Stamp = tuple[int, int] | None
"""What tells one record from every other; None for none."""


def clock() -> float:
    """The seconds of CLOCK_BOOTTIME (clock_gettime(2)): since the boot, suspended ones too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def at(moment: float) -> str:
    """A moment, in seconds since the epoch, as people here read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


_T = TypeVar("_T", bound=msgspec.Struct)


class Register:
    """Where the pending change of an owner in a namespace is kept, and what became of the last one.

    Whoever changes it holds the instance lock.
    """

    def __init__(self, directory: str, *, owner: str, namespace: Namespace) -> None:
        self._directory = directory
        self._namespace = namespace
        self._name = f"{owner}-{namespace.device}-{namespace.inode}"
        self.owner = owner

    @property
    def boot(self) -> str:
        """The boot that what is kept here has to be of."""
        return self._namespace.boot_id

    def read(self) -> Pending | None:
        """The pending change; None where there is none of this boot.

        Raises:
            StateError: there is a record, but it can't be believed.
        """
        found = self.of_any_boot()
        return found if found is not None and found.boot == self._namespace.boot_id else None

    def of_any_boot(self) -> Pending | None:
        """As :meth:`read`, of this boot or another one."""
        found = self._read("pending", Pending, _PENDING)
        if found is not None and found.owner != self.owner:
            raise StateError(f"it is of owner {found.owner!r}", source=self._path("pending"))
        return found

    def write(self, pending: Pending) -> None:
        """Keep a pending change, so that it's there whatever happens next; what became of an older one is forgotten.

        Raises:
            StateError: that can't be done.
        """
        try:
            self._remove("undone")
            self._write("pending", pending, _PENDING)
        except StateError as error:
            why = error.reason.partition(": ")[2]  # whichever of its files it was
            raise StateError(f"{_NEEDED}: {why}", source=self._directory, remedy=_ANOTHER) from error

    def remove(self) -> None:
        """Keep it no longer."""
        self._remove("pending")

    def stamp(self) -> Stamp:
        """What changes with the record; None where there is none. Cheap: nothing is read."""
        try:
            status = os.stat(self._path("pending"), follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            return None if _anothers(error) else (0, 0)  # it can't be told to be gone
        return status.st_ino, status.st_mtime_ns

    def undone(self) -> Undone | None:
        """What became of the last change that was to be undone; None where nothing is known."""
        with suppress(StateError):
            return self._read("undone", Undone, _UNDONE)
        return None

    def tell(self, undone: Undone) -> None:
        """Keep what became of it; that it can't be kept is no reason to stop."""
        with suppress(StateError):
            self._write("undone", undone, _UNDONE)

    def forget(self) -> None:
        """Keep no longer what became of the last one."""
        self._remove("undone")

    def _path(self, end: str) -> str:
        return os.path.join(self._directory, f"{self._name}.{end}")

    def _read(self, end: str, kind: type[_T], what: str) -> _T | None:
        path = self._path(end)
        try:
            content = read_kept(self._directory, os.path.basename(path), most=_MOST)
            return msgspec.json.decode(unseal(content, kind=what, version=_VERSION), type=kind)
        except FileNotFoundError:
            return None
        except OSError as error:
            if _anothers(error):
                return None
            raise StateError(error.strerror or str(error), source=path) from error
        except OddFileError as error:
            raise StateError(str(error), source=path, remedy=_REMEDY) from None
        except StateError as error:
            raise StateError(error.reason, source=path, remedy=_REMEDY) from None
        except msgspec.DecodeError as error:
            raise StateError(f"it holds no {what}: {error}", source=path, remedy=_REMEDY) from None

    def _write(self, end: str, value: _T, what: str) -> None:
        path = self._path(end)
        try:
            write_kept(self._directory, os.path.basename(path), seal(value, kind=what, version=_VERSION))
            with opened_directory(self._directory) as folder:
                os.fsync(folder)  # the name, too, is on disk
        except OSError as error:
            raise StateError(f"it can't be written: {error.strerror or error}", source=path) from error
        except OddFileError as error:
            raise StateError(f"it can't be written: {error}", source=path) from None

    def _remove(self, end: str) -> None:
        path = self._path(end)
        try:
            os.lstat(path)  # from a read-only file system not even what isn't there can be removed
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"it can't be removed: {error.strerror or error}", source=path) from error


def _anothers(error: OSError) -> bool:
    """Whether a file that can't be read is some other user's, so no record of this one: of root's own each is."""
    return isinstance(error, PermissionError) and (os.geteuid() != 0 or only_root_of_users())


_REMEDY: Final = "it is ignored; remove the file"
_NEEDED: Final = "a trial needs a state directory that can be written"
_ANOTHER: Final = "nothing was changed; $STATE_DIRECTORY names another"


def register_of(site: Site) -> Register:
    """The register of the site's owner in its namespace, however that was named: BackendError where there is none."""
    return Register(state_directory(), owner=site.owner, namespace=namespace_of(site.netns))


def on_trial(site: Site) -> bool:
    """Whether a change may be on trial: asked without the lock, and of the file system alone."""
    return register_of(site).stamp() is not None


def owners_on_trial(netns: str | None) -> tuple[str, ...]:
    """The owners that have a record of a pending change in a network namespace."""
    namespace = namespace_of(netns)
    return tuple(owner for owner, device, inode in _records() if (device, inode) == (namespace.device, namespace.inode))


def of_other_boots(owner: str, netns: str | None, *, namespace: Namespace) -> Iterator[tuple[Register, Pending]]:
    """The records that an owner's changes in a namespace, as it was named, left in other boots than this one."""
    for name, device, inode in _records():
        if name != owner:
            continue
        register = Register(
            state_directory(), owner=owner, namespace=msgspec.structs.replace(namespace, device=device, inode=inode)
        )
        with suppress(StateError):
            found = register.of_any_boot()
            if found is not None and found.boot != namespace.boot_id and found.netns == lasting_netns(netns):
                yield register, found


_RECORD: Final = re.compile(r"([a-z][a-z0-9]*)-([0-9]+)-([0-9]+)\.pending")


def _records() -> list[tuple[str, int, int]]:
    """Owner, device and inode of each record of a pending change that is kept."""
    try:
        names = sorted(os.listdir(state_directory()))
    except OSError:
        return []
    return [(found[1], int(found[2]), int(found[3])) for found in map(_RECORD.fullmatch, names) if found is not None]
