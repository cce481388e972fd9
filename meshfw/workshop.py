"""From what was asked for to what verbs and agent work with: configuration, plugins, language, rules, backend."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Protocol

import msgspec

from meshfw.backend import Backend, Site
from meshfw.backends.remembered import forget, recall, remember
from meshfw.config import Config, Ipv6, find_config, load_config
from meshfw.errors import BackendError, ConfigError, PluginError
from meshfw.extensions.language import Language
from meshfw.history import History
from meshfw.hookspecs import BackendPlugin, nothing
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Rule, Ruleset
from meshfw.plan import Formatter
from meshfw.plugins import AUTO, Plugins, Sighting, standing, unread, untold
from meshfw.proofs import Proofs
from meshfw.sources.hosts import host_tables
from meshfw.wanted import Sources, fit_families

_NO_CONFIG = "meshfw.toml here, /etc/meshfw/meshfw.toml, or --config FILE"


class Where(Protocol):
    """What a command line or a service says of the configuration, the backend and the place; None: as usual."""

    @property
    def config(self) -> str | None:
        """The configuration's file."""
        ...

    @property
    def backend(self) -> str | None:
        """The backend, whatever is configured."""
        ...

    @property
    def netns(self) -> str | None:
        """The network namespace, by name or path."""
        ...


def _configuration(where: Where, *, needed: bool) -> Config:
    path = find_config(where.config)
    if path is None and needed:
        raise ConfigError("there is no configuration", expected=_NO_CONFIG)
    return Config() if path is None else load_config(path)


