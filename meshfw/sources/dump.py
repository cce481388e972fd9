"""The source ``iptables-save``: dumps as they are, one for each family, either of which may be left out."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from meshfw.files.inotify import FileChanges
from meshfw.languages.dump import parse_dump
from meshfw.model import Family, Ruleset
from meshfw.source import Changes, Declaration, merge
from meshfw.sources.selection import DumpOptions, read_text

_REMEDY: Final = (
    "a dump that iptables-save or ip6tables-save wrote; a relative path starts at the configuration's place"
)


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
        self._options = DumpOptions.taken(declaration, settings)
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
        return merge([(path, self._ruleset(family, path)) for family, path in self._paths.items()])

    def _ruleset(self, family: Family, path: str) -> Ruleset:
        text = read_text(path, self._declaration, key=family.value, expected=_REMEDY)
        dump = parse_dump(text, family=family, language=self._options.language, source=path)
        if not dump.tables:
            # An interrupted iptables-save leaves an empty file, and to apply that would take every rule away.
            raise self._declaration.settings().error(f"{path} holds no table", key=family.value, expected=_REMEDY)
        self._options.check_include(path, dump)
        return self._options.ruleset(dump, path)

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
