"""What the runtime asks for: the environment and the configuration, checked, as one value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from meshfw import ConfigError, ModelError, Network, Settings
from meshfw_cni.problems import BAD_CONFIG, BAD_ENVIRONMENT, CniError
from meshfw_cni.versions import checked_result, require_version

DATA_DIRECTORY: Final = "/var/lib/cni/meshfw"
LOCK_TIMEOUT: Final = 60
"""Seconds to wait for other calls: runtimes start many pods at once, and give each of them minutes."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_INTERFACE: Final = re.compile(r"(?!\.\.?\Z)[^\s/:\0]{1,15}\Z")  # dev_valid_name() of the kernel
_OF_CNI: Final = (
    "cniVersion cniVersions name type args capabilities runtimeConfig prevResult ipam dns disableCheck disableGC "
    "loadOnlyInlinedPlugins"
).split()


class Policy(StrEnum):
    """Who may reach the pods of a network: ``accept`` lets them talk, ``isolate`` keeps pods of other networks out."""

    ACCEPT = "accept"
    ISOLATE = "isolate"


class Key(msgspec.Struct, frozen=True):
    """What names an attachment: its network, the container and the interface in it."""

    network: str
    container: str
    interface: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container}/{self.interface}"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call. ``result`` is what earlier plugins made, None where that wasn't given.

    ``pod_networks`` are further addresses of the network's own pods, such as those on other nodes.
    """

    command: str
    version: str
    network: str
    container: str = ""
    interface: str = ""
    masquerade: bool = False
    policy: Policy = Policy.ACCEPT
    backend: str = "auto"
    directory: str = DATA_DIRECTORY
    timeout: int = LOCK_TIMEOUT
    pod_networks: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    valid: frozenset[tuple[str, str]] = frozenset()

    @property
    def key(self) -> Key:
        """What names the attachment that it's about."""
        return Key(self.network, self.container, self.interface)


def read_request(command: str, environment: Mapping[str, str], config: Mapping[str, Any]) -> Request:
    """The request of an environment and a configuration.

    What takes away (DEL, GC) minds only what it needs, so that a wrong key never keeps a pod's rules in place.

    Raises:
        CniError: by which key or variable, and what was expected.
    """
    version = require_version(config.get("cniVersion"), command=command)
    container, interface = ("", "") if command in ("STATUS", "GC") else _attachment(command, environment)
    network = config.get("name")
    if not isinstance(network, str) or not _NAME.match(network):
        raise CniError(
            BAD_CONFIG,
            f"name: {network!r} names no network",
            "expected letters, digits, '_', '.' and '-'",
        )
    gone = command in ("DEL", "GC")
    own = {name: value for name, value in config.items() if name in _OF_CNI or not set(name) & {".", "/"}}
    try:
        settings = Settings(own)
        for name in _OF_CNI:
            settings.any(name)
        directory = settings.take("dataDir", str, DATA_DIRECTORY)
        if not directory.startswith("/"):
            raise settings.error(f"{directory!r} is no absolute path", key="dataDir", expected="a directory")
        timeout = settings.take("lockTimeout", int, LOCK_TIMEOUT, expected="seconds, a whole number")
        made = Request(
            command=command,
            version=version,
            network=network,
            container=container,
            interface=interface,
            directory=directory,
            timeout=timeout,
        )
        if gone:
            return msgspec.structs.replace(made, valid=_valid(config) if command == "GC" else frozenset())
        networks = settings.strings("podNetworks")
        for index, text in enumerate(networks, 1):
            _parsed(text, f"podNetworks[{index}]")
        made = msgspec.structs.replace(
            made,
            masquerade=settings.take("ipMasq", bool, False),
            policy=settings.choice("policy", Policy, Policy.ACCEPT),
            backend=settings.take("backend", str, "auto"),
            pod_networks=networks,
        )
        settings.finish()
    except ConfigError as error:
        raise CniError(BAD_CONFIG, str(error)) from None
    if command == "STATUS":
        return made
    result = checked_result(config.get("prevResult"), version)
    for index, entry in enumerate(result.get("ips", ())):
        _parsed(entry["address"], f"prevResult.ips[{index}].address")
    return msgspec.structs.replace(made, result=result)


def _attachment(command: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Container and interface, from the environment."""
    container, interface = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if not _NAME.match(container):
        raise CniError(BAD_ENVIRONMENT, f"CNI_CONTAINERID: {container!r} names no container")
    if not _INTERFACE.match(interface):
        raise CniError(BAD_ENVIRONMENT, f"CNI_IFNAME: {interface!r} names no interface")
    if command != "DEL" and not environment.get("CNI_NETNS"):
        raise CniError(BAD_ENVIRONMENT, "CNI_NETNS: it's missing or empty")
    return container, interface


def _valid(config: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Which attachments are to stay; libcni before 1.2.3 called the key ``cni.dev/attachments`` alone.

    None at all has to be said: an empty list, or null as Go writes it.
    """
    key = next((key for key in ("cni.dev/valid-attachments", "cni.dev/attachments") if key in config), None)
    if key is None:
        raise CniError(BAD_CONFIG, "cni.dev/valid-attachments is missing", "nothing was taken away")
    entries = config[key] if config[key] is not None else []
    if not isinstance(entries, list):
        raise CniError(BAD_CONFIG, f"{key}: it isn't a list")
    found = set()
    for index, entry in enumerate(entries):
        names = (entry.get("containerID"), entry.get("ifname")) if isinstance(entry, dict) else (None, None)
        if not all(isinstance(name, str) and name for name in names):
            raise CniError(BAD_CONFIG, f"{key}[{index}]: it lacks containerID or ifname", "nothing was taken away")
        found.add((str(names[0]), str(names[1])))
    return frozenset(found)


def _parsed(text: str, key: str) -> None:
    try:
        found = Network.parse(text)
    except ModelError as error:
        raise CniError(BAD_CONFIG, f"{key}: {error}", "expected an address with its prefix length") from None
    if found.prefix is None:
        raise CniError(BAD_CONFIG, f"{key}: {text!r} has a mask with gaps", "expected a prefix length")
