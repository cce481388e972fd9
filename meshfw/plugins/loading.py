"""The loading of plugins: each by itself, so that a broken one takes no other down and is named with its origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pluggy

from meshfw import hookspecs
from meshfw.errors import ConfigError, MeshfwError, PluginError
from meshfw.extensions.extension import Extension
from meshfw.hookspecs import GROUP, BackendPlugin, CommandPlugin, SourcePlugin, always
from meshfw.source import alternatives, suggestion

if TYPE_CHECKING:  # 40 ms that a start without foreign plugins doesn't pay
    from importlib.metadata import EntryPoint

AUTO: Final = "auto"
"""The name that stands for the best backend here; no backend may bear it."""

_HOOKS: Final = tuple(name for name in vars(hookspecs) if name.startswith("meshfw_"))
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_VERB: Final = re.compile(r"[a-z][a-z0-9-]*\Z")


class LoadedPlugin:
    """A plugin: its entry point's name, its distribution, and what it offers."""

    def __init__(self, name: str, distribution: str, thing: object = None) -> None:
        self.name = name
        self.distribution = distribution
        self.thing = thing
        self.backends: tuple[BackendPlugin, ...] = ()
        self.sources: tuple[SourcePlugin, ...] = ()
        self.commands: tuple[CommandPlugin, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} (from {self.distribution})"

    def error(self, reason: str) -> PluginError:
        """The error of this plugin."""
        return PluginError(reason, plugin=self.name, distribution=self.distribution)


def installed() -> Iterable[EntryPoint]:
    """The entry points of plugins in this Python's installed distributions."""
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


class Loader:
    """The plugins loaded so far, in order, and the problems of those that are broken."""

    def __init__(self, find: Callable[[], Iterable[EntryPoint]]) -> None:
        self.plugins: list[LoadedPlugin] = []
        self.problems: list[PluginError] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._find = find
        self._entries: tuple[EntryPoint, ...] | None = None
        self._tried: dict[tuple[str, str], LoadedPlugin | None] = {}

    def load_all(self) -> None:
        """Load every installed plugin; broken ones are among the problems afterwards."""
        for entry in self._found():
            self._load(entry)

    def load_named(self, name: str) -> list[LoadedPlugin]:
        """The plugins with an entry point of that name, or of the distribution of that name.

        Raises:
            ConfigError: there is none. PluginError: it is broken.
        """
        entries = [entry for entry in self._found() if plain(name) in (plain(entry.name), plain(_dist_name(entry)))]
        if not entries:
            known = sorted({entry.name for entry in self._found()})
            raise ConfigError(
                f"no plugin {name!r} is installed{suggestion(name, known)}",
                key="plugins",
                expected=alternatives(known) if known else "names of installed plugins, and none is installed",
            )
        found = []
        for entry in entries:
            plugin = self._load(entry)
            if plugin is None:
                raise next(problem for problem in self.problems if problem.plugin == entry.name)
            found.append(plugin)
        return found

    def names(self) -> frozenset[str]:
        """The names of all entry points and of their distributions, broken ones too."""
        return frozenset(name for entry in self._found() for name in (entry.name, _dist_name(entry)) if name)

    def _found(self) -> tuple[EntryPoint, ...]:
        if self._entries is None:
            self._entries = tuple(self._find())
        return self._entries

    def _load(self, entry: EntryPoint) -> LoadedPlugin | None:
        """The plugin of an entry point, loaded once; None where it is broken, which is then among the problems."""
        key = (entry.name, _dist_name(entry))
        if key in self._tried:
            return self._tried[key]
        distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
        plugin = LoadedPlugin(entry.name, distribution)
        try:
            with blaming(plugin.error, "it"):
                plugin.thing = entry.load()
            self.register(plugin)
        except PluginError as error:
            self.problems.append(error)
            self._tried[key] = None
            return None
        self._tried[key] = plugin
        return plugin

    def register(self, plugin: LoadedPlugin) -> None:
        """Hand a plugin to pluggy and ask what it offers; PluginError, and no trace of it, where it is broken."""
        with blaming(plugin.error, "its registration"):
            hash(plugin.thing)  # pluggy keeps plugins in sets, and would fail later, for all of them
            self._manager.register(plugin.thing, name=f"{plugin.distribution}:{plugin.name}")
        try:
            callers = self._manager.get_hookcallers(plugin.thing) or []
            unknown = [caller.name for caller in callers if not caller.has_spec()]
            if unknown:
                raise plugin.error(f"{unknown[0]} is no hook{suggestion(unknown[0], _HOOKS)}")
            if not callers:
                raise plugin.error("it marks no function with meshfw.hookimpl, so it implements no hook")
            plugin.backends = self.values(plugin, "meshfw_backends", BackendPlugin)
            plugin.sources = self.values(plugin, "meshfw_sources", SourcePlugin)
            plugin.commands = self.values(plugin, "meshfw_commands", CommandPlugin)
        except PluginError:
            self._manager.unregister(plugin.thing)
            raise
        self.plugins.append(plugin)

    def call(self, plugin: LoadedPlugin, hook: str, **arguments: object) -> list[Any]:
        """What one plugin's implementation of a hook returns, in a list; empty where it has none."""
        others = [other for other in self._manager.get_plugins() if other is not plugin.thing]
        with blaming(plugin.error, hook):
            results: list[Any] = self._manager.subset_hook_caller(hook, others)(**arguments)
            return results

    def values(self, plugin: LoadedPlugin, hook: str, kind: type[Any]) -> tuple[Any, ...]:
        """The values that one plugin's implementation of a hook returns, each of the right kind."""
        found: list[Any] = []
        for result in self.call(plugin, hook):
            with blaming(plugin.error, hook):
                found.extend(result)
        for item in found:
            if not isinstance(item, kind):
                raise plugin.error(f"{hook} returned {item!r}, which is no {kind.__name__}")
            if isinstance(item, CommandPlugin):
                _check_command(item, plugin, hook)
            elif not isinstance(item, Extension):
                _check_offer(item, plugin, hook)
        return tuple(found)


