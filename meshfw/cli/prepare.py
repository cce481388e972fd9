"""From the arguments to what every verb works with: configuration, plugins, language, rules, backend."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from meshfw.backend import Backend, Site
from meshfw.config import Config, Ipv6, find_config, fit_families, load_config, load_rules
from meshfw.errors import ConfigError
from meshfw.extensions.language import Language
from meshfw.hookspecs import BackendPlugin
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Rule, Ruleset
from meshfw.plan import Formatter
from meshfw.plugins import AUTO, Plugins
from meshfw.sources.hosts import host_tables

_NO_CONFIG = "meshfw.toml here, /etc/meshfw/meshfw.toml, or --config FILE"


class Workshop:
    """A configuration with its plugins, and what they make: the language, the wanted rules, the backend.

    ``warnings`` collects what a person should know. Without ``needed`` a missing configuration means its defaults;
    without ``sources`` the configuration's rule sources are left alone, whatever state they are in.
    """

    def __init__(self, arguments: Namespace, *, needed: bool = True, sources: bool = True) -> None:
        path = find_config(arguments.config)
        if path is None and needed:
            raise ConfigError("there is no configuration", expected=_NO_CONFIG)
        self.config: Config = Config() if path is None else load_config(path)
        self.warnings: list[str] = list(self.config.warnings)
        self._netns: str | None = arguments.netns
        self._wanted = arguments.backend or self.config.backend
        self._wanted_key = "--backend" if arguments.backend else "backend"
        with self.config.naming_file():
            self.plugins = Plugins(self.config.plugins)
            # Chosen before the language is made: a plugin's extensions take part with its backend or source.
            self._named = None if self._wanted == AUTO else self._choose()
            for table in self.config.sources if sources else ():
                self.plugins.source(table.type, key=f"{table.path}.type")
            self._check_options()
        self.language: Language = self.plugins.language(host_tables())
        self.warnings += self.plugins.problems

    def _choose(self) -> BackendPlugin:
        return self.plugins.backend(self._wanted, key=self._wanted_key)

    def _check_options(self) -> None:
        """Refuse options of a backend that nobody has: a name mistyped would leave them unheard."""
        for name in self.config.options:
            if name != self._wanted and not self.plugins.has_backend(name):
                self.plugins.backend(name, key=f"backend.{name}")

    @property
    def site(self) -> Site:
        """Where and as whom the backend works; its options are those of the backend that was named."""
        return Site(owner=self.config.owner, language=self.language, netns=self._netns)

    def rules(self) -> Ruleset:
        """The wanted rules of both families."""
        return load_rules(self.config, plugins=self.plugins, language=self.language)

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """The backend, open for a block."""
        offer = self._named or self.plugins.usable()
        site = msgspec.structs.replace(self.site, options=self.config.options.get(offer.name, {}))
        with self.config.naming_file():
            backend = self.plugins.open_backend(offer, site)
        try:
            with self.plugins.blaming(offer):
                yield backend
        finally:
            backend.close()

    def fitted(self, ruleset: Ruleset, backend: Backend) -> Ruleset:
        """The part of the rules that the host and the backend can hold, with a warning about the rest."""
        from meshfw.backends.instance import host_families

        available = backend.capabilities.families
        if backend.capabilities.kernel and self.config.ipv6 is not Ipv6.OFF:
            available &= host_families(self._netns)
        with self.config.naming_file():
            fitting, warnings = fit_families(ruleset, available, ipv6=self.config.ipv6)
        self.warnings += warnings
        return fitting

    @property
    def formatter(self) -> Formatter:
        """Rules as iptables-save prints them."""

        def text(rule: Rule, family: Family) -> str:
            return format_rule(rule, family=family, language=self.language)

        return text