class Workshop:
    """A configuration with its plugins, and what they make: the language, the wanted rules, the backend.

    ``warnings`` collects what a person should know, ``notes`` what one who asks for more detail may want to. Without
    ``needed`` a missing configuration means its defaults; without ``sources`` the configuration's rule sources are left
    alone, whatever state they are in. ``config`` is a configuration to work with rather than any file, ``key`` what a
    backend of the command line's is called in errors.
    """

    def __init__(
        self,
        where: Where,
        *,
        needed: bool = True,
        sources: bool = True,
        config: Config | None = None,
        key: str = "--backend",
    ) -> None:
        self.config: Config = _configuration(where, needed=needed) if config is None else config
        self.warnings: list[str] = list(self.config.warnings)
        self.notes: list[str] = []
        self._doubt = self._preferred = ""
        self._netns = where.netns
        self._config = where.config
        self._wanted = where.backend or self.config.backend
        self._wanted_key = key if where.backend else "backend"
        with self.config.naming_file():
            self.plugins = Plugins(self.config.plugins)
            # Chosen before the language is made: a plugin's extensions take part with its backend or source.
            self._named = None if self._wanted == AUTO else self._choose()
            self._bring_configured()
            for table in self.config.sources if sources else ():
                self.plugins.source(table.type, key=f"{table.path}.type")
            self._check_options()
        self.language: Language = self.plugins.language(host_tables())
        self.warnings += self.plugins.problems

    def _choose(self) -> BackendPlugin:
        return self.plugins.backend(self._wanted, key=self._wanted_key)

    def _bring_configured(self) -> None:
        """Have the configuration's backend take part beside the command line's: rules of ours may stand there."""
        name = self.config.backend
        if name in (AUTO, self._wanted) or not self.plugins.has_backend(name):
            return
        try:
            self.plugins.backend(name)
        except PluginError as error:  # broken, which is why another one may have been named
            self.warnings.append(untold(name, str(error)))

    def _check_options(self) -> None:
        """Refuse options of a backend that nobody has: a name mistyped would leave them unheard."""
        for name in self.config.options:
            if name != self._wanted and not self.plugins.has_backend(name):
                self.plugins.backend(name, key=f"backend.{name}")

    @property
    def site(self) -> Site:
        """Where and as whom every backend works, without the options of any."""
        return Site(owner=self.config.owner, language=self.language, netns=self._netns)

    def site_of(self, offer: BackendPlugin) -> Site:
        """Where and as whom one backend works."""
        return msgspec.structs.replace(self.site, options=self.config.options.get(offer.name, {}))

    def rules(self) -> Ruleset:
        """The wanted rules of both families."""
        with self.sources() as sources:
            return self.loaded(sources)

    @contextmanager
    def sources(self) -> Iterator[Sources]:
        """The rule sources, open for a block."""
        with closing(Sources(self.config, plugins=self.plugins, language=self.language)) as sources:
            yield sources

    def loaded(self, sources: Sources) -> Ruleset:
        """What the sources want now; the warnings tell what they doubt."""
        wanted = sources.load()
        self.warnings += (*sources.warnings, *sources.doubts())
        return wanted

    @cached_property
    def sightings(self) -> tuple[Sighting, ...]:
        """What stands where each backend keeps its rules, looked at once: a writer asks first when it has the lock."""
        return self.plugins.look(self.site_of)

    @cached_property
    def everywhere(self) -> tuple[Sighting, ...]:
        """The same of every installed backend, for who leaves none of our rules behind; warns of broken plugins."""
        found = (*self.sightings, *self.plugins.look_beyond(self.site_of))
        self.warnings += [problem for problem in self.plugins.problems if problem not in self.warnings]
        return found

    @cached_property
    def offer(self) -> BackendPlugin:
        """The backend that was named, or else the one that auto takes here; the warnings tell what it met."""
        if self._named is not None:
            return self._named
        remembered, odd = (self._preferred, "") if self._preferred else recall(self.config.owner, self._netns)
        verdict = self.plugins.automatic(self.sightings, remembered=remembered)
        told = [*([odd] if odd else []), *verdict.warnings]
        self.warnings += [warning for warning in told if warning not in self.warnings]
        self.notes.append(f"auto takes {verdict.name}: {verdict.reason}")
        self._doubt = verdict.doubt
        return self.plugins.usable(verdict)

    def look_again(self) -> None:
        """Forget what stood where and which backend auto took: who was refused tries again in another world."""
        for name in ("sightings", "everywhere", "offer"):
            vars(self).pop(name, None)
        self._doubt = ""

    def prefer(self, backend: str) -> None:
        """Have auto take this for the backend that it took last time; to be said before it chooses."""
        self._preferred = backend

    @contextmanager
    def backend(self, offer: BackendPlugin | None = None) -> Iterator[Backend]:
        """The backend, or the one of an offer, open for a block."""
        offer = offer or self.offer
        with self.config.naming_file():
            backend = self.plugins.open_backend(offer, self.site_of(offer))
        try:
            with self.plugins.blaming(offer):
                yield backend
        finally:
            backend.close()

    def proofs(self, backend: Backend) -> Proofs:
        """What earlier processes proved of the place where the backend works."""
        from meshfw import __version__
        from meshfw.backends.instance import place_of

        return Proofs(place_of(self.site, backend.name), release=__version__)

    def fitted(self, ruleset: Ruleset, backend: Backend) -> Ruleset:
        """The part of the rules that the host and the backend can hold, with a warning about the rest."""
        from meshfw.backends.instance import host_families

        available = backend.capabilities.families
        if backend.capabilities.kernel and self.config.ipv6 is not Ipv6.OFF:
            available &= host_families(self._netns)
        with self.config.naming_file():
            fitting, warnings = fit_families(ruleset, available, ipv6=self.config.ipv6)
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
        return fitting

    def elsewhere(self, backend: Backend) -> BackendError | None:
        """The reason why nothing may be written here: rules of ours stand in another backend, or may; else None."""
        found = self._others(backend)
        if not found:
            return self.undecided()
        ways = [f"--backend {found[0].offer.name}"] if len(found) == 1 else []
        commands = " or ".join(self.command(f"clean {way}") for way in [*ways, "--all-backends"])
        move = f"{self.command(f'migrate --to {backend.name}')} moves them while packets flow; or " if ways else ""
        return BackendError(
            f"rules of {self.config.owner} stand in {_places(found)}, and packets would meet both",
            backend=backend.name,
            remedy=f"{move}take those away by {commands}, then apply again",
        )

    def undecided(self) -> BackendError | None:
        """The reason why auto may have taken the wrong backend; None where it's sure, or one was named."""
        if not self._doubt:
            return None
        name = self.offer.name
        return BackendError(
            f"it isn't sure to take {name}, since {self._doubt}",
            backend=AUTO,
            remedy=f"try again, or name the one that you mean, such as --backend {name}",
        )

    def warn_elsewhere(self, backend: Backend) -> None:
        """Warn of what would make ``apply`` refuse to write, and of what nobody can tell."""
        refusal = self.elsewhere(backend)
        if refusal is not None:
            self.warnings.append(f"apply would refuse: {refusal}")
        self.warn_unread(backend)

    def warn_unread(self, backend: Backend) -> None:
        """Warn of other backends where rules of ours may stand unseen.

        In a user namespace what is denied is denied to every meshfw there, so none wrote such rules: that is a note.
        """
        if self._doubt or not backend.capabilities.kernel:
            return
        from meshfw.backends.instance import only_root_of_users

        for item in unread(self.sightings, beside=self.offer):
            usual = item.denied and only_root_of_users()
            (self.notes if usual else self.warnings).append(untold(item.offer.name, item.unread))

    def warn_left(self, backend: Backend) -> None:
        """Warn of rules of ours that cleaning one backend leaves in others, or may leave there."""
        self.warn_unread(backend)
        found = self._others(backend)
        if found:
            everything = self.command("clean --all-backends")
            self.warnings.append(f"rules of {self.config.owner} stand in {_places(found)} still: {everything}")

    def _others(self, backend: Backend) -> tuple[Sighting, ...]:
        """The other backends in which rules of ours stand; none where this one's rules meet no packets."""
        return standing(self.sightings, beside=self.offer) if backend.capabilities.kernel else ()

    def command(self, words: str) -> str:
        """A command line for the same configuration and network namespace, in quotes."""
        options = [("--config", self._config), ("--netns", self._netns)]
        given = "".join(f" {name} {shlex.quote(value)}" for name, value in options if value is not None)
        return f"'meshfw {words}{given}'"

    def standing(self) -> list[tuple[BackendPlugin, str]]:
        """The backends in which rules of ours stand, and which in words; the named one too, where it can't tell."""
        told = [(item.offer, item.presence.own) for item in standing(self.everywhere)]
        if self._named is not None and self._named.presence is nothing:
            told.append((self._named, "what rules there are"))
        return told

    def unread(self) -> tuple[str, ...]:
        """Of which backends that can be used here nobody can tell what stands there, and why: a text each."""
        return tuple(untold(item.offer.name, item.unread) for item in unread(self.everywhere))

    @cached_property
    def history(self) -> History:
        """The states that were applied here."""
        return History(self.config.owner, self._netns, self.language, keep=self.config.history.keep)

    def remember(self, backend: Backend) -> None:
        """Keep what auto took for the next time, where it was auto that took it."""
        if self._named is None:
            why_not = remember(self.config.owner, self._netns, backend.name)
            note = f"not remembered for the next time: {why_not}"
            if why_not and note not in self.notes:
                self.notes.append(note)

    def forget(self, backend: str | None = None) -> None:
        """Keep no longer what auto took, whatever that was or if it was this backend."""
        if backend is None or recall(self.config.owner, self._netns)[0] == backend:
            why_not = forget(self.config.owner, self._netns)
            if why_not:
                self.notes.append(f"still remembered for the next time: {why_not}")

    @property
    def formatter(self) -> Formatter:
        """Rules as iptables-save prints them."""

        def text(rule: Rule, family: Family) -> str:
            return format_rule(rule, family=family, language=self.language)

        return text


def _places(found: Sequence[Sighting]) -> str:
    return " and in ".join(f"{item.offer.name} ({item.presence.own})" for item in found)
