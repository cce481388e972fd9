"""A node's pod networks in its CNI configuration: what has to stand there, and the file changed in one step.

The configuration is a list of plugins (CNI specification 1.1, section 1), or a single one as files ``*.conf`` have
it. Pods get their addresses from host-local's ranges: one set of ranges for each family. Only those are changed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from meshfw import ConfigError, Family, MeshfwError, ParseError
from meshfw_kilo.cidr import Cidr

CONFLIST: Final = "/etc/cni/net.d/10-kilo.conflist"
"""Where Kilo has it."""
_IPAM: Final = "host-local"
_OLD_STYLE: Final = ("subnet", "rangeStart", "rangeEnd", "gateway")
"""host-local's keys for one range, from before it had several; beside ``ranges`` they are one range more."""
_ATTEMPTS: Final = 5
Json = dict[str, Any]


# --- what has to stand there -------------------------------------------------------------------------------


def with_pod_cidrs(config: Mapping[str, Any], cidrs: Sequence[Cidr]) -> Json | None:
    """The configuration with those pod networks, one of a family; None where it has them already.

    Everything else stays as it is and where it is: other keys, plugins, IPAM that isn't host-local's, and ranges of a
    family of which there is no pod network.

    Raises:
        ConfigError: it is no configuration of CNI, or no plugin of it has IPAM of host-local's.
    """
    made = dict(config)
    plugins = list(_plugins(config))
    seen = changed = False
    for index, (key, plugin) in enumerate(plugins):
        ipam = plugin.get("ipam")
        if not isinstance(ipam, Mapping) or ipam.get("type") != _IPAM:
            continue
        seen = True
        new = _ipam(ipam, cidrs, f"{key}ipam")
        if new is not None:
            changed = True
            plugins[index] = key, {**plugin, "ipam": new}
    if not seen:
        raise ConfigError(
            "no plugin has IPAM of type host-local", key="plugins", expected='"ipam": {"type": "host-local"}'
        )
    if not changed:
        return None
    if "plugins" not in config:
        return dict(plugins[0][1])
    made["plugins"] = [plugin for _, plugin in plugins]
    return made


