"""The source ``iptables-script``: the command lines of a shell script, as what they leave in empty tables."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from meshfw.files.inotify import FileChanges
from meshfw.languages.script import parse_script
from meshfw.model import Ruleset
from meshfw.source import Changes, Declaration, merge
from meshfw.sources.selection import DumpOptions, read_text

_REMEDY: Final = "a script of iptables and ip6tables commands; a relative path starts at the configuration's place"


class ScriptSource:
    """The rules of one script, for each family that it has commands of."""

    def __init__(self, declaration: Declaration) -> None:
        settings = declaration.settings()
        self._declaration = declaration
        self._path = declaration.beside(settings.required("file", expected="the path of a script"))
        self._options = DumpOptions.taken(declaration, settings)
        self._changes: FileChanges | None = None
        settings.finish()

    @property
    def name(self) -> str:
        """The file."""
        return self._path

    def load(self) -> Ruleset:
        """The ruleset that the script leaves.

        Raises:
            ConfigError: a file that can't be read or holds no command. ParseError: with file, line and column.
            ModelError: rules that make no ruleset, such as a jump into a chain that is left out.
        """
        text = read_text(self._path, self._declaration, key="file", expected=_REMEDY)
        dumps = parse_script(text, language=self._options.language, source=self._path)
        if not dumps:
            raise self._declaration.settings().error(f"{self._path} holds no command", key="file", expected=_REMEDY)
        self._options.check_include(self._path, *dumps.values())
        return merge(
            [(f"{self._path} ({family})", self._options.ruleset(dump, self._path)) for family, dump in dumps.items()]
        )

    def changes(self) -> Changes | None:
        """Word of changes of the file; None where the system can't tell (no inotify instance is left)."""
        if self._changes is None:
            with suppress(OSError):
                self._changes = FileChanges([self._path])
        return self._changes

    def close(self) -> None:
        """Listen no longer; the file is closed as soon as it is read."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None
