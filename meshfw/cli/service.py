"""The verb ``service``: print the systemd units of the agent and of the restore at boot, or install them."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress

from meshfw.cli.output import print_json, printable, warn
from meshfw.config import NEAR, SYSTEM
from meshfw.errors import ConfigError
from meshfw.service.units import AGENT, DIRECTORY, RESTORE, Start, units, untouched

_LARGEST = 1 << 20


def run(arguments: Namespace) -> int:
    """0 when the units are printed or stand where they belong."""
    start = Start(
        program=_program(sys.argv[0]),
        config=None if arguments.config is None else os.path.abspath(arguments.config),
        backend=arguments.backend,
        netns=_place(arguments.netns),
    )
    made = units(start)
    warnings = _warnings(start)
    if arguments.install:
        root = os.path.abspath(arguments.root or "/")
        if not os.path.isdir(root):
            raise ConfigError(f"there is no directory {root}", key="--root", expected="one to install below")
        return _install(made, arguments, [*warnings, *_unread(start, root)], root=root)
    if arguments.json:
        print_json({"units": made, "directory": DIRECTORY, "warnings": warnings})
        return 0
    warn(warnings)
    print("\n".join(f"# {DIRECTORY}/{name}\n{text}" for name, text in made.items()), end="")
    return 0


def _install(made: Mapping[str, str], arguments: Namespace, warnings: list[str], *, root: str) -> int:
    directory = os.path.join(root, DIRECTORY.lstrip("/"))
    outcomes = {name: _outcome(os.path.join(directory, name), text) for name, text in made.items()}
    changed = [os.path.join(directory, name) for name, outcome in outcomes.items() if outcome == "changed"]
    if changed and not arguments.force:
        raise ConfigError(
            f"{' and '.join(changed)} {'was' if len(changed) == 1 else 'were'} changed since it was made",
            expected="the unit as meshfw made it, or --force to lose the change; nothing was written",
        )
    os.makedirs(directory, mode=0o755, exist_ok=True)
    for name, outcome in outcomes.items():
        if outcome != "unchanged":
            _replace(directory, name, made[name])
    lines = _next_steps(outcomes, directory)
    if arguments.json:
        told = {os.path.join(directory, name): _told(outcome) for name, outcome in outcomes.items()}
        print_json({"installed": told, "next": lines, "warnings": warnings})
        return 0
    warn(warnings)
    for name, outcome in outcomes.items():
        print(printable(f"{os.path.join(directory, name)}: {_told(outcome)}"))
    print(f"next: {lines[0]}", *lines[1:], sep="\n      ")
    return 0


def _told(outcome: str) -> str:
    return "unchanged" if outcome == "unchanged" else "written"


def _next_steps(outcomes: Mapping[str, str], directory: str) -> list[str]:
    """The command lines that make systemd use the units."""
    if directory != DIRECTORY:
        root = directory.removesuffix(DIRECTORY)
        return [f"systemctl --root={root} enable {RESTORE} {AGENT}"]
    new = all(outcome == "new" for outcome in outcomes.values())
    reload = [] if set(outcomes.values()) == {"unchanged"} else ["systemctl daemon-reload"]
    restart = [] if new else [f"systemctl try-restart {AGENT}"]
    return [*reload, f"systemctl enable {RESTORE}", f"systemctl enable --now {AGENT}", *restart]


def _outcome(path: str, text: str) -> str:
    """What writing a unit means: it's ``new``, ``unchanged``, ``outdated``, or somebody ``changed`` what is there."""
    if os.path.islink(path):  # masked, which is a link to /dev/null, or somebody's own place for it
        return "changed"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            there = file.read(_LARGEST)
    except FileNotFoundError:
        return "new"
    return "unchanged" if there == text else "outdated" if untouched(there) else "changed"


def _replace(directory: str, name: str, text: str) -> None:
    """Put a unit in its place in one step, readable by all as units are; a link there is replaced, not followed."""
    new = os.path.join(directory, f".{name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(new, os.path.join(directory, name))
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def _program(called: str) -> tuple[str, ...]:
    """The words that start this meshfw from anywhere: its executable's absolute path, or its interpreter and ``-m``."""
    path = shutil.which(called) if os.path.basename(called) == "meshfw" else None
    return (os.path.abspath(sys.executable), "-m", "meshfw") if path is None else (os.path.abspath(path),)


def _place(netns: str | None) -> str | None:
    """A network namespace as it's called from anywhere; a path from here isn't."""
    return os.path.abspath(netns) if netns is not None and "/" in netns else netns


def _unread(start: Start, root: str) -> list[str]:
    """What whoever installs should know of the configuration that the service will read, or not."""
    path = start.config or SYSTEM
    warnings = []
    if not os.path.exists(os.path.join(root, path.lstrip("/"))):
        warnings.append(f"{path} isn't there{'' if root == '/' else f' below {root}'}, and the service reads it")
    if start.config is None and root == "/" and os.path.exists(NEAR) and not _same(NEAR, SYSTEM):
        warnings.append(f"the service reads {SYSTEM}, not ./{NEAR}: name that by --config, or move it there")
    return warnings


def _same(one: str, other: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _warnings(start: Start) -> list[str]:
    hidden = [f"{path} can't be seen by the service, which has a /tmp of its own" for path in start.hidden]
    paths = os.environ.get("PYTHONPATH")
    return [
        *hidden,
        *(["the service doesn't get $PYTHONPATH: install meshfw where it's found without"] if paths else []),
    ]
