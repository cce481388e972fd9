"""The configuration: a TOML file read into one value, each mistake named with file, key and what was expected."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

import msgspec

from meshfw.errors import ConfigError
from meshfw.plugins import AUTO
from meshfw.probe import Probing, read_probing
from meshfw.settings import AgentSettings, HistorySettings, agent_settings, history_settings
from meshfw.source import Settings, described, shown

NEAR: Final = "meshfw.toml"
"""The configuration of the current directory, which is looked for first."""
SYSTEM: Final = "/etc/meshfw/meshfw.toml"
OWNER: Final = "meshfw"
"""The owner of a configuration that names none."""

_OWNER: Final = re.compile(r"[a-z][a-z0-9]{0,9}\Z")
_TAKEN: Final[Mapping[str, str]] = {
    "antrea": "Antrea",
    "cali": "Calico",
    "calico": "Calico",
    "cilium": "Cilium",
    "cni": "the CNI plugins",
    "crowdsec": "CrowdSec",
    "docker": "Docker",
    "f2b": "fail2ban",
    "fail2ban": "fail2ban",
    "filter": "iptables",
    "firewalld": "firewalld",
    "flannel": "flannel",
    "incus": "Incus",
    "istio": "Istio",
    "kube": "kube-proxy",
    "libvirt": "libvirt",
    "lxc": "LXC",
    "lxd": "LXD",
    "mangle": "iptables",
    "nat": "iptables",
    "netavark": "Podman",
    "podman": "Podman",
    "raw": "iptables",
    "security": "iptables",
    "tailscale": "Tailscale",
    "ts": "Tailscale",
    "ufw": "ufw",
    "weave": "Weave Net",
}
"""Owners that are refused: chains and tables of that name or prefix belong to another tool."""
_KEYWORDS: Final = frozenset(
    "accept add all and arp bridge cgroup chain comment constant continue counter cpu create ct day define delete "
    "describe destroy device devices dnat drop dup dynamic ecn element elements ether exists expires export exthdr fib "
    "flags flow flowtable flush fwd goto handle hook hour ibriport ibrname icmp icmpv6 iif iifgroup iifname iiftype "
    "index inet insert interval ip ip6 ipsec jhash jump last limit list log map mark masquerade meta meter missing "
    "netdev nftrace not notrack numgen obriport obrname offload oif oifgroup oifname oiftype or osf policy priority "
    "queue quota redirect reject rename replace reset return rt rt0 rt2 rtclassid rule ruleset sctp secmark set size "
    "skgid skuid snat socket srh symhash synproxy table tcp th time timeout tproxy type typeof update vmap xt".split()
)
"""Words of nft's grammar (tried one by one with nft 1.0.6, and newer ones): no table can bear such a name."""
_DOUBTFUL: Final[Mapping[str, str]] = {"kilo": "Kilo writes chains of that prefix itself: stop it first"}


class Ipv6(StrEnum):
    """What becomes of the IPv6 half of the rules."""

    AUTO = "auto"
    """It is kept where the host has IPv6, and left out with a warning where it hasn't."""
    REQUIRE = "require"
    """A host without IPv6 is an error as soon as there are IPv6 rules."""
    OFF = "off"
    """It is left out everywhere."""


class SourceTable(msgspec.Struct, frozen=True):
    """One ``[[source]]`` table: its type, its key path, and its other keys."""

    type: str
    path: str
    options: Mapping[str, Any] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration.

    ``file`` is where it came from, empty for the defaults; ``options`` are the tables ``[backend.NAME]``; ``tables``
    the configuration's own ``chain`` and ``set`` tables; ``agent`` how the agent works, ``history`` what is kept of
    the past, ``safety`` what has to answer after a change; ``warnings`` what its author should know.
    """

    file: str = ""
    backend: str = AUTO
    owner: str = OWNER
    ipv6: Ipv6 = Ipv6.AUTO
    plugins: bool | tuple[str, ...] = ()
    sources: tuple[SourceTable, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = {}
    tables: Mapping[str, Any] = {}
    agent: AgentSettings = AgentSettings()
    safety: Probing = Probing()
    history: HistorySettings = HistorySettings()
    warnings: tuple[str, ...] = ()

    def error(self, reason: str, *, key: str = "", expected: str = "") -> ConfigError:
        """The error of one of its keys."""
        return ConfigError(reason, file=self.file, key=key, expected=expected)

    @contextmanager
    def naming_file(self) -> Iterator[None]:
        """A block whose ConfigErrors name the configuration's file, unless they are of the command line's options."""
        try:
            yield
        except ConfigError as error:
            if error.file or error.key.startswith("--"):
                raise
            raise self.error(error.reason, key=error.key, expected=error.expected) from error


def find_config(named: str | None = None) -> str | None:
    """The path of the configuration: the one named, or the first there is, here or the system's; None without any."""
    if named is not None:
        return named
    return next((path for path in (NEAR, SYSTEM) if os.path.exists(path)), None)


