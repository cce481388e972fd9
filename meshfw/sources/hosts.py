"""The names that this host gives to ports, protocols, users and groups: services(5), passwd(5) and such, read as files.

Never getaddrinfo(3), getpwnam(3) or the like, which may ask the network; a host without the files has no names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from meshfw.extensions.extension import HostTables

SERVICES: Final = "/etc/services"
PROTOCOLS: Final = "/etc/protocols"
USERS: Final = "/etc/passwd"
GROUPS: Final = "/etc/group"


class _Accounts(Mapping[str, int]):
    """Names of users or groups to their numbers; the file is read when a name is asked for, which few rules do."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: dict[str, int] | None = None

    def _names(self) -> dict[str, int]:
        if self._held is None:
            found: dict[str, int] = {}
            for line in _lines(self._path):
                fields = line.split(":")
                if len(fields) > 2 and fields[2].isdigit():
                    found.setdefault(fields[0], int(fields[2]))
            self._held = found
        return self._held

    def __getitem__(self, name: str) -> int:
        return self._names()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


def host_tables(
    *, services: str = SERVICES, protocols: str = PROTOCOLS, users: str = USERS, groups: str = GROUPS
) -> HostTables:
    """The names of the files; where two lines give a name, the first counts, as for getservbyname(3)."""
    ports: dict[tuple[str, str], int] = {}
    for name, value, aliases in _entries(services):
        port, _, protocol = value.partition("/")
        if port.isdigit() and protocol:
            for word in (name, *aliases):
                ports.setdefault((word, protocol.lower()), int(port))
    numbers: dict[str, int] = {}
    for name, value, aliases in _entries(protocols):
        if value.isdigit():
            for word in (name, *aliases):
                numbers.setdefault(word.lower(), int(value))
    return HostTables(services=ports, protocols=numbers, users=_Accounts(users), groups=_Accounts(groups))


def _entries(path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, value and aliases of each line."""
    for line in _lines(path):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            yield words[0], words[1], words[2:]


def _lines(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError:
        return
