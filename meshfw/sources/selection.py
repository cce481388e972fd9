"""What sources of whole dumps share: which chains they take, where those go, and how a file of rules is read."""

from __future__ import annotations

import msgspec

from meshfw.errors import ModelError
from meshfw.extensions.language import Language
from meshfw.languages.dump import ruleset_of_dump
from meshfw.languages.tables import Dump
from meshfw.model import Place, Ruleset, Table
from meshfw.source import Declaration, Settings
from meshfw.sources.hosts import resolve_host


class Selection(msgspec.Struct, frozen=True):
    """Which chains of a dump are taken: by patterns over ``table:chain`` or ``chain`` as a shell has them (fnmatch)."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def keeps(self, table: Table, chain: str) -> bool:
        """Whether a chain is taken: an included one (all are where nothing is included) that isn't excluded."""
        included = not self.include or any(_meets(table, chain, pattern) for pattern in self.include)
        return included and not any(_meets(table, chain, pattern) for pattern in self.exclude)

    def idle(self, *dumps: Dump) -> str | None:
        """A pattern of ``include`` that meets no chain of the dumps; None where each meets one."""
        chains = [(table.table, chain.name) for dump in dumps for table in dump.tables for chain in table.chains]
        for pattern in self.include:
            if not any(_meets(table, chain, pattern) for table, chain in chains):
                return pattern
        return None


def _meets(table: Table, chain: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(f"{table}:{chain}" if ":" in pattern else chain, pattern)


class DumpOptions(msgspec.Struct, frozen=True):
    """The keys that every source of dumps has: ``include``, ``exclude``, ``place``, ``rank`` and ``resolve``."""

    declaration: Declaration
    selection: Selection
    place: Place
    rank: int
    language: Language

    @classmethod
    def taken(cls, declaration: Declaration, settings: Settings) -> DumpOptions:
        """The options taken out of a source's settings."""
        selection = Selection(settings.strings("include"), settings.strings("exclude"))
        place = settings.choice("place", Place, Place.FIRST)
        rank = settings.take("rank", int, 0)
        language = declaration.language
        if settings.take("resolve", bool, False):
            hosts = msgspec.structs.replace(language.hosts, resolve=resolve_host)
            language = msgspec.structs.replace(language, hosts=hosts)
        return cls(declaration, selection, place, rank, language)

    def ruleset(self, dump: Dump, path: str) -> Ruleset:
        """The ruleset of a dump that came from a file."""
        try:
            return ruleset_of_dump(dump, place=self.place, rank=self.rank, keep=self.selection.keeps, source=path)
        except ModelError as error:
            if path in error.where:
                raise
            raise type(error)(error.reason, where=f"{path}, {error.where}" if error.where else path) from None

    def check_include(self, path: str, *dumps: Dump) -> None:
        """Refuse an ``include`` that meets no chain of a file."""
        idle = self.selection.idle(*dumps)
        if idle is not None:
            raise self.declaration.settings().error(
                f"{idle!r} meets no chain of {path}", key="include", expected="a pattern that meets a chain"
            )


def read_text(path: str, declaration: Declaration, *, key: str, expected: str) -> str:
    """The text of a file that a key names.

    Raises:
        ConfigError: a file that can't be read, or that is no text.
    """
    settings = declaration.settings()
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise settings.error(f"{path}: {error.strerror or error}", key=key, expected=expected) from error
    except UnicodeDecodeError as error:
        raise settings.error(f"{path}: byte {error.start} is not UTF-8", key=key, expected=expected) from error
