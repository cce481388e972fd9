"""The plugins: the built-in one, registered in code, and those that entry points name, loaded when they are needed.

Two things pull in different directions: any installed plugin should just work, and what happens to be installed must
neither slow every start (a scan of the installed distributions takes longer than reading the kernel) nor change what a
rule means. So an entry point is loaded only for a name that isn't built in, or for a name on the configuration's
``plugins`` list; and of what was loaded only the plugins so chosen add to the language and hear of reconciles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from meshfw.backend import API_VERSION, Backend, Report, Site
from meshfw.errors import BackendError, ConfigError, MeshfwError, PluginError
from meshfw.extensions.extension import Extension, HostTables
from meshfw.extensions.language import Language
from meshfw.hookspecs import BackendPlugin, CommandPlugin, Presence, SourcePlugin
from meshfw.plugins.builtin import BuiltIn
from meshfw.plugins.choice import (
    Candidate,
    Sighting,
    Sites,
    Verdict,
    choose,
    look,
    room,
    standing,
    unavailable,
    unread,
    untold,
    version_problem,
)
from meshfw.plugins.loading import AUTO, LoadedPlugin, Loader, blaming, installed, plain
from meshfw.source import Declaration, RuleSource, alternatives, suggestion

if TYPE_CHECKING:  # 40 ms that a start without foreign plugins doesn't pay
    from importlib.metadata import EntryPoint

BUILT_IN: Final = "meshfw"
Offer = TypeVar("Offer", BackendPlugin, SourcePlugin, CommandPlugin)


class ListedBackend(msgspec.Struct, frozen=True):
    """A backend as ``meshfw backends`` lists it.

    ``reason`` is why it can't be used here, None where it can; ``unread`` why it can't be told what stands there.
    """

    name: str
    distribution: str
    summary: str
    reason: str | None = None
    automatic: int | None = None
    presence: Presence = Presence()
    unread: str = ""


class Plugins:
    """The plugins that one configuration works with.

    ``wanted`` is the configuration's ``plugins``: names of entry points or distributions, or True for all that are
    installed. A named one that can't be loaded is a PluginError; any other is skipped and told in ``problems``.
    """

    def __init__(
        self, wanted: bool | Collection[str] = (), *, find: Callable[[], Iterable[EntryPoint]] = installed
    ) -> None:
        self._loader = Loader(find)
        self._chosen: list[LoadedPlugin] = []
        self._built_in = LoadedPlugin(BUILT_IN, BUILT_IN, BuiltIn())
        self._loader.register(self._built_in)
        self._all = wanted is True
        if self._all:
            self._loader.load_all()
        for name in () if isinstance(wanted, bool) else wanted:
            self._chosen += (plugin for plugin in self._loader.load_named(name) if plugin not in self._chosen)

    @property
    def problems(self) -> tuple[str, ...]:
        """The plugins that were skipped, and why: one text each."""
        return tuple(str(problem) for problem in self._loader.problems)

    def names(self) -> frozenset[str]:
        """What is taken: the names of all installed plugins and distributions of them, and of all that they bring."""
        self._loader.load_all()
        plugins = self._loader.plugins
        backends = {offer.name for plugin in plugins for offer in plugin.backends}
        return self._loader.names() | backends | {offer.name for plugin in plugins for offer in plugin.sources}

    # --- choosing ---

    def backend(self, name: str, *, key: str = "backend") -> BackendPlugin:
        """The backend of that name; ``key`` is where the configuration names it, for the message.

        Raises:
            ConfigError: there is none. PluginError: two plugins bring it, it doesn't fit this release, or it is broken.
        """
        return self._choose(name, "backend", key, lambda plugin: plugin.backends)

    def source(self, name: str, *, key: str = "source") -> SourcePlugin:
        """The kind of rule source of that name; errors as for :meth:`backend`."""
        return self._choose(name, "source", key, lambda plugin: plugin.sources)

    def command(self, name: str) -> CommandPlugin:
        """The verb of that name, which any installed plugin may bring; errors as for :meth:`backend`."""
        self._loader.load_all()
        return self._choose(name, "verb", "", lambda plugin: plugin.commands)

    def commands(self) -> tuple[tuple[CommandPlugin, str], ...]:
        """The verbs of all installed plugins, each with its plugin's name and distribution, in the order of names."""
        self._loader.load_all()
        pairs = ((offer, str(plugin)) for plugin in self._loader.plugins for offer in plugin.commands)
        return tuple(sorted(pairs, key=lambda pair: pair[0].name))

    def has_backend(self, name: str) -> bool:
        """Whether a backend of that name is installed."""
        if any(offer.name == name for plugin in self._loader.plugins for offer in plugin.backends):
            return True
        self._loader.load_all()
        return any(offer.name == name for plugin in self._loader.plugins for offer in plugin.backends)

    def _choose(self, name: str, kind: str, key: str, offers: Callable[[LoadedPlugin], tuple[Offer, ...]]) -> Offer:
        def named() -> list[tuple[LoadedPlugin, Offer]]:
            pairs = [(plugin, offer) for plugin in self._loader.plugins for offer in offers(plugin)]
            return [(plugin, offer) for plugin, offer in pairs if offer.name == name]

        found = named()
        if not found:
            self._loader.load_all()
            found = named()
        if not found:
            known = sorted(offer.name for plugin in self._loader.plugins for offer in offers(plugin))
            raise self._missing(name, kind, key, known)
        if len(found) > 1:
            plugins = [plugin for plugin, _ in found]
            raise PluginError(
                f"more than one plugin brings a {kind} of this name: {' and '.join(map(str, plugins))}; uninstall one",
                plugin=name,
                distribution=", ".join(plugin.distribution for plugin in plugins),
            )
        ((plugin, offer),) = found
        if offer.api_version != API_VERSION:
            raise plugin.error(f"{kind} {name}: {version_problem(offer)}")
        if plugin not in self._chosen and plugin is not self._built_in:
            self._chosen.append(plugin)
        return offer

    def _missing(self, name: str, kind: str, key: str, known: Collection[str]) -> MeshfwError:
        """The error for a name that nobody brings: that of the broken plugin of this name, where there is one."""
        for problem in self._loader.problems:
            if plain(name) in (plain(problem.plugin), plain(problem.distribution.partition(" ")[0])):
                return problem
        broken = f"; skipped: {'; '.join(self.problems)}" if self._loader.problems else ""
        names = alternatives([*([AUTO] if kind == "backend" else []), *known, f"the name of an installed {kind}"])
        return ConfigError(f"there is no {kind} {name!r}{suggestion(name, known)}{broken}", key=key, expected=names)

    def look(self, sites: Sites) -> tuple[Sighting, ...]:
        """What stands where each backend keeps its rules, of plugins that take part; reads the kernel alone."""
        return tuple(look(offer, sites(offer)) for offer in self._offers())

    def look_beyond(self, sites: Sites) -> tuple[Sighting, ...]:
        """What stands where the backends of other installed plugins keep their rules, but for places looked at already.

        For who has to find everything: it loads all plugins, and none takes part for it.
        """
        self._loader.load_all()
        active = self._active()
        known = {room(offer) for offer in self._offers()}
        others = [offer for plugin in self._loader.plugins if plugin not in active for offer in plugin.backends]
        return tuple(look(offer, sites(offer)) for offer in others if room(offer) not in known)

    def automatic(self, sightings: Iterable[Sighting] | None = None, *, remembered: str = "") -> Verdict:
        """What ``auto`` stands for: the first in rank, of plugins that take part, that can be used here.

        ``sightings`` is what :meth:`look` found; without it nothing is known to stand anywhere. ``remembered`` is the
        backend that auto took last time.
        """
        return choose(
            [
                Candidate(
                    name=found.offer.name,
                    automatic=found.offer.automatic,
                    unavailable=unavailable(found.offer),
                    presence=found.presence,
                    unread="" if found.denied else found.unread,
                )
                for found in (map(Sighting, self._offers()) if sightings is None else sightings)
                if found.offer.automatic is not None and found.offer.api_version == API_VERSION
            ],
            remembered=remembered,
        )

    def usable(self, verdict: Verdict | None = None) -> BackendPlugin:
        """The backend of a verdict, by itself :meth:`automatic`'s.

        Raises:
            BackendError: it has none, with the reason of each.
        """
        verdict = verdict or self.automatic()
        if verdict.name is None:
            raise BackendError(f"no backend can be used here\n  {verdict.reason}", backend=AUTO)
        return self.backend(verdict.name)

    def listed(self, sites: Sites | None = None) -> tuple[ListedBackend, ...]:
        """Every installed backend, those of broken plugins left out; without ``sites`` none is looked at."""
        self._loader.load_all()
        found = []
        for plugin in self._loader.plugins:
            for offer in plugin.backends:
                seen = Sighting(offer) if sites is None else look(offer, sites(offer))
                kept = (offer.name, plugin.distribution, offer.summary, unavailable(offer), offer.automatic)
                found.append(ListedBackend(*kept, seen.presence, seen.unread))
        return tuple(found)

    def _offers(self) -> list[BackendPlugin]:
        return [offer for plugin in self._active() for offer in plugin.backends]

    def _active(self) -> list[LoadedPlugin]:
        """The plugins that take part: meshfw's own and the chosen ones, or all where all are wanted."""
        return list(self._loader.plugins) if self._all else [self._built_in, *self._chosen]

    # --- making ---

    def open_backend(self, offer: BackendPlugin, site: Site) -> Backend:
        """The backend itself, which the caller closes.

        Raises:
            BackendError, ConfigError: the backend's own refusal. PluginError: it isn't a backend, or its factory broke.
        """
        plugin = self._bringer(offer)
        with blaming(plugin.error, f"its backend {offer.name}", refusals=True):
            backend = offer.factory(site)
        missing = [name for name in _MEMBERS if not hasattr(backend, name)]
        if missing:
            raise plugin.error(f"what it made as backend {offer.name} has no {', '.join(missing)}")
        if backend.api_version != API_VERSION:
            raise plugin.error(f"backend {offer.name}: {version_problem(backend)}")
        return backend

    def open_source(self, offer: SourcePlugin, declaration: Declaration) -> RuleSource:
        """The rule source itself, which the caller closes; errors as for :meth:`open_backend`."""
        plugin = self._bringer(offer)
        with blaming(plugin.error, f"its source {offer.name}", refusals=True):
            source = offer.factory(declaration)
        missing = [name for name in ("name", "load", "changes", "close") if not hasattr(source, name)]
        if missing:
            raise plugin.error(f"what it made as source {offer.name} has no {', '.join(missing)}")
        return source

    def blaming(self, offer: BackendPlugin | SourcePlugin | CommandPlugin) -> AbstractContextManager[None]:
        """A block in which the offer's plugin is at work: what it raises that isn't meshfw's own error is its error."""
        return blaming(self._bringer(offer).error, offer.name, refusals=True)

    def _bringer(self, offer: BackendPlugin | SourcePlugin | CommandPlugin) -> LoadedPlugin:
        return next(
            plugin for plugin in self._loader.plugins if offer in (*plugin.backends, *plugin.sources, *plugin.commands)
        )

    def language(self, hosts: HostTables | None = None) -> Language:
        """The language of the built-in extensions and those of the plugins that take part.

        Ask when backend and sources are chosen, since choosing a plugin makes it take part.

        Raises:
            PluginError: a chosen plugin's extensions are broken, or two plugins claim one name.
        """
        language = Language.of(self._loader.values(self._built_in, "meshfw_extensions", Extension), hosts=hosts)
        names = dict.fromkeys(_extension_names(language.by_value.values()), BUILT_IN)
        for plugin in self._active()[1:]:
            try:
                extensions = self._loader.values(plugin, "meshfw_extensions", Extension)
                language = _extended(language, extensions, plugin, names)
            except PluginError as error:
                if plugin in self._chosen:
                    raise
                self._loader.problems.append(error)
        return language

    def reconciled(self, report: Report) -> tuple[str, ...]:
        """Tell the plugins that take part of a reconcile; a warning for each that failed at it."""
        warnings = []
        for plugin in self._active():
            try:
                self._loader.call(plugin, "meshfw_reconciled", report=report)
            except PluginError as error:
                warnings.append(str(error))
        return tuple(warnings)


_MEMBERS: Final = tuple(name for name in vars(Backend) if not name.startswith("_"))


def _extended(
    language: Language, extensions: Collection[Extension], plugin: LoadedPlugin, names: dict[str, str]
) -> Language:
    """The language and a plugin's extensions; ``names`` says whose each name is, and learns the new ones."""
    for name in _extension_names(extensions):
        if name in names:
            raise plugin.error(f"it brings an extension {name}, and {names[name]} has one already")
    try:
        language = language.extended(extensions)
    except PluginError as error:
        raise plugin.error(f"its extension claims {error.plugin}, and another has that already") from error
    names.update(dict.fromkeys(_extension_names(extensions), plugin.distribution))
    return language


def _extension_names(extensions: Iterable[Extension]) -> list[str]:
    return [name for extension in extensions for name in (extension.name, *extension.aliases)]


__all__ = [
    "AUTO",
    "BUILT_IN",
    "BuiltIn",
    "ListedBackend",
    "Plugins",
    "Sighting",
    "Sites",
    "Verdict",
    "blaming",
    "installed",
    "room",
    "standing",
    "unavailable",
    "unread",
    "untold",
]
