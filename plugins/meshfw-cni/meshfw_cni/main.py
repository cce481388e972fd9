"""The program: a command in the environment, a configuration on standard input, an object on standard output.

What a runtime starts for every pod has to start quickly, so meshfw is imported by the commands that need it, and
nothing looks for plugins.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from meshfw_cni.problems import BAD_CONFIG, BAD_ENVIRONMENT, INTERNAL, UNDECODABLE, CniError
from meshfw_cni.versions import NEWEST, SUPPORTED

_COMMANDS: Final = {"ADD": "add", "DEL": "delete", "CHECK": "check", "STATUS": "status", "GC": "collect"}
_LARGEST: Final = 1 << 24


def main() -> int:
    """Carry out the call of a runtime; the exit code."""
    version = NEWEST
    try:
        command = os.environ.get("CNI_COMMAND", "")
        if command != "VERSION" and command not in _COMMANDS:
            raise _no_command(command)
        config = _config(may_be_empty=command == "VERSION")
        if config.get("cniVersion") in SUPPORTED:
            version = config["cniVersion"]
        answer = _versions(config) if command == "VERSION" else _carried_out(command, config)
    except CniError as error:
        told: dict[str, Any] = {"cniVersion": version, "code": error.code, "msg": error.message}
        if error.details:
            told["details"] = error.details
        _say(told)
        return 1
    if answer is not None:
        _say(answer)
    return 0


def _carried_out(command: str, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a command answers; a defect of ours is told as an error too, and in full on standard error."""
    try:
        from meshfw_cni import commands
        from meshfw_cni.request import read_request

        request = read_request(command, os.environ, config)
        answer: Mapping[str, Any] | None = getattr(commands, _COMMANDS[command])(request, _tell)
    except CniError:
        raise
    except Exception as error:
        import traceback

        traceback.print_exc()
        raise CniError(INTERNAL, f"a defect of meshfw-cni: {error!r}", "its log has more") from error
    return answer


def _versions(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"cniVersion": config.get("cniVersion", NEWEST), "supportedVersions": list(SUPPORTED)}


def _no_command(command: str) -> CniError:
    known = ", ".join([*_COMMANDS, "VERSION"])
    if command:
        return CniError(BAD_ENVIRONMENT, f"CNI_COMMAND: {command!r} is no command", f"known: {known}")
    return CniError(BAD_ENVIRONMENT, "CNI_COMMAND is missing: a container runtime runs this program", f"known: {known}")


def _config(*, may_be_empty: bool) -> Mapping[str, Any]:
    """The configuration of standard input."""
    text = sys.stdin.buffer.read(_LARGEST)
    if may_be_empty and not text.strip():
        return {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CniError(UNDECODABLE, "the configuration on standard input isn't JSON", str(error)) from None
    if not isinstance(config, dict):
        raise CniError(BAD_CONFIG, "the configuration on standard input isn't a JSON object")
    return config


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer))
    sys.stdout.write("\n")
    sys.stdout.flush()


def _tell(warning: str) -> None:
    sys.stderr.write(f"meshfw-cni: {warning}\n")


if __name__ == "__main__":
    sys.exit(main())