def _plugins(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The plugins, each with what its keys begin with."""
    if "plugins" not in config:
        if not isinstance(config.get("type"), str):
            raise ConfigError("neither plugins nor a type", expected="a configuration of CNI")
        yield "", config
        return
    plugins = config["plugins"]
    if not isinstance(plugins, list):
        raise ConfigError("it is no list", key="plugins", expected="a list of plugins")
    for index, plugin in enumerate(plugins, 1):
        if not isinstance(plugin, Mapping):
            raise ConfigError("it is no object", key=f"plugins[{index}]", expected="a plugin")
        yield f"plugins[{index}].", plugin


class _Ranges(msgspec.Struct, frozen=True):
    """One set of ranges, which gives a pod one address: its family, its networks, and how it is written."""

    family: Family
    networks: tuple[str, ...]
    written: list[Any]


def _ipam(ipam: Mapping[str, Any], cidrs: Sequence[Cidr], key: str) -> Json | None:
    """host-local's part with those networks; None where it has them."""
    sets = [_ranges(entry, f"{key}.ranges[{index}]") for index, entry in enumerate(_listed(ipam, key), 1)]
    old = {name: ipam[name] for name in _OLD_STYLE if ipam.get(name) not in (None, "")}
    alone = "subnet" in old and not sets
    if "subnet" in old:
        sets.append(_ranges([old], key))
    wanted: dict[Family, str] = {}
    for cidr in cidrs:
        wanted.setdefault(cidr.family, str(cidr.network))
    held = [(entry.family, entry.networks) for entry in sets if entry.family in wanted]
    if sorted(held) == sorted((family, (network,)) for family, network in wanted.items()) and (
        "subnet" not in old or alone
    ):
        return None
    ranges: list[list[Any]] = []
    missing = dict(wanted)
    for entry in sets:
        network = missing.pop(entry.family, None)
        if entry.family not in wanted:
            ranges.append(entry.written)
        elif network is not None:
            ranges.append(entry.written if entry.networks == (network,) else [{"subnet": network}])
    ranges += [[{"subnet": network}] for network in missing.values()]
    new = {name: value for name, value in ipam.items() if name not in _OLD_STYLE}
    new["ranges"] = ranges
    return new


def _listed(ipam: Mapping[str, Any], key: str) -> list[Any]:
    ranges = ipam.get("ranges")
    if ranges is None:
        return []
    if not isinstance(ranges, list):
        raise ConfigError(
            "it is no list", key=f"{key}.ranges", expected='a list such as [[{"subnet": "10.42.0.0/24"}]]'
        )
    return ranges


def _ranges(entry: object, key: str) -> _Ranges:
    found = []
    for index, item in enumerate(entry if isinstance(entry, list) else [None], 1):
        text = item.get("subnet") if isinstance(item, Mapping) else None
        cidr = Cidr.parse(text) if isinstance(text, str) else None
        if cidr is None:
            place = f"{key}[{index}].subnet"
            raise ConfigError(f"{text!r} is no network", key=place, expected="a network such as 10.42.0.0/24")
        found.append(cidr)
    if not found:
        raise ConfigError("it holds no range", key=key, expected='[{"subnet": "10.42.0.0/24"}]')
    return _Ranges(found[0].family, tuple(str(cidr.network) for cidr in found), list(entry))  # type: ignore[call-overload]  # a list, as seen above


# --- the file ----------------------------------------------------------------------------------------------


def keep_pod_cidrs(path: str, cidrs: Sequence[Cidr]) -> bool:
    """Have a file hold those pod networks; whether it was written, which it isn't where it holds them already.

    Who reads meanwhile finds the old file or the new one, whole; mode and owner stay. If somebody else writes it in the
    same moment, it is read again.

    Raises:
        ConfigError: it can't be read or written, or is no configuration of CNI. ParseError: it is no JSON.
    """
    real = os.path.realpath(path)  # a symbolic link stays one
    for _ in range(_ATTEMPTS):
        try:
            content, status = _read(real)
            try:
                made = with_pod_cidrs(_parsed(content, path), cidrs)
            except ConfigError as error:
                raise ConfigError(error.reason, file=path, key=error.key, expected=error.expected) from error
            if made is None:
                return False
            text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
            if _replaced(real, text.encode(), status):
                return True
        except OSError as error:
            raise ConfigError(
                f"it can't be read or written: {error.strerror}",
                file=path,
                expected="a CNI configuration, in a directory that can be written",
            ) from error
    raise MeshfwError(f"{path}: somebody else keeps writing it; nothing was changed")


def _read(path: str) -> tuple[bytes, os.stat_result]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        return file.read(), status


def _parsed(content: bytes, path: str) -> Json:
    try:
        config = json.loads(content)
    except json.JSONDecodeError as error:
        raise ParseError(error.msg, source=path, line=error.lineno, column=error.colno, expected="JSON") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"it is no JSON: {error}", source=path) from error
    if not isinstance(config, dict):
        raise ConfigError("it is no object", expected="a configuration of CNI")
    return config


def _replaced(path: str, content: bytes, before: os.stat_result) -> bool:
    """Whether a new file is in place of the one whose status that was; False where that is another one by now."""
    directory, name = os.path.split(path)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        new = f".{name}.{secrets.token_hex(8)}.new"  # no ending that makes a container runtime read it
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o600, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                os.fsync(file.fileno())
            if _changed(os.stat(name, dir_fd=folder), before):
                os.unlink(new, dir_fd=folder)
                return False
            os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(new, dir_fd=folder)
            raise
        os.fsync(folder)
        return True
    finally:
        os.close(folder)


def _changed(now: os.stat_result, before: os.stat_result) -> bool:
    fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    return any(getattr(now, field) != getattr(before, field) for field in fields)
