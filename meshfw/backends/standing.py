"""What stands of an owner's in the kernel, as a digest that any process gives alike: for proofs that outlast one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from meshfw.kernel.netns import Namespace


def sealed(told: str, namespace: Namespace, *parts: Any, files: Iterable[str | None]) -> str:
    """A digest for good: what was told of the kernel, where, with what else it depends on, and which files read it.

    A tool or library that is replaced is another one by its inode, size or time of change.
    """
    return hashed((told, namespace, parts, [_identity(path) for path in files]))


def _identity(path: str | None) -> tuple[Any, ...]:
    try:
        status = os.stat(path or "")
    except OSError:
        return (os.fsencode(path or ""),)
    return (os.fsencode(os.path.realpath(path or "")), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def mapped_files(stem: str) -> tuple[str, ...]:
    """The files of a library, and those that are named alike, as this process has them loaded (proc_pid_maps(5))."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            paths = {line.split(maxsplit=5)[5].rstrip("\n") for line in file if stem in line}
    except OSError:
        return ()
    return tuple(sorted(path for path in paths if os.path.basename(path).startswith(stem)))


def hashed(value: Any) -> str:
    """The digest of a value made of what JSON has."""
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
