"""What ``auto`` took last time, for each owner and network namespace: a small file that outlasts a reboot.

After a reboot no rule of ours stands that would show where the others belong, and which tool comes first is chance.
Knowing this is a convenience: whoever can't write such a file works without, and one that isn't as it should be is
ignored and told of, never obeyed. The directory is $STATE_DIRECTORY (systemd.exec(5)), else /var/lib/meshfw.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

import msgspec

from meshfw.files.kept import OddFileError, opened_directory, read_kept, write_kept

DIRECTORY: Final = "/var/lib/meshfw"
_NAMED: Final = ("/run/netns/", "/var/run/netns/")  # ip-netns(8)
_PASSING: Final = ("/proc/", "/dev/")
"""Where the paths of namespaces hold numbers of processes and descriptors, which soon mean something else."""
_HERE: Final = "/proc/thread-self"
_SYSTEM: Final = "/proc/1"
_WITNESSES: Final = ("ns/net", "net/dev")
"""Below a process: the file of its network namespace, and one of which each has its own, which anybody may look at."""
_ALL_USERS: Final = ["0", "0", "4294967295"]
"""The map of users outside of any user namespace (user_namespaces(7))."""
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_LONGEST: Final = 4096
_ABSENT: Final = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of such a file: the backend's name, empty where nothing is known."""

    backend: str


def recall(owner: str, netns: str | None) -> tuple[str, str]:
    """The backend that auto took last time, and a warning; either may be empty."""
    name = _file_name(owner, netns)
    if not name:
        return "", ""
    path = os.path.join(state_directory(), name)
    try:
        return _read(name), ""
    except OSError as error:
        if error.errno in _ABSENT:
            return "", ""
        return "", f"{path} is ignored: {error.strerror or error}"
    except OddFileError as error:
        return "", f"{path} is ignored: {error}"


def remember(owner: str, netns: str | None, backend: str) -> str:
    """Keep a choice for the next time; why that couldn't be done, empty when it was."""
    name = _file_name(owner, netns)
    if not name:
        return no_lasting_name(netns)
    if recall(owner, netns)[0] == backend:
        return ""
    try:
        write_kept(state_directory(), name, msgspec.json.encode(Remembered(backend)) + b"\n")
    except OSError as error:
        return f"{state_directory()}: {error.strerror or error}"
    except OddFileError as error:
        return f"{state_directory()}: {error}"
    return ""


def forget(owner: str, netns: str | None) -> str:
    """Keep no choice any more; why that couldn't be done, empty when none is left."""
    name = _file_name(owner, netns)
    if not name:
        return ""
    try:
        with opened_directory(state_directory()) as folder:
            os.unlink(name, dir_fd=folder)
    except OSError as error:
        return "" if error.errno in _ABSENT else f"{os.path.join(state_directory(), name)}: {error.strerror or error}"
    except OddFileError as error:
        return f"{state_directory()}: {error}"
    return ""


def state_directory() -> str:
    """Where meshfw keeps what outlasts a reboot: the first of $STATE_DIRECTORY, or the default directory."""
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return named if os.path.isabs(named) else DIRECTORY


def no_lasting_name(netns: str | None) -> str:
    """Why nothing is kept for a namespace that :func:`lasting_name` has no name for."""
    if netns is None:
        return "this network namespace has no lasting name"
    return f"{netns} is no lasting name of a network namespace"


def _file_name(owner: str, netns: str | None) -> str:
    name = lasting_name(owner, netns)
    return f"{name}.json" if name is not None else ""


def lasting_name(owner: str, netns: str | None) -> str | None:
    """The file name for an owner and a namespace as the user named it; None where such a name soon lapses.

    Of the caller's own (None) it's the owner alone in the system's, and else that of its name, if it has one.
    """
    if netns is None:
        if _is_the_hosts():
            return owner
        netns = _name_of_this()
        if netns is None:
            return None
    place = os.path.abspath(netns) if "/" in netns else netns
    if place.startswith(_PASSING):
        return None
    for directory in _NAMED:
        place = place.removeprefix(directory)
    escaped = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in os.fsencode(place))
    return f"{owner}@{escaped}"


def lasting_netns(netns: str | None) -> str | None:
    """A namespace as it's called wherever one stands; None is the system's, and nothing else.

    A path begins at the root. The caller's own is called by its name, or by a path that means another one to others.
    """
    if netns is not None:
        return os.path.abspath(netns) if "/" in netns else netns
    return None if _is_the_hosts() else _name_of_this() or f"{_HERE}/ns/net"


def _is_the_hosts() -> bool:
    """Whether this is the network namespace of the system, not one that somebody just made to try something.

    That of process 1 is, which in a container is the container's own. Where nothing tells, it isn't.
    """
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            if file.read().split() != _ALL_USERS:
                return False  # in a user namespace, as `unshare -rn` makes
    except OSError:
        return False
    for witness in _WITNESSES:
        # The first takes the right to trace process 1 (ptrace(2)), which a service with few capabilities hasn't.
        with suppress(OSError):
            return os.path.samestat(os.stat(f"{_HERE}/{witness}"), os.stat(f"{_SYSTEM}/{witness}"))
    return False


def _name_of_this() -> str | None:
    """The name of the caller's network namespace, the first of several; None for one without."""
    try:
        here = os.stat(f"{_HERE}/ns/net")
        names = sorted(os.listdir(_NAMED[0]))
    except OSError:
        return None
    for name in names:
        with suppress(OSError):
            if os.path.samestat(os.stat(_NAMED[0] + name), here):
                return name
    return None


def _read(name: str) -> str:
    content = read_kept(state_directory(), name, most=_LONGEST)
    try:
        backend = msgspec.json.decode(content, type=Remembered).backend
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OddFileError(f'it doesn\'t hold {{"backend": NAME}}: {error}') from None
    if not backend:
        raise OddFileError("it names no backend")
    return backend
