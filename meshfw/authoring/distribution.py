"""A new plugin: a whole distribution of a backend or a source, made from templates, that passes its own tests.

The templates are files beside this module, one folder for each kind, of :class:`string.Template`: ``$name`` is what a
configuration calls the plugin's backend or source, ``$title`` the same as part of a class's name, ``$package`` the
Python package, ``$distribution`` what is installed, and ``$pin`` the releases of meshfw that it may be used with.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

import msgspec

from meshfw import __version__
from meshfw.errors import ConfigError
from meshfw.plugins.loading import AUTO, plain

PREFIX: Final = "meshfw-"
LONGEST: Final = 24
"""Characters of a name: it stands in those of tables, classes and files."""
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_EXPECTED: Final = "small letters, digits and single hyphens, a letter first, as in 'my-fw'"
_RESERVED: Final = frozenset((AUTO, "testing"))
_SUFFIX: Final = ".tmpl"
_PACKAGE: Final = "PACKAGE"
"""What stands for the package's name in a template's path."""


class Kind(StrEnum):
    """What a new plugin brings."""

    BACKEND = "backend"
    SOURCE = "source"


class NewPlugin(msgspec.Struct, frozen=True):
    """A plugin that isn't there yet: what it brings, and the name by which configurations will choose it."""

    kind: Kind
    name: str

    @classmethod
    def named(cls, kind: Kind, name: str, *, taken: Collection[str] = ()) -> NewPlugin:
        """The plugin of a name, which may be given with or without ``meshfw-`` before it.

        ``taken`` are the names of what is installed: of plugins, and of everything that they bring.

        Raises:
            ConfigError: nothing can be called so, or something is.
        """
        short = name.removeprefix(PREFIX)
        if not _NAME.match(short):
            raise ConfigError(f"{name!r} can't name a plugin", key="NAME", expected=_EXPECTED)
        if len(short) > LONGEST:
            raise ConfigError(f"{name!r} has {len(short)} characters", key="NAME", expected=f"{LONGEST} at most")
        if short in _RESERVED:
            raise ConfigError(f"{short!r} is a word of meshfw's own", key="NAME", expected="another name")
        if plain(short) in {plain(other).removeprefix(PREFIX) for other in taken}:
            raise ConfigError(f"{short!r} is installed already", key="NAME", expected="a name that nothing has yet")
        return cls(kind, short)

    @property
    def distribution(self) -> str:
        """The name under which it is installed (PEP 503)."""
        return f"{PREFIX}{self.name}"

    @property
    def package(self) -> str:
        """The Python package."""
        return self.distribution.replace("-", "_")

    @property
    def title(self) -> str:
        """The name as part of a class's."""
        return "".join(part.capitalize() for part in self.name.split("-"))

    def files(self) -> Mapping[str, str]:
        """The text of every file, by its path in the distribution, sorted."""
        values = {
            "name": self.name,
            "title": self.title,
            "package": self.package,
            "distribution": self.distribution,
            "pin": pin(__version__),
        }
        return {
            self._path(path): Template(template.read_text(encoding="utf-8")).substitute(values)
            for path, template in _templates(files(__package__) / self.kind.value)
        }

    def _path(self, path: str) -> str:
        path = path.removesuffix(_SUFFIX).replace(_PACKAGE, self.package)
        if path == "gitignore":  # by its own name it would hide the templates' neighbours
            return ".gitignore"
        head, slash, test = path.rpartition("tests/test_")
        # Two plugins' tests in one checkout: pytest tells modules apart by their names alone.
        return f"{head}tests/test_{self.name.replace('-', '_')}_{test}" if slash else path

    def write(self, directory: str) -> str:
        """Write the distribution below a directory, all of it or nothing; the path where it then is.

        Raises:
            ConfigError: something stands there already, or the directory can't be written.
        """
        place = os.path.join(directory, self.distribution)
        if os.path.lexists(place):
            raise ConfigError(
                f"{place} is there already", key="DIRECTORY", expected="a place without it; nothing was written"
            )
        new = os.path.join(directory, f".{self.distribution}.{secrets.token_hex(8)}.new")
        try:
            os.makedirs(directory, exist_ok=True)
            for path, text in self.files().items():
                whole = os.path.join(new, path)
                os.makedirs(os.path.dirname(whole), exist_ok=True)
                with open(whole, "x", encoding="utf-8") as file:
                    file.write(text)
            os.rename(new, place)  # which an empty directory that came meanwhile lets pass, and nothing else
        except OSError as error:
            reason = f"{directory} can't be written: {error.strerror}"
            raise ConfigError(reason, key="DIRECTORY", expected="a directory for the new plugin") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return place


def _templates(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _templates(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{path}{entry.name}", entry


def pin(version: str) -> str:
    """The releases with the public names of this one: of its minor before 1.0, of its major from then on (SemVer)."""
    major, minor, *_ = (int(re.match(r"\d+", part)[0]) for part in version.split("."))  # type: ignore[index]  # ours are numbers
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"
