"""python-iptables as it is used here: imported without a process, and by one thread at a time."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Final

from meshfw import BackendError, Family, Language
from meshfw_iptc.extensions import Extensions

NAME: Final = "iptc"
"""The backend's name, and that of the module python-iptables brings."""
SONAMES: Final = {"ip4tc": "libip4tc.so.2", "ip6tc": "libip6tc.so.2", "xtables": "libxtables.so.12"}
"""What the run-time linker finds by itself, of iptables 1.8.3 and later."""
_WRAPPER: Final = "xtwrapper"
_LIBC: Final = "libc.so.6"
_EXTENSIONS: Final = "XTABLES_LIBDIR"
_REMEDY: Final = "pip install python-iptables, and apt-get install iptables for its libraries"


class Library:
    """python-iptables, loaded: ``iptc`` is its module, ``turn`` the lock for whoever uses it.

    ``extensions`` are those of libxtables, which have to be required before they're used.

    It, libiptc and libxtables keep what they work on in variables of the process, and reading a rule points standard
    output elsewhere for a moment: one thread at a time, across all backends.
    """

    def __init__(self, iptc: Any) -> None:
        self.iptc = iptc
        self.turn = threading.RLock()
        self._trials: tuple[Language | None, dict[tuple[Family, str], str | None]] = (None, {})
        self.extensions = Extensions(_open(SONAMES["xtables"]), _extension_directory())

    def trials(self, language: Language) -> dict[tuple[Family, str], str | None]:
        """What was found of rules that were tried in this process: it's the same for all who speak a language."""
        if self._trials[0] is not language:
            self._trials = (language, {})
        return self._trials[1]


def unavailable() -> str | None:
    """Why python-iptables can't be loaded here; None where nothing speaks against it. Nothing is loaded."""
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        return f"python-iptables is not installed ({_REMEDY})"
    return None


@cache
def library() -> Library:
    """The library, imported when it's first asked for.

    Its own ``import iptc`` starts 26 processes: it asks ldconfig, gcc and ld where libraries are, and modprobe for
    modules. So the module in which it looks for them, ``iptc.util``, is put in its place beforehand, with the names
    that the linker knows; and the directory of extensions, which it would ask ldconfig for, is the one beside
    libxtables. Where somebody in this process has imported it before, that one is taken.

    Raises:
        BackendError: it isn't installed, or a library that it needs isn't there.
    """
    reason = unavailable()
    if reason is not None:
        raise BackendError(reason, backend=NAME)
    try:
        if NAME in sys.modules:
            return Library(sys.modules[NAME])
        sys.modules[f"{NAME}.util"] = _finder()
        with _named_directory():
            return Library(importlib.import_module(NAME))
    except (OSError, ImportError, AttributeError) as error:
        for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
            del sys.modules[name]
        raise BackendError(f"python-iptables can't be loaded: {error}", backend=NAME, remedy=_REMEDY) from error


def _finder() -> ModuleType:
    """What stands in for ``iptc.util``: the three functions that the library imports from it."""
    made = ModuleType(f"{NAME}.util")
    made.__dict__.update(find_library=_find_library, find_libc=lambda: _open(_LIBC), load_kernel=_load_nothing)
    return made


def _find_library(*names: str) -> tuple[ctypes.CDLL, int]:
    """The library of the first name that is known, and its major version."""
    for name in names:
        if name == _WRAPPER:
            return _open(_wrapper_path()), 0
        if name in SONAMES:
            return _open(SONAMES[name]), int(SONAMES[name].rpartition(".")[2])
    raise OSError(f"no library is known for {' or '.join(names)}")


def _open(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def _wrapper_path() -> str:
    """The compiled part of the package, which stands beside it."""
    spec = importlib.util.find_spec(NAME)
    places = spec.submodule_search_locations if spec is not None else None
    beside = os.path.dirname(next(iter(places or ("",))))
    return os.path.join(beside, f"lib{_WRAPPER}{sysconfig.get_config_var('EXT_SUFFIX')}")


def _load_nothing(name: str, exc_if_failed: bool = False) -> None:
    """No module is loaded by us: the kernel loads tables and extensions itself, once ip_tables is there."""


@contextmanager
def _named_directory() -> Iterator[None]:
    """A block in which the environment names the directory of libxtables' extensions."""
    named = os.environ.get(_EXTENSIONS)
    os.environ[_EXTENSIONS] = _extension_directory()
    try:
        yield
    finally:
        if named is None:
            del os.environ[_EXTENSIONS]


def _extension_directory() -> str:
    """Where the extensions are: what the environment says, as for iptables itself, or else beside libxtables."""
    named = os.environ.get(_EXTENSIONS)
    return named or os.path.join(os.path.dirname(_mapped(SONAMES["xtables"])), "xtables")


def _mapped(soname: str) -> str:
    """The path from which a library was loaded, as proc(5) has it in maps."""
    _open(soname)
    stem = soname.partition(".so")[0]
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        paths = (line.split(maxsplit=5)[-1].rstrip("\n") for line in file if f"/{stem}.so" in line)
        return next(paths)
