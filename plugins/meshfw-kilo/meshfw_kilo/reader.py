"""Where Kubernetes objects come from: what every reader gives, and the reader of a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, runtime_checkable

from meshfw import Changes, ConfigError, FileChanges, MeshfwError, ParseError
from meshfw_kilo.objects import listed_objects

Objects = Sequence[Mapping[str, Any]]
"""Objects, each with its kind."""
_LARGEST: Final = 256 << 20
"""Bytes of a file of objects: 5,000 Nodes as kubectl(1) prints them have a fifth of that."""


class Reader(Protocol):
    """Something that has the objects of a cluster."""

    @property
    def name(self) -> str:
        """What messages call it: a file, or a server's address."""
        ...

    def read(self) -> Objects:
        """All Nodes and Peers of now; the very same sequence where it's sure that nothing has changed.

        Raises:
            MeshfwError: they can't be had. Never nothing for lack of an answer.
        """
        ...

    def changes(self) -> Changes | None:
        """Word of changes as they happen; None: read again to know."""
        ...

    def close(self) -> None:
        """Give back files and connections."""
        ...


@runtime_checkable
class LiveReader(Reader, Protocol):
    """A reader that knows for which moment its objects are true, and tells by itself which Nodes fall silent.

    One that isn't heard for a while would take all Nodes for dead by the wall clock.
    """

    stale_after: float
    """Seconds after which a Node that doesn't check in counts no longer."""

    def now(self) -> float:
        """The moment that the last reading is true for, in Unix seconds."""
        ...


class FileReader:
    """The objects of a file: YAML documents or JSON, each an object or a List of them."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._bytes = b""
        self._objects: Objects = ()
        self._changes: FileChanges | None = None

    def read(self) -> Objects:
        """The objects of the file as it is now.

        Raises:
            ConfigError: it can't be read, holds nothing, or something that is no object. ParseError: it's no YAML or
                JSON; with line and column.
        """
        content = _content(self.name)
        if not self._objects or content != self._bytes:
            self._objects, self._bytes = tuple(_objects(content, self.name)), content
        return self._objects

    def changes(self) -> Changes | None:
        """Word of changes of the file; None where the system can't tell (no inotify instance is left)."""
        if self._changes is None:
            with suppress(OSError):
                self._changes = FileChanges([self.name])
        return self._changes

    def close(self) -> None:
        """Listen no longer."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None


def _content(path: str) -> bytes:
    """The bytes of a file; a pipe or a device, which may have no end or keep its reader waiting, is none."""
    expected = "a file of Kubernetes objects"
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("it is no regular file", file=path, expected=expected)
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"it can't be read: {error.strerror}", file=path, expected=expected) from error
    if len(content) > _LARGEST:
        raise ConfigError(f"it has more than {_LARGEST >> 20} MiB", file=path, expected=expected)
    return content


def _objects(content: bytes, path: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParseError(f"byte {error.start} is no UTF-8", source=path, expected="YAML or JSON") from error
    documents = [document for document in _documents(text, path) if document is not None]
    if not documents:
        raise ConfigError("it holds no object", file=path, expected="Nodes, Peers, or a List of them")
    for number, document in enumerate(documents, 1):
        try:
            yield from listed_objects(document, where=f"document {number}" if len(documents) > 1 else "")
        except ConfigError as error:
            raise in_file(error, path) from error


def in_file(error: ConfigError, path: str) -> MeshfwError:
    """The same refusal with its file said."""
    return ConfigError(error.reason, file=path, key=error.key, expected=error.expected)


def _documents(text: str, path: str) -> list[Any]:
    """What the documents of a text say; JSON where it looks so, for it is read ten times as fast."""
    if text.lstrip()[:1] == "{" or path.endswith(".json"):
        import json

        try:
            return [json.loads(text)]
        except json.JSONDecodeError as error:
            if path.endswith(".json"):
                raise ParseError(error.msg, source=path, line=error.lineno, column=error.colno) from error
        except RecursionError:
            raise ParseError("it is nested too deeply", source=path) from None
    return _yaml_documents(text, path)


def _yaml_documents(text: str, path: str) -> list[Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return list(yaml.load_all(text, loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        raise ParseError(str(error.problem or error.context), source=path, line=line, column=column) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a month 13 in what looks like a date
        raise ParseError(str(error), source=path, expected="YAML") from error
    except RecursionError:
        raise ParseError("it is nested too deeply", source=path) from None
