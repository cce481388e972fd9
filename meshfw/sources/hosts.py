"""The names that this host gives to ports and protocols: services(5) and protocols(5), read as files.

Never getaddrinfo(3) or the like, which may ask the network; a host without the files has no names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshfw.extensions.extension import HostTables

SERVICES: Final = "/etc/services"
PROTOCOLS: Final = "/etc/protocols"


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
