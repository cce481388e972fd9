"""The source ``iptables-save``: dumps as they are, one for each family, either of which may be left out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from meshfw.errors import ConfigError, ModelError
from meshfw.extensions.language import Language
from meshfw.files.inotify import FileChanges
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.model import Family, Place, Ruleset, Table
from meshfw.source import Changes, Declaration, merge

_REMEDY: Final = (
    "a dump that iptables-save or ip6tables-save wrote; a relative path starts at the configuration's place"
)


class Selection(msgspec.Struct, frozen=True):
    """Which chains of a dump are taken: by patterns over ``table:chain`` or ``chain`` as a shell has them (fnmatch)."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def keeps(self, table: Table, chain: str) -> bool:
        """Whether a chain is taken: an included one (all are where nothing is included) that isn't excluded."""
        included = not self.include or any(_meets(table, chain, pattern) for pattern in self.include)
        return included and not any(_meets(table, chain, pattern) for pattern in self.exclude)


def _meets(table: Table, chain: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(f"{table}:{chain}" if ":" in pattern else chain, pattern)


class DumpSource:
    """The rules of dumps in files."""

    def __init__(self, declaration: Declaration) -> None:
        settings = declaration.settings()
        self._declaration = declaration
        self._paths: dict[Family, str] = {}
        for family in Family:
            path = settings.take(family.value, str, "", expected="the path of a dump")
            if path:
                self._paths[family] = declaration.beside(path)
        self._selection = Selection(settings.strings("include"), settings.strings("exclude"))
        self._place = settings.choice("place", Place, Place.FIRST)
        self._rank = settings.take("rank", int, 0)
        self._changes: FileChanges | None = None
        settings.finish()
        if not self._paths:
            raise settings.error("no dump is named", expected='ipv4 = "FILE", ipv6 = "FILE", or both')

    @property
    def name(self) -> str:
        """The files."""
        return ", ".join(self._paths.values())

    def load(self) -> Ruleset:
        """The ruleset of both dumps.

        Raises:
            ConfigError: a file that can't be read or holds no table. ParseError: with file, line and column.
            ModelError: rules that make no ruleset, such as a jump into a chain that is left out.
        """
        parts = []
        for family, path in self._paths.items():
            text = self._read(family, path)
            parts.append((path, self._ruleset(text, family, path, self._declaration.language)))
        return merge(parts)

    def _ruleset(self, text: str, family: Family, path: str, language: Language) -> Ruleset:
        dump = parse_dump(text, family=family, language=language, source=path)
        if not dump.tables:
            # An interrupted iptables-save leaves an empty file, and to apply that would take every rule away.
            raise self._error(f"{path} holds no table", family)
        for pattern in self._selection.include:
            if not any(_meets(table.table, chain.name, pattern) for table in dump.tables for chain in table.chains):
                raise self._declaration.settings().error(
                    f"{pattern!r} meets no chain of {path}", key="include", expected="a pattern that meets a chain"
                )
        keep: Callable[[Table, str], bool] = self._selection.keeps
        try:
            return ruleset_of_dump(dump, place=self._place, rank=self._rank, keep=keep, source=path)
        except ModelError as error:
            if path in error.where:
                raise
            raise type(error)(error.reason, where=f"{path}, {error.where}" if error.where else path) from None

    def _read(self, family: Family, path: str) -> str:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except OSError as error:
            raise self._error(f"{path}: {error.strerror or error}", family) from error
        except UnicodeDecodeError as error:
            raise self._error(f"{path}: byte {error.start} is not UTF-8", family) from error

    def _error(self, reason: str, family: Family) -> ConfigError:
        return self._declaration.settings().error(reason, key=family.value, expected=_REMEDY)

    def changes(self) -> Changes | None:
        """Word of changes of the files; None where the system can't tell (no inotify instance is left)."""
        if self._changes is None:
            with suppress(OSError):
                self._changes = FileChanges(self._paths.values())
        return self._changes

    def close(self) -> None:
        """Listen no longer; files are closed as soon as they are read."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None
