"""meshfw keeps a Linux host's firewall the way its owner declared it.

These are the public names: what plugins and programs may rely on, together with the rooms ``iptables``, ``model`` and
``reconcile`` as wholes. Each is imported when it is first asked for, so that ``import meshfw`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from meshfw import iptables, model, reconcile
    from meshfw.backend import (
        API_VERSION,
        Atomicity,
        Backend,
        Cache,
        Capabilities,
        Committed,
        Costs,
        Event,
        Fingerprint,
        Narrowing,
        Observed,
        Outcome,
        Provable,
        Report,
        Site,
        Step,
        Transaction,
        Unsupported,
        Watch,
    )
    from meshfw.backends.instance import Completed, run_tool
    from meshfw.backends.memory import MemoryBackend
    from meshfw.backends.memory_kernel import MemoryKernel
    from meshfw.backends.nft_dialect import NftDialect
    from meshfw.backends.presence import nft_tables
    from meshfw.backends.remembered import state_directory
    from meshfw.config import Config, find_config, load_config, parse_config
    from meshfw.errors import (
        BackendError,
        CommandError,
        ConcurrentChangeError,
        ConfigError,
        FailedCommandError,
        FamilyError,
        FamilyParseError,
        InexpressibleError,
        KernelError,
        LockError,
        MeshfwError,
        ModelError,
        ParseError,
        PendingError,
        PluginError,
        RolledBackError,
        StateError,
        UnsupportedError,
        VerifyError,
    )
    from meshfw.extensions import builtin_extensions
    from meshfw.extensions.extension import Codec, Extension, HostTables, NftMatch, NftObject, Option, ParseContext
    from meshfw.extensions.language import Language
    from meshfw.files.inotify import FileChanges
    from meshfw.files.kept import KeptFile
    from meshfw.hookspecs import BackendPlugin, CommandPlugin, Presence, SourcePlugin, hookimpl
    from meshfw.languages.dump import format_dump, parse_dump, ruleset_of_dump
    from meshfw.languages.iptables import format_rule, parse_rule, parse_rules
    from meshfw.languages.script import parse_script
    from meshfw.model import (
        ACCEPT,
        DROP,
        RETURN,
        Attachment,
        Chain,
        ChainKey,
        Comment,
        Dispatcher,
        DispatcherKey,
        ElementType,
        Family,
        Goto,
        Hook,
        Interface,
        Jump,
        Match,
        Network,
        Not,
        OpaqueMatch,
        OpaqueTarget,
        Policy,
        Rule,
        Ruleset,
        Set,
        SetRef,
        Table,
        Target,
    )
    from meshfw.plan import Edit, ListChange, Plan, SetChange, diff
    from meshfw.plugins import Plugins
    from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot
    from meshfw.source import Acknowledging, Changes, Declaration, Doubting, RuleSource, Settings, merge
    from meshfw.sources.hosts import host_tables, resolve_host
    from meshfw.sources.rules import parse_ruleset
    from meshfw.wanted import load_rules

__version__: Final = "0.1.0"

_ROOMS: Final = {
    "meshfw.backend": (
        "API_VERSION Atomicity Backend Cache Capabilities Committed Costs Event Fingerprint Narrowing Observed Outcome "
        "Provable Report Site Step Transaction Unsupported Watch"
    ),
    "meshfw.backends.instance": "Completed run_tool",
    "meshfw.backends.memory": "MemoryBackend",
    "meshfw.backends.memory_kernel": "MemoryKernel",
    "meshfw.backends.remembered": "state_directory",
    "meshfw.backends.nft_dialect": "NftDialect",
    "meshfw.backends.presence": "nft_tables",
    "meshfw.config": "Config find_config load_config parse_config",
    "meshfw.errors": (
        "BackendError CommandError ConcurrentChangeError ConfigError FailedCommandError FamilyError FamilyParseError "
        "InexpressibleError KernelError LockError MeshfwError ModelError ParseError PendingError PluginError "
        "RolledBackError StateError UnsupportedError VerifyError"
    ),
    "meshfw.extensions": "builtin_extensions",
    "meshfw.extensions.extension": "Codec Extension HostTables NftMatch NftObject Option ParseContext",
    "meshfw.extensions.language": "Language",
    "meshfw.files.inotify": "FileChanges",
    "meshfw.files.kept": "KeptFile",
    "meshfw.hookspecs": "BackendPlugin CommandPlugin Presence SourcePlugin hookimpl",
    "meshfw.languages.dump": "format_dump parse_dump ruleset_of_dump",
    "meshfw.languages.iptables": "format_rule parse_rule parse_rules",
    "meshfw.languages.script": "parse_script",
    "meshfw.model": (
        "ACCEPT DROP RETURN Attachment Chain ChainKey Comment Dispatcher DispatcherKey ElementType Family "
        "Goto Hook Interface Jump Match Network Not OpaqueMatch OpaqueTarget Policy Rule Ruleset Set SetRef "
        "Table Target"
    ),
    "meshfw.plan": "Edit ListChange Plan SetChange diff",
    "meshfw.plugins": "Plugins",
    "meshfw.snapshot": "ListKey ObservedList ObservedRule Snapshot",
    "meshfw.source": "Acknowledging Changes Declaration Doubting RuleSource Settings merge",
    "meshfw.sources.hosts": "host_tables resolve_host",
    "meshfw.sources.rules": "parse_ruleset",
    "meshfw.wanted": "load_rules",
}
_HOMES: Final = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, imported from the room that it lives in (PEP 562)."""
    if name in ("iptables", "model", "reconcile"):
        return import_module(f"meshfw.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'meshfw' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})


__all__ = [
    "ACCEPT",
    "API_VERSION",
    "DROP",
    "RETURN",
    "Acknowledging",
    "Atomicity",
    "Attachment",
    "Backend",
    "BackendError",
    "BackendPlugin",
    "Cache",
    "Capabilities",
    "Chain",
    "ChainKey",
    "Changes",
    "Codec",
    "CommandError",
    "CommandPlugin",
    "Comment",
    "Committed",
    "Completed",
    "ConcurrentChangeError",
    "Config",
    "ConfigError",
    "Costs",
    "Declaration",
    "Dispatcher",
    "DispatcherKey",
    "Doubting",
    "Edit",
    "ElementType",
    "Event",
    "Extension",
    "FailedCommandError",
    "Family",
    "FamilyError",
    "FamilyParseError",
    "FileChanges",
    "Fingerprint",
    "Goto",
    "Hook",
    "HostTables",
    "InexpressibleError",
    "Interface",
    "Jump",
    "KeptFile",
    "KernelError",
    "Language",
    "ListChange",
    "ListKey",
    "LockError",
    "Match",
    "MemoryBackend",
    "MemoryKernel",
    "MeshfwError",
    "ModelError",
    "Narrowing",
    "Network",
    "NftDialect",
    "NftMatch",
    "NftObject",
    "Not",
    "Observed",
    "ObservedList",
    "ObservedRule",
    "OpaqueMatch",
    "OpaqueTarget",
    "Option",
    "Outcome",
    "ParseContext",
    "ParseError",
    "PendingError",
    "Plan",
    "PluginError",
    "Plugins",
    "Policy",
    "Presence",
    "Provable",
    "Report",
    "RolledBackError",
    "Rule",
    "RuleSource",
    "Ruleset",
    "Set",
    "SetChange",
    "SetRef",
    "Settings",
    "Site",
    "Snapshot",
    "SourcePlugin",
    "StateError",
    "Step",
    "Table",
    "Target",
    "Transaction",
    "Unsupported",
    "UnsupportedError",
    "VerifyError",
    "Watch",
    "builtin_extensions",
    "diff",
    "find_config",
    "format_dump",
    "format_rule",
    "hookimpl",
    "host_tables",
    "iptables",
    "load_config",
    "load_rules",
    "merge",
    "model",
    "nft_tables",
    "parse_config",
    "parse_dump",
    "parse_rule",
    "parse_rules",
    "parse_ruleset",
    "parse_script",
    "reconcile",
    "resolve_host",
    "ruleset_of_dump",
    "run_tool",
    "state_directory",
]