@contextmanager
def blaming(blame: Callable[[str], PluginError], what: str, *, refusals: bool = False) -> Iterator[None]:
    """A block of foreign code: whatever it raises becomes the plugin's error.

    An exit of the interpreter does as well: a module that is imported has no right to it. With ``refusals`` meshfw's
    own errors pass as they are, since a backend or source says with them what is wrong with its work.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if refusals and isinstance(error, MeshfwError):
            raise
        raise blame(f"{what} failed: {type(error).__name__}: {error}") from error


def _check_offer(offer: Any, plugin: LoadedPlugin, hook: str) -> None:
    """Refuse an offer whose fields aren't what they should be; msgspec doesn't check them."""
    if not isinstance(offer.name, str) or not _NAME.match(offer.name) or offer.name == AUTO:
        raise plugin.error(f"{hook} returned the name {offer.name!r}: letters, digits, _ . - are allowed, and not auto")
    if not callable(offer.factory) or not isinstance(offer.api_version, int):
        raise plugin.error(f"{hook} returned {offer.name} with a factory or api_version that is none")
    for name in ("unavailable", "presence"):
        if not callable(getattr(offer, name, always)):
            raise plugin.error(f"{hook} returned {offer.name} with a field {name} that can't be called")


def _check_command(offer: Any, plugin: LoadedPlugin, hook: str) -> None:
    """Refuse a verb whose fields aren't what they should be."""
    if not isinstance(offer.name, str) or not _VERB.match(offer.name):
        allowed = "a small letter, then such, digits and - are allowed"
        raise plugin.error(f"{hook} returned the verb {offer.name!r}: {allowed}")
    if not callable(offer.run) or not callable(offer.add_arguments):
        raise plugin.error(f"{hook} returned {offer.name} with a run or add_arguments that can't be called")
    if not isinstance(offer.summary, str) or not isinstance(offer.api_version, int):
        raise plugin.error(f"{hook} returned {offer.name} with a summary or api_version that is none")


def _dist_name(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""


def plain(name: str) -> str:
    """A name as the packaging standards compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
