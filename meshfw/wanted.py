"""What a configuration wants of a host: its sources, opened, loaded and merged, and fitted to the host's families."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import Final

from meshfw.backend import Report
from meshfw.config import Config, Ipv6, SourceTable
from meshfw.errors import ConfigError, MeshfwError, PluginError
from meshfw.extensions.language import Language
from meshfw.hookspecs import SourcePlugin
from meshfw.model import Family, Policy, Ruleset
from meshfw.plugins import Plugins
from meshfw.source import Acknowledging, Changes, Declaration, Doubting, RuleSource, merge


def load_rules(config: Config, *, plugins: Plugins, language: Language, warnings: list[str] | None = None) -> Ruleset:
    """The ruleset of all sources, merged; errors as for :class:`Sources`. ``warnings`` gets theirs."""
    with closing(Sources(config, plugins=plugins, language=language)) as sources:
        ruleset = sources.load()
    if warnings is not None:
        warnings += sources.warnings
    return ruleset


class Sources:
    """The rule sources of a configuration, open until they're closed: what they want together, and word of changes.

    Raises:
        ConfigError: no source is declared (nothing wanted is said by cleaning up, never by silence), or one is declared
            wrongly. Whatever a source raises when it is made.
    """

    def __init__(self, config: Config, *, plugins: Plugins, language: Language) -> None:
        if not config.sources:
            raise config.error(
                "it declares no rules", expected="[[chain]] tables or a [[source]]; 'meshfw clean' takes ours away"
            )
        self._config = config
        self._plugins = plugins
        self._open: list[tuple[SourceTable, SourcePlugin, RuleSource]] = []
        self.warnings: tuple[str, ...] = ()
        """What the sources told of at the last load, each with its place."""
        self._heard: list[tuple[SourcePlugin, RuleSource]] = []
        try:
            with config.naming_file():
                for table in config.sources:
                    offer = plugins.source(table.type, key=f"{table.path}.type")
                    declaration = Declaration(
                        options=table.options,
                        language=language,
                        file=config.file,
                        path=table.path,
                        tables=config.tables,
                    )
                    self._open.append((table, offer, plugins.open_source(offer, declaration)))
        except BaseException:
            self.close()
            raise

    def load(self) -> Ruleset:
        """The ruleset of all of them, merged.

        Raises:
            ConfigError: two of them contradict each other, or together they want nothing. Whatever a source raises,
                ConfigError and ParseError among it.
        """
        self._heard.clear()
        with self._config.naming_file():
            ruleset = merge([self._load(*entry) for entry in self._open])
        self.warnings = tuple(text for entry in self._open for text in self._told(*entry))
        decides = any(chain.rules for chain in ruleset.chains) or any(
            attachment.policy is not Policy.RETURN for attachment in ruleset.attachments
        )
        if not decides:
            raise self._config.error(
                "its sources yield no rule and no policy, so everything of ours would go",
                expected="at least one rule; 'meshfw clean' takes ours away",
            )
        return ruleset

    def _load(self, table: SourceTable, offer: SourcePlugin, source: RuleSource) -> tuple[str, Ruleset]:
        self._heard.append((offer, source))
        with self._plugins.blaming(offer):
            name, ruleset = source.name, source.load()
        if not isinstance(ruleset, Ruleset):
            raise PluginError(f"source {offer.name} gave {ruleset!r}, which is no ruleset", plugin=offer.name)
        return f"{table.path} ({name})", ruleset

    def _told(self, table: SourceTable, offer: SourcePlugin, source: RuleSource) -> list[str]:
        """What a source passed over, each with its place; a plugin whose words are none is to blame for it."""
        with self._plugins.blaming(offer):
            return [f"{table.path}: {text}" for text in _texts(getattr(source, "warnings", ()), "warnings")]

    # --- what became of it ---

    def doubts(self) -> tuple[str, ...]:
        """What a person should know of what was loaded last."""
        found: list[str] = []
        for offer, source in self._heard:
            if isinstance(source, Doubting):
                with self._plugins.blaming(offer):
                    found += _texts(source.doubts(), "doubts")
        return tuple(found)

    def applied(self, report: Report) -> tuple[str, ...]:
        """Tell the sources that the kernel holds what was loaded last; a warning for each that failed at that."""
        return self._tell(lambda source: source.applied(report))

    def refused(self, reason: str) -> tuple[str, ...]:
        """Tell the sources, as far as they were asked, that what was loaded last isn't in place."""
        return self._tell(lambda source: source.refused(reason))

    def _tell(self, word: Callable[[Acknowledging], None]) -> tuple[str, ...]:
        warnings = []
        for offer, source in self._heard:
            if isinstance(source, Acknowledging):
                try:
                    with self._plugins.blaming(offer):
                        word(source)
                except MeshfwError as error:
                    warnings.append(f"it wasn't acknowledged: {error}")
        return tuple(warnings)

    # --- until it's closed ---

    def changes(self) -> tuple[Changes, ...]:
        """Word of changes, of each source that gives it."""
        found = []
        for _, offer, source in self._open:
            with self._plugins.blaming(offer):
                changes = source.changes()
            if changes is not None:
                found.append(changes)
        return tuple(found)

    def close(self) -> None:
        """Give back what the sources hold."""
        self._heard.clear()
        while self._open:
            self._open.pop()[2].close()


