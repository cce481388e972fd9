"""Health probes: what to ask of the network after a change, read from the configuration; asking is done elsewhere.

A probe is a text of two forms that are read here (no shell ever sees it), or a program by its path with its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from meshfw.source import Settings, described, shown

ATTEMPTS: Final = 3
"""How often a probe is tried before it counts as failed."""
TIMEOUT: Final = 2.0
"""Seconds that one try may take."""
PAUSE: Final = 0.5
"""Seconds between two tries: what refuses at once may be on its way up."""
MOST_ATTEMPTS: Final = 100
LONGEST: Final = 120.0
"""Seconds that asking may take in all: who applies waits for it, and a service manager for a sign of life."""
EXPECTED: Final = '"ping ADDRESS", "tcp HOST:PORT", or a list of a program\'s absolute path and its arguments'
_SEVERAL: Final = f"{EXPECTED}; several of these in a list"
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}\Z")


class ProbeKind(StrEnum):
    """How a probe asks."""

    PING = "ping"
    """An ICMP echo request is answered."""
    TCP = "tcp"
    """A TCP connection is accepted."""
    COMMAND = "command"
    """A program ends with exit code 0."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One question: ``host`` is the address to ping or the host to connect to, at ``port``; ``argv`` the program."""

    kind: ProbeKind
    host: str = ""
    port: int = 0
    argv: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is ProbeKind.COMMAND:
            return " ".join(self.argv)
        if self.kind is ProbeKind.PING:
            return f"ping {self.host}"
        return f"tcp [{self.host}]:{self.port}" if ":" in self.host else f"tcp {self.host}:{self.port}"


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """The probes of a configuration, how often each is tried, and how many seconds one try may take."""

    probes: tuple[Probe, ...] = ()
    attempts: int = ATTEMPTS
    timeout: float = TIMEOUT

    @property
    def longest(self) -> float:
        """Seconds that asking takes at most: the probes are asked side by side."""
        return self.tries if self.probes else 0.0

    @property
    def tries(self) -> float:
        """Seconds that all tries of one probe take at most, with the pauses between them."""
        return self.attempts * self.timeout + (self.attempts - 1) * PAUSE


def read_probing(settings: Settings) -> Probing:
    """What the table ``[safety]`` says; ConfigError with the key path for what can't be meant."""
    probes = _probes(settings, settings.any("probe"))
    attempts = settings.take("attempts", int, ATTEMPTS)
    if not 1 <= attempts <= MOST_ATTEMPTS:
        raise settings.error(f"{attempts} attempts", key="attempts", expected=f"a number from 1 to {MOST_ATTEMPTS}")
    timeout = settings.any("timeout")
    wrong = isinstance(timeout, bool) or not isinstance(timeout, int | float | None)
    if wrong or (timeout is not None and not 0 < timeout <= LONGEST):
        reason = f"{shown(timeout)} is {described(timeout)}" if wrong else f"{timeout:g} seconds"
        raise settings.error(reason, key="timeout", expected=f"seconds, more than 0 and at most {LONGEST:g}")
    settings.finish()
    found = Probing(probes=probes, attempts=attempts, timeout=TIMEOUT if timeout is None else float(timeout))
    if found.tries > LONGEST:
        given = "attempts" if timeout is None else "timeout"
        reason = f"{attempts} attempts of {found.timeout:g} seconds, {PAUSE:g} apart, are {found.tries:g} seconds"
        raise settings.error(reason, key=given, expected=f"attempts and timeout that make at most {LONGEST:g} seconds")
    return found


def _probes(settings: Settings, value: Any) -> tuple[Probe, ...]:
    """One probe or several.

    A list that begins with a path is a program with its arguments, any other is of probes, whose texts never begin so.
    """
    if value is None:
        return ()
    if isinstance(value, list) and not (value and isinstance(value[0], str) and value[0].startswith("/")):
        if not value:
            raise settings.error("the list is empty", key="probe", expected=_SEVERAL)
        return tuple(_probe(settings, item, f"probe[{number}]", EXPECTED) for number, item in enumerate(value, 1))
    return (_probe(settings, value, "probe", _SEVERAL),)


def _probe(settings: Settings, value: Any, key: str, expected: str) -> Probe:
    if isinstance(value, list):
        return _command(settings, value, key)
    if not isinstance(value, str):
        raise settings.error(f"{shown(value)} is {described(value)}", key=key, expected=expected)
    import ipaddress

    kind, _, rest = value.strip().partition(" ")
    try:
        if kind == ProbeKind.PING:
            return Probe(kind=ProbeKind.PING, host=str(ipaddress.ip_address(rest.strip())))
        if kind == ProbeKind.TCP:
            return _tcp(rest.strip())
    except ValueError as error:
        raise settings.error(f"{shown(value)}: {error}", key=key, expected=expected) from None
    raise settings.error(f"{shown(value)} is no probe", key=key, expected=expected)


def _tcp(text: str) -> Probe:
    import ipaddress

    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets before its port")
    elif not _HOST.match(host):
        raise ValueError("it names no host" if colon else "it names no port")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 0xFFFF):
        raise ValueError(f"{port or 'nothing'} is no port")
    return Probe(kind=ProbeKind.TCP, host=host, port=int(port))


def _command(settings: Settings, value: Sequence[Any], key: str) -> Probe:
    for number, item in enumerate(value, 1):
        if not isinstance(item, str):
            raise settings.error(f"{shown(item)} is {described(item)}", key=f"{key}[{number}]", expected="a string")
        if "\0" in item:
            raise settings.error("it holds a NUL", key=f"{key}[{number}]", expected="an argument without")
    if not value or not value[0].startswith("/"):
        # What root runs must not depend on where it stands, nor on its PATH.
        raise settings.error(f"{shown(list(value))} names no program", key=key, expected=EXPECTED)
    return Probe(kind=ProbeKind.COMMAND, argv=tuple(value))