def load_config(path: str) -> Config:
    """The configuration of a file.

    Raises:
        ConfigError: it can't be read, is no TOML, or says something that can't be meant.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        remedy = "a readable TOML file; --config FILE names another"
        raise ConfigError(f"can't be read: {error.strerror or error}", file=path, expected=remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} is not UTF-8", file=path, expected="a TOML file, which is UTF-8"
        ) from error
    return parse_config(text, file=path)


def parse_config(text: str, *, file: str = "") -> Config:
    """The configuration that a TOML text says; ``ConfigError`` as for :func:`load_config`."""
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        twice = re.search(r"^\s*\[backend\.", text, re.MULTILINE) and re.search(r"^\s*backend\s*=", text, re.MULTILINE)
        expected = f'{_NAME_AND_TABLE}: write {_USE} in place of backend = "..."' if twice else "TOML 1.0"
        raise ConfigError(f"not valid TOML: {error}", file=file, expected=expected) from None
    return _config(Settings(table, file=file))


_USE: Final = 'backend.use = "..."'
_NAME_AND_TABLE: Final = "backend to be a name or a table, since TOML can't hold it as both"


def _config(settings: Settings) -> Config:
    owner, warning = _owner(settings)
    backend, options = _backend(settings)
    ipv6 = settings.choice("ipv6", Ipv6, Ipv6.AUTO)
    plugins = _plugins(settings)
    sources = tuple(_source(table) for table in settings.tables("source"))
    tables = {name: value for name in ("chain", "set") if (value := settings.any(name)) is not None}
    agent = agent_settings(_table(settings, "agent"))
    safety = read_probing(_table(settings, "safety"))
    history = history_settings(_table(settings, "history"))
    settings.finish()
    for name, value in tables.items():
        if not isinstance(value, list | dict):
            raise settings.error(f"{shown(value)} is {described(value)}", key=name, expected=f"[[{name}]] tables")
    if tables and not any(source.type == "rules" for source in sources):
        sources = (SourceTable("rules", "chain"), *sources)
    return Config(
        file=settings.file,
        backend=backend,
        owner=owner,
        ipv6=ipv6,
        plugins=plugins,
        sources=sources,
        options=options,
        tables=tables,
        agent=agent,
        safety=safety,
        history=history,
        warnings=(warning,) if warning else (),
    )


def _owner(settings: Settings) -> tuple[str, str]:
    owner = settings.take("owner", str, OWNER)
    if not _OWNER.match(owner):
        expected = "a lower-case letter and up to 9 more or digits: it begins the names of chains"
        raise settings.error(f"{owner!r} can't be an owner", key="owner", expected=expected)
    if owner in _KEYWORDS:
        raise settings.error(f"{owner!r} is a word of nft's own language", key="owner", expected="a name of your own")
    if owner in _TAKEN:
        raise settings.error(f"{owner!r} is a name of {_TAKEN[owner]}", key="owner", expected="a name of your own")
    return owner, f"owner {owner}: {_DOUBTFUL[owner]}" if owner in _DOUBTFUL else ""


def _backend(settings: Settings) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """The backend's name and the options of each: ``backend = NAME``, or a table with ``use`` and one for each name."""
    value = settings.any("backend")
    if value is None or isinstance(value, str):
        if value == "":
            raise settings.error("the name is empty", key="backend", expected="auto, nft, or another backend's name")
        return value or AUTO, {}
    if not isinstance(value, dict):
        expected = "a backend's name, or a table with use = NAME and a table of options for each backend"
        raise settings.error(f"{shown(value)} is {described(value)}", key="backend", expected=expected)
    table = Settings(value, file=settings.file, path="backend")
    name = table.take("use", str, AUTO) or AUTO
    options = table.rest()
    for key, entry in options.items():
        if not isinstance(entry, dict):
            raise table.error("unknown key", key=key, expected=f"use = NAME, or a table [backend.{key}] of options")
    return name, options


def _plugins(settings: Settings) -> bool | tuple[str, ...]:
    value = settings.any("plugins")
    if isinstance(value, bool):
        return value
    return Settings({"plugins": value} if value is not None else {}, file=settings.file).strings("plugins")


def _table(settings: Settings, name: str) -> Settings:
    """A table of the configuration that may be left out."""
    value = settings.any(name)
    if value is not None and not isinstance(value, dict):
        raise settings.error(f"{shown(value)} is {described(value)}", key=name, expected=f"a table [{name}]")
    return Settings(value or {}, file=settings.file, path=settings.key(name))


def _source(table: Settings) -> SourceTable:
    kind = table.required("type", expected='"rules", "iptables-save", "iptables-script" or a plugin\'s')
    return SourceTable(kind, table.path, dict(table.rest()))
