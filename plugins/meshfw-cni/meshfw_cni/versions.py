"""The versions of the CNI specification that are spoken, and results as each of them writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshfw_cni.problems import BAD_CONFIG, INCOMPATIBLE_VERSION, CniError

SUPPORTED: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST: Final = SUPPORTED[-1]
_SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The version that brought a command; ADD, DEL and VERSION were always there."""
_NEW_IN_1_1: Final = {
    "interfaces": ("mtu", "socketPath", "pciID"),
    "routes": ("mtu", "advmss", "priority", "table", "scope"),
}


def require_version(version: object, *, command: str = "") -> str:
    """The version, if it's one that this plugin speaks and that has the command.

    Raises:
        CniError: it isn't (1).
    """
    if version not in SUPPORTED:
        said = f"cniVersion {version!r}" if version is not None else "a missing cniVersion, which means 0.1.0,"
        raise CniError(INCOMPATIBLE_VERSION, f"{said} isn't supported", f"supported: {', '.join(SUPPORTED)}")
    found = str(version)
    since = _SINCE.get(command, SUPPORTED[0])
    if SUPPORTED.index(found) < SUPPORTED.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"{command} needs cniVersion {since}", f"the configuration has {found}")
    return found


def converted(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    """A result of any supported version as another one writes it; what isn't known stays as it is.

    The differences (SPEC.md, "Appendix: versions"): until 1.0.0 an address says its family as ``version``, and 1.1.0
    brought further keys of interfaces and routes.
    """
    made = {**result, "cniVersion": version}
    if "ips" in result:
        made["ips"] = [
            _address(entry, stated=SUPPORTED.index(version) < SUPPORTED.index("1.0.0")) for entry in made["ips"]
        ]
    if version != NEWEST:
        for key, new in _NEW_IN_1_1.items():
            if isinstance(made.get(key), list):
                made[key] = [_without(entry, new) for entry in made[key]]
    return made


def _address(entry: Mapping[str, Any], *, stated: bool) -> dict[str, Any]:
    rest = {name: value for name, value in entry.items() if name != "version"}
    return {"version": "6" if ":" in entry["address"] else "4", **rest} if stated else rest


def _without(entry: Any, names: tuple[str, ...]) -> Any:
    return {name: value for name, value in entry.items() if name not in names} if isinstance(entry, dict) else entry


def checked_result(value: object, version: str) -> Mapping[str, Any]:
    """What earlier plugins of the chain made, as far as this one reads it.

    Raises:
        CniError: it's missing or isn't a result (7), or one of a version that isn't spoken (1).
    """
    if value is None:
        raise CniError(
            BAD_CONFIG,
            "prevResult is missing",
            "meshfw-cni adds rules for the addresses that plugins before it gave: chain it behind one, such as bridge",
        )
    if not isinstance(value, dict):
        raise CniError(BAD_CONFIG, "prevResult: it isn't an object")
    require_version(value.get("cniVersion", version))
    for key in ("ips", "interfaces", "routes"):
        entries = value.get(key)
        if entries is None:
            continue
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise CniError(BAD_CONFIG, f"prevResult.{key}: it isn't a list of objects")
    found = {key: entry for key, entry in value.items() if entry is not None or key not in ("ips", "interfaces")}
    for index, entry in enumerate(found.get("ips", ())):
        if not isinstance(entry.get("address"), str):
            raise CniError(BAD_CONFIG, f"prevResult.ips[{index}].address: it's missing, or isn't a string")
    return found
