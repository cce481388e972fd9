"""Standard streams that can't bring a command down: a closed one is like /dev/null, a failing one is told apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class OutputError(Exception):
    """Standard output that can't be written: the system's error, which is no error of what the command did.

    It never leaves the command line. Were it an OSError, whoever expects one of a file or a process would take it.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class _Output:
    """Standard output whose failures are OutputErrors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise OutputError(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Messages:
    """Standard error whose failures are nobody's: there is no place left to tell them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """A block in which the three standard streams can be used, whatever state the process got them in."""
    _occupy()
    before = sys.stdin, sys.stdout, sys.stderr
    given = tuple(_opened(stream, mode) for stream, mode in zip(before, "rww", strict=True))
    for stream in given[1:]:
        if hasattr(stream, "reconfigure"):  # a comment of a rule may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    sys.stdin = given[0]
    sys.stdout, sys.stderr = cast("TextIO", _Output(given[1])), cast("TextIO", _Messages(given[2]))
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        for stream, old in zip(given, before, strict=True):
            if stream is not old:
                stream.close()
            elif stream is not before[0]:
                _settle(stream)


def _occupy() -> None:
    """Open /dev/null in place of closed descriptors, or the next file opened would pass for a standard stream."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, descriptor)  # inheritable, which the descriptor of open() isn't
            if opened != descriptor:
                os.close(opened)
            else:
                os.set_inheritable(descriptor, True)


def _opened(stream: TextIO | None, mode: str) -> TextIO:
    """The stream, or one of /dev/null where Python found its descriptor closed."""
    if stream is not None:
        return stream
    return cast("TextIO", open(os.devnull, mode, encoding="utf-8"))


def _settle(stream: TextIO) -> None:
    """Write what is left, or send it to /dev/null, where the interpreter's own flush at its end can't fail."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
