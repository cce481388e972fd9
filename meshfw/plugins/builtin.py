"""The plugin that meshfw itself is: registered in code, through the hooks that every plugin has."""

from __future__ import annotations

from collections.abc import Iterable

from meshfw.backend import Backend, Site
from meshfw.extensions import builtin_extensions
from meshfw.extensions.extension import Extension
from meshfw.hookspecs import BackendPlugin, Presence, SourcePlugin, hookimpl
from meshfw.source import Declaration, RuleSource


class BuiltIn:
    """The plugin that meshfw itself is; what it offers is imported when it's chosen."""

    @hookimpl
    def meshfw_backends(self) -> Iterable[BackendPlugin]:
        """The nft backend, the two of iptables, and the memory backend."""
        return (
            BackendPlugin(
                name="nft",
                factory=_nft,
                summary="native nf_tables, both families in one transaction, no process",
                unavailable=_nft_unavailable,
                automatic=10,
                presence=_nft_presence,
            ),
            BackendPlugin(
                name="iptables-nft",
                factory=_iptables_nft,
                summary="iptables' tables in nf_tables, one process for each changed family",
                unavailable=_iptables_nft_unavailable,
                automatic=20,
                presence=_iptables_nft_presence,
            ),
            BackendPlugin(
                name="iptables-legacy",
                factory=_iptables_legacy,
                summary="iptables' own tables, one process for each changed family",
                unavailable=_iptables_legacy_unavailable,
                automatic=30,
                presence=_iptables_legacy_presence,
            ),
            BackendPlugin(
                name="memory",
                factory=_memory,
                summary="a kernel of text inside this process, forgotten when it ends; for tests and trials",
            ),
        )

    @hookimpl
    def meshfw_sources(self) -> Iterable[SourcePlugin]:
        """The configuration's own tables, dumps, and scripts."""
        return (
            SourcePlugin(name="rules", factory=_rules, summary="the configuration's own [[chain]] and [[set]] tables"),
            SourcePlugin(name="iptables-save", factory=_dump, summary="dumps of iptables-save, one for each family"),
            SourcePlugin(
                name="iptables-script", factory=_script, summary="iptables and ip6tables commands of a script"
            ),
        )

    @hookimpl
    def meshfw_extensions(self) -> Iterable[Extension]:
        """Every extension with a typed value."""
        return builtin_extensions()


def _nft(site: Site) -> Backend:
    from meshfw.backends.nft import NftBackend

    return NftBackend(site)


def _nft_unavailable() -> str | None:
    from meshfw.backends.instance import nft_unavailable

    return nft_unavailable()


def _nft_presence(site: Site) -> Presence:
    from meshfw.backends.presence import nft_presence

    return nft_presence(site)


def _iptables_nft(site: Site) -> Backend:
    from meshfw.backends.iptables import iptables_nft

    return iptables_nft(site)


def _iptables_nft_unavailable() -> str | None:
    from meshfw.backends.instance import iptables_nft_unavailable

    return iptables_nft_unavailable()


def _iptables_nft_presence(site: Site) -> Presence:
    from meshfw.backends.presence import iptables_nft_presence

    return iptables_nft_presence(site)


def _iptables_legacy(site: Site) -> Backend:
    from meshfw.backends.iptables import iptables_legacy

    return iptables_legacy(site)


def _iptables_legacy_unavailable() -> str | None:
    from meshfw.backends.instance import iptables_legacy_unavailable

    return iptables_legacy_unavailable()


def _iptables_legacy_presence(site: Site) -> Presence:
    from meshfw.backends.presence import iptables_legacy_presence

    return iptables_legacy_presence(site)


def _memory(site: Site) -> Backend:
    from meshfw.backends.memory import MemoryBackend

    return MemoryBackend(site)


def _rules(declaration: Declaration) -> RuleSource:
    from meshfw.sources.rules import RulesSource

    return RulesSource(declaration)


def _dump(declaration: Declaration) -> RuleSource:
    from meshfw.sources.dump import DumpSource

    return DumpSource(declaration)


def _script(declaration: Declaration) -> RuleSource:
    from meshfw.sources.script import ScriptSource

    return ScriptSource(declaration)
