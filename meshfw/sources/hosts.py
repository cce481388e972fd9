"""The names that this host gives to ports and protocols: services(5) and protocols(5), read as files.

Never getaddrinfo(3) or the like, which may ask the network; a host without the files has no names. Names of other hosts
are looked up only where :func:`resolve_host` is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshfw.errors import ModelError
from meshfw.extensions.extension import HostTables
from meshfw.model import Family, parse_address

SERVICES: Final = "/etc/services"
PROTOCOLS: Final = "/etc/protocols"
NETWORKS: Final = "/etc/networks"


def host_tables(*, services: str = SERVICES, protocols: str = PROTOCOLS) -> HostTables:
    """The names of both files; where two lines give a name, the first counts, as for getservbyname(3)."""
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
    return HostTables(services=ports, protocols=numbers)


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
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.partition("#")[0].split()
                if len(words) > 1:
                    yield words[0], words[1], words[2:]
    except OSError:
        return
