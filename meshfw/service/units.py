"""The unit files of the agent and of the restore at boot, made from templates beside this module (systemd.unit(5)).

The templates say why each line is there; what depends on the host is filled in: how this meshfw is started, and what a
hardened service must still see and do for it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Final

import msgspec

from meshfw import __version__
from meshfw.errors import ConfigError

DIRECTORY: Final = "/etc/systemd/system"
"""Where an administrator's units are (systemd.unit(5))."""
AGENT: Final = "meshfw-agent.service"
RESTORE: Final = "meshfw-restore.service"
HOMES: Final = ("/home", "/root", "/run/user")
"""What ProtectHome= hides (systemd.exec(5))."""
_PRIVATE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= hides (systemd.exec(5)); nothing is made there
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
_MADE: Final = re.compile(r"# Made by meshfw \S+, checksum ([0-9a-f]{16})\.[^\n]*\n")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How a service starts meshfw: the words of the ``program``, and what the command line says of the place."""

    program: tuple[str, ...]
    config: str | None = None
    backend: str | None = None
    netns: str | None = None

    def argv(self, verb: str) -> tuple[str, ...]:
        """The words of a command line."""
        named = (("--config", self.config), ("--backend", self.backend), ("--netns", self.netns))
        return (*self.program, verb, *(word for name, value in named if value is not None for word in (name, value)))

    @property
    def places(self) -> tuple[str, ...]:
        """The files that a service must be able to read, with what links among them lead to."""
        own = (self.program[0], sys.prefix, sys.base_prefix, os.path.dirname(__file__))
        named = (*own, *(() if self.config is None else (self.config,)))
        return tuple(
            dict.fromkeys(place for path in named for place in (os.path.abspath(path), os.path.realpath(path)))
        )

    @property
    def hidden(self) -> tuple[str, ...]:
        """Those of the places which the service won't see."""
        return tuple(path for path in self.places if _below(path, _PRIVATE))


def units(start: Start) -> Mapping[str, str]:
    """The text of each unit by its name; ConfigError for a word that can't stand in a unit."""
    fill = {
        "agent": _command(start.argv("agent")),
        "restore": _command(start.argv("restore")),
        "capabilities": "CAP_NET_ADMIN CAP_NET_RAW" + ("" if start.netns is None else " CAP_SYS_ADMIN"),
        "namespaces": "yes" if start.netns is None else "net",
        "home": "read-only" if any(_below(path, HOMES) for path in start.places) else "yes",
    }
    fill["hardening"] = _filled(_template("hardening.conf"), fill)
    return {name: _signed(_filled(_template(name), fill)) for name in (AGENT, RESTORE)}


def untouched(text: str) -> bool:
    """Whether a unit is as some meshfw made it, so that nobody's change is lost with it."""
    made = _MADE.match(text)
    return made is not None and made[1] == _checksum(text[made.end() :])


def _below(path: str, directories: Sequence[str]) -> bool:
    return any(path == directory or path.startswith(f"{directory}/") for directory in directories)


def _template(name: str) -> str:
    return files("meshfw.service").joinpath(name).read_text(encoding="utf-8")


def _filled(template: str, fill: Mapping[str, str]) -> str:
    return re.sub(r"@([a-z]+)@", lambda found: fill[found[1]], template)


def _signed(body: str) -> str:
    word = "Change it with 'systemctl edit', not here: the next 'meshfw service --install' makes it anew."
    return f"# Made by meshfw {__version__}, checksum {_checksum(body)}. {word}\n{body}"


def _checksum(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:16]


def _command(argv: Sequence[str]) -> str:
    """A command line as ExecStart= reads it (systemd.service(5)); variables aren't expanded in its first word."""
    first, *others = argv
    return " ".join([_word(first), *(_word(word.replace("$", "$$")) for word in others)])


def _word(word: str) -> str:
    if not word.isprintable():
        raise ConfigError(f"{word!r} can't stand in a unit", expected="a name without control characters")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if _PLAIN.fullmatch(escaped) else f'"{escaped}"'
