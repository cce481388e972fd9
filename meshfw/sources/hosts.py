"""The names that this host gives to ports, protocols, users and groups: services(5), passwd(5) and such, read as files.

Never getaddrinfo(3), getpwnam(3) or the like, which may ask the network; a host without the files has no names. Names
of other hosts are looked up only where :func:`resolve_host` is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from meshfw.errors import ModelError
from meshfw.extensions.extension import HostTables
from meshfw.model import Family, parse_address

SERVICES: Final = "/etc/services"
PROTOCOLS: Final = "/etc/protocols"
USERS: Final = "/etc/passwd"
GROUPS: Final = "/etc/group"
NETWORKS: Final = "/etc/networks"


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


def resolve_host(name: str, family: Family) -> tuple[int, ...]:
    """The addresses of a network of networks(5) or else of a host, as getaddrinfo(3) finds them, in its order.

    The network may be asked, and the answer may differ the next time.

    Raises:
        ModelError: where nobody answered; a name that has no address of the family has none.
    """
    if family is Family.IPV4:
        for word, value, aliases in _entries(NETWORKS):
            if name in (word, *aliases) and value.count(".") == 3:
                return (parse_address(value)[1],)
    import socket

    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    try:
        found = socket.getaddrinfo(name, None, kind, socket.SOCK_RAW)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY):
            return ()
        raise ModelError(f"host {name} can't be looked up: {error.strerror}") from None
    return tuple(int.from_bytes(socket.inet_pton(kind, str(entry[4][0]).partition("%")[0])) for entry in found)


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