def _texts(told: object, what: str) -> list[str]:
    """What was told as the texts that it has to be: one string would be taken for a text for each of its letters."""
    if isinstance(told, Sequence) and not isinstance(told, str) and all(isinstance(text, str) for text in told):
        return list(told)
    raise TypeError(f"its {what} are {told!r}, which is no tuple of texts")


def fit_families(ruleset: Ruleset, available: Collection[Family], *, ipv6: Ipv6) -> tuple[Ruleset, tuple[str, ...]]:
    """The part of a ruleset that a host can hold, and a warning about the part left out.

    Raises:
        ConfigError: the host lacks a family that must not be left out.
    """
    missing = [family for family in Family if family in ruleset.families and family not in available]
    warnings = []
    for family in missing:
        if not matters(ruleset, family):
            continue
        rules = sum(len(chain.rules) for chain in ruleset.chains if chain.family is family)
        reason = f"this host or backend has no {_LABELS[family]}, and {rules} rules are for it"
        if family is Family.IPV4 or ipv6 is Ipv6.REQUIRE:
            remedy = 'a kernel with IPv6, or ipv6 = "auto" or "off"' if family is Family.IPV6 else "a kernel with IPv4"
            raise ConfigError(reason, key="ipv6" if family is Family.IPV6 else "", expected=remedy)
        if ipv6 is Ipv6.AUTO:
            warnings.append(f"{reason}: they are left out")
    left_out = {*missing, *([Family.IPV6] if ipv6 is Ipv6.OFF else [])}
    if not left_out & ruleset.families:
        return ruleset, ()
    return without_families(ruleset, left_out), tuple(warnings)


_LABELS: Final = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


def matters(ruleset: Ruleset, family: Family) -> bool:
    """Whether a family's part does anything to a packet: it holds a rule, or a policy."""
    policies = (item.policy for item in ruleset.attachments if item.family is family)
    ruled = any(chain.rules for chain in ruleset.chains if chain.family is family)
    return ruled or any(policy is not Policy.RETURN for policy in policies)


def without_families(ruleset: Ruleset, families: Collection[Family]) -> Ruleset:
    """The ruleset without all that is of some families."""
    return Ruleset(
        chains=tuple(chain for chain in ruleset.chains if chain.family not in families),
        sets=tuple(entry for entry in ruleset.sets if entry.family not in families),
        attachments=tuple(item for item in ruleset.attachments if item.family not in families),
    )
