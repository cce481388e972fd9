"""A language: the extensions and host names that parsing, printing and reading back go by, as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshfw.errors import PluginError
from meshfw.extensions.extension import Extension, HostTables
from meshfw.model import Family, Match, Target

Reader = Callable[[Any, Family], Match | Target | None]


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """Every extension by its names and by the type of its value, and the readers of nft's JSON.

    Two extensions with one name, or two that read the same nft key, are refused when the value is made.
    """

    matches: Mapping[str, Extension]
    targets: Mapping[str, Extension]
    by_value: Mapping[type, Extension]
    implied: Mapping[int, Extension]
    readers: Mapping[str, Reader]
    hosts: HostTables = HostTables()

    @classmethod
    def of(cls, extensions: Iterable[Extension], *, hosts: HostTables | None = None) -> Language:
        """The language of these extensions."""
        matches: dict[str, Extension] = {}
        targets: dict[str, Extension] = {}
        by_value: dict[type, Extension] = {}
        implied: dict[int, Extension] = {}
        readers: dict[str, Reader] = {}
        for extension in extensions:
            names = targets if extension.is_target else matches
            for name in (extension.name, *extension.aliases):
                _claim(names, name, extension)
            _claim(by_value, extension.value, extension)
            if extension.implied_by is not None:
                _claim(implied, extension.implied_by, extension)
            for key, reader in extension.nft_readers().items():
                _claim(readers, key, reader)
        return cls(
            matches=matches,
            targets=targets,
            by_value=by_value,
            implied=implied,
            readers=readers,
            hosts=hosts or HostTables(),
        )

    def extended(self, extensions: Iterable[Extension]) -> Language:
        """This language and more extensions."""
        return Language.of((*self.by_value.values(), *extensions), hosts=self.hosts)


def _claim(table: dict[Any, Any], key: Any, value: Any) -> None:
    if key in table:
        name = key.__name__ if isinstance(key, type) else key
        raise PluginError("two extensions claim it", plugin=str(name))
    table[key] = value
