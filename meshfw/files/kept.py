"""Small files that are kept for the next run: written in one step, and believed only if nobody else could have.

What such a file says is a convenience; whoever can't write it works without, and one that isn't as it should be is
ignored and told of, never obeyed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from meshfw.errors import StateError

_PATIENCE: Final = 1.0  # seconds for the other writers of a directory
_PAUSE: Final = 0.005


class OddFileError(Exception):
    """Something there that isn't as we would have left it."""


def read_kept(directory: str, name: str, *, most: int) -> bytes:
    """At most so many bytes of a file; OSError where it can't be read, OddFileError where it may be somebody else's."""
    with opened_directory(directory) as folder:
        # Not blocking, should it be a pipe: who may write it is checked before anything is read.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
        try:
            status = _check_owner(descriptor, "it")
            if not stat.S_ISREG(status.st_mode):
                raise OddFileError("it's no plain file")
            if status.st_size > most:
                raise OddFileError(f"it has more than {most} bytes")
            return os.read(descriptor, status.st_size)  # as much memory is taken first as is asked for
        finally:
            os.close(descriptor)


def write_kept(directory: str, name: str, content: bytes) -> None:
    """Put a file in place of another one in a single step: who reads meanwhile finds the old one or the new one."""
    _make(directory)
    with opened_directory(directory) as folder:
        _put(folder, name, content)


class KeptFile:
    """A file of one's own that is kept for the next run: nobody but its owner and root can have written what it says.

    ``most`` is how many bytes are read. Its directory is made where only that is missing.
    """

    def __init__(self, path: str, *, most: int = 1 << 26) -> None:
        self.path = path
        self._directory, self._name = os.path.split(os.path.abspath(path))
        self._most = most

    def read(self) -> bytes | None:
        """What it says; None where there is none.

        Raises:
            StateError: it can't be read, or isn't as it would have been left.
        """
        try:
            return read_kept(self._directory, self._name, most=self._most)
        except FileNotFoundError:
            return None
        except (OSError, OddFileError) as error:
            raise self._error(error) from error

    def write(self, content: bytes) -> None:
        """Put content in place of what it says in a single step, for its owner alone to read.

        Raises:
            StateError: it can't be; what it said stays.
        """
        try:
            write_kept(self._directory, self._name, content)
        except (OSError, OddFileError) as error:
            raise self._error(error) from error

    def _error(self, error: OSError | OddFileError) -> StateError:
        return StateError((isinstance(error, OSError) and error.strerror) or str(error), source=self.path)


def write_private(path: str, content: bytes) -> None:
    """Put a file that its owner alone can read wherever a person wants it, in a single step."""
    directory, name = os.path.split(path)
    folder = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _put(folder, name, content)
    finally:
        os.close(folder)


def _put(folder: int, name: str, content: bytes) -> None:
    new = f".{name}.{secrets.token_hex(8)}.new"  # its writer's alone: another one would put its half in place
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600, dir_fd=folder)
    try:
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def make_kept(directory: str, name: str) -> str:
    """A directory of our own in one, made unless it is there; OSError, OddFileError as for reading."""
    _make(directory)
    with opened_directory(directory) as folder, suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    return os.path.join(directory, name)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:  # a full file system takes what has room, and refuses the rest the next time
        left = left[os.write(descriptor, left) :]


@contextmanager
def only_keeper(directory: str) -> Iterator[None]:
    """A block in which nobody else is in such a block for this directory; TimeoutError, an OSError, if one stays.

    The lock is flock(2) on the directory itself, so that no file of its own is left behind.
    """
    _make(directory)
    with opened_directory(directory) as folder:
        end = time.monotonic() + _PATIENCE
        while not _locked(folder):
            if time.monotonic() >= end:
                raise TimeoutError(f"{directory} is locked for more than {_PATIENCE:g} s")
            time.sleep(_PAUSE)
        yield  # closing the directory frees it


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(directory: str) -> None:
    with suppress(OSError):
        os.mkdir(directory, 0o700)


@contextmanager
def opened_directory(directory: str) -> Iterator[int]:
    """A descriptor of a directory, which nobody but root and ourselves may write to."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(folder, "its directory")
        yield folder
    finally:
        os.close(folder)


def _check_owner(descriptor: int, what: str) -> os.stat_result:
    status = os.fstat(descriptor)
    if status.st_uid not in (0, os.geteuid()):
        raise OddFileError(f"{what} belongs to user {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise OddFileError(f"{what} may be written by others")
    return status
