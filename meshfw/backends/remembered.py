"""What ``auto`` took last time, for each owner and network namespace: a small file that outlasts a reboot.

After a reboot no rule of ours stands that would show where the others belong, and which tool comes first is chance.
Knowing this is a convenience: whoever can't write such a file works without, and one that isn't as it should be is
ignored and told of, never obeyed. The directory is $STATE_DIRECTORY (systemd.exec(5)), else /var/lib/meshfw.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

DIRECTORY: Final = "/var/lib/meshfw"
_NAMED: Final = ("/run/netns/", "/var/run/netns/")  # ip-netns(8)
_PASSING: Final = ("/proc/", "/dev/")
"""Where the paths of namespaces hold numbers of processes and descriptors, which soon mean something else."""
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_LONGEST: Final = 4096
_ABSENT: Final = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of such a file: the backend's name, empty where nothing is known."""

    backend: str


class _OddError(Exception):
    """Something there that isn't as we would have left it."""


def recall(owner: str, netns: str | None) -> tuple[str, str]:
    """The backend that auto took last time, and a warning; either may be empty."""
    name = _file_name(owner, netns)
    if name is None:
        return "", ""
    path = os.path.join(_directory(), name)
    try:
        with _opened_directory() as folder:
            return _read(folder, name), ""
    except OSError as error:
        if error.errno in _ABSENT:
            return "", ""
        return "", f"{path} is ignored: {error.strerror or error}"
    except _OddError as error:
        return "", f"{path} is ignored: {error}"


def remember(owner: str, netns: str | None, backend: str) -> str:
    """Keep a choice for the next time; why that couldn't be done, empty when it was."""
    name = _file_name(owner, netns)
    if name is None:
        return f"{netns} is no lasting name of a network namespace"
    if recall(owner, netns)[0] == backend:
        return ""
    with suppress(OSError):
        os.mkdir(_directory(), 0o700)
    try:
        with _opened_directory() as folder:
            _write(folder, name, msgspec.json.encode(Remembered(backend)) + b"\n")
    except OSError as error:
        return f"{_directory()}: {error.strerror or error}"
    except _OddError as error:
        return f"{_directory()}: {error}"
    return ""


def forget(owner: str, netns: str | None) -> str:
    """Keep no choice any more; why that couldn't be done, empty when none is left."""
    name = _file_name(owner, netns)
    if name is None:
        return ""
    try:
        with _opened_directory() as folder:
            os.unlink(name, dir_fd=folder)
    except OSError as error:
        return "" if error.errno in _ABSENT else f"{os.path.join(_directory(), name)}: {error.strerror or error}"
    except _OddError as error:
        return f"{_directory()}: {error}"
    return ""


def _directory() -> str:
    """The first directory of $STATE_DIRECTORY, which may name several, or the default one."""
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return named if os.path.isabs(named) else DIRECTORY


def _file_name(owner: str, netns: str | None) -> str | None:
    """The name of the file for an owner and a namespace as the user named it; None where such a name soon lapses."""
    if netns is None:
        return f"{owner}.json"
    place = os.path.abspath(netns) if "/" in netns else netns
    if place.startswith(_PASSING):
        return None
    for directory in _NAMED:
        place = place.removeprefix(directory)
    escaped = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in os.fsencode(place))
    return f"{owner}@{escaped}.json"


@contextmanager
def _opened_directory() -> Iterator[int]:
    """A descriptor of the directory, which nobody but root and ourselves may write to."""
    folder = os.open(_directory(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(folder, "its directory")
        yield folder
    finally:
        os.close(folder)


def _check_owner(descriptor: int, what: str) -> os.stat_result:
    status = os.fstat(descriptor)
    if status.st_uid not in (0, os.geteuid()):
        raise _OddError(f"{what} belongs to user {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise _OddError(f"{what} may be written by others")
    return status


def _read(folder: int, name: str) -> str:
    # Not blocking, should it be a pipe: who may write it is checked before anything is read.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        status = _check_owner(descriptor, "it")
        if not stat.S_ISREG(status.st_mode):
            raise _OddError("it's no plain file")
        content = os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)
    try:
        backend = msgspec.json.decode(content, type=Remembered).backend
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _OddError(f'it doesn\'t hold {{"backend": NAME}}: {error}') from None
    if not backend:
        raise _OddError("it names no backend")
    return backend


def _write(folder: int, name: str, content: bytes) -> None:
    """Put a file in place of another one in a single step: who reads meanwhile finds the old one or the new one."""
    new = f".{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600, dir_fd=folder)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
