"""What the tables ``[agent]`` and ``[history]`` say, each number with its unit and its bounds."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from meshfw.source import Settings, described, shown


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class OnStop(StrEnum):
    """What becomes of the rules when the agent is told to end."""

    KEEP = "keep"
    """They stay in place: a restart of the agent opens nothing."""
    CLEAN = "clean"
    """They are taken away, as ``meshfw clean`` does."""


class Address(msgspec.Struct, frozen=True):
    """Where the agent answers over HTTP: an IP address and a TCP port; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether this host alone can reach it."""
        import ipaddress

        return ipaddress.ip_address(self.host).is_loopback


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The ``[agent]`` table; times are in seconds."""

    resync: float = 300.0
    """At least this often it looks, whatever was heard: the safety net under the events."""
    debounce: float = 0.02
    """How long it waits for more after an event, so that a burst of writes is one repair."""
    full_check: float = 3600.0
    """How often it reads everything again through the tools, past all that it remembers; 0: never."""
    follow: bool = True
    """Whether a change of the configuration's file is taken as soon as it's seen, rather than when it's asked for."""
    listen: Address | None = None
    """Where it answers over HTTP; None: nowhere."""
    log: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO
    on_stop: OnStop = OnStop.KEEP
    shrink: float = 0.5
    """The largest share of the rules that may go in one change unless it's forced; 1: all of them may."""
    last_good: bool = True
    """Whether the last good rules are kept on disk, and used while the sources are away."""
    rival_limit: int = 3
    """Repairs within ``rival_window`` of what one rival undid, made at once; the next ones back off."""
    rival_window: float = 60.0
    back_off: float = 1.0
    """The first pause before a repair of what a rival keeps undoing; each next one is twice as long."""
    back_off_longest: float = 300.0
    patience: int = 5
    """How many times in a row the same change is made before it's reported as one that never holds."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever wrote these should know."""
        if self.listen is None or self.listen.loopback:
            return ()
        return (f"agent.listen: whoever reaches {self.listen} can read the names of chains and of who changed them",)


class HistorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The ``[history]`` table."""

    keep: int = 10
    """How many applied states are kept, so that a rollback can go back to them."""


def history_settings(table: Settings) -> HistorySettings:
    """The settings of the history that a table says; ConfigError as for :func:`agent_settings`."""
    found = HistorySettings(keep=_count(table, "keep", HistorySettings().keep))
    table.finish()
    return found


_DAY: Final = 86400.0
_BOUNDS: Final = {
    "resync": (1.0, _DAY),
    "debounce": (0.0, 60.0),
    "full_check": (0.0, 365 * _DAY),
    "shrink": (0.0, 1.0),
    "rival_window": (1.0, _DAY),
    "back_off": (0.05, 3600.0),
    "back_off_longest": (0.05, _DAY),
}
_COUNTS: Final = {"rival_limit": (1, 1000), "patience": (2, 1000)}
_LEAST_MOST: Final = {**_COUNTS, "keep": (2, 1000)}  # of one state alone there is nothing to go back to


def agent_settings(table: Settings) -> AgentSettings:
    """The agent's settings that a table says.

    Raises:
        ConfigError: a key that there isn't, or a value that can't be meant.
    """
    usual = AgentSettings()
    numbers: dict[str, Any] = {name: _number(table, name, getattr(usual, name)) for name in _BOUNDS}
    numbers |= {name: _count(table, name, getattr(usual, name)) for name in _COUNTS}
    found = AgentSettings(
        **numbers,
        listen=_address(table),
        log=table.choice("log", LogFormat, usual.log),
        level=table.choice("level", LogLevel, usual.level),
        on_stop=table.choice("on_stop", OnStop, usual.on_stop),
        follow=table.take("follow", bool, usual.follow),
        last_good=table.take("last_good", bool, usual.last_good),
    )
    table.finish()
    if found.back_off_longest < found.back_off:
        raise table.error(
            f"{found.back_off_longest:g} is less than back_off",
            key="back_off_longest",
            expected=f"at least {found.back_off:g} seconds, the first pause",
        )
    if 0 < found.full_check < found.debounce:
        raise table.error(
            f"{found.full_check:g} is less than debounce", key="full_check", expected="more, or 0 for never"
        )
    return found


def _number(table: Settings, name: str, default: float) -> float:
    least, most = _BOUNDS[name]
    unit = "a share" if name == "shrink" else "seconds"
    expected = f"{unit} from {least:g} to {most:g}"
    value = table.any(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise table.error(f"{shown(value)} is {described(value)}", key=name, expected=expected)
    if not least <= value <= most:  # which not-a-number isn't either
        raise table.error(f"{value:g} is out of range", key=name, expected=expected)
    return float(value)


def _count(table: Settings, name: str, default: int) -> int:
    least, most = _LEAST_MOST[name]
    value = table.take(name, int, default, expected=f"a whole number from {least} to {most}")
    if not least <= value <= most:
        raise table.error(f"{value} is out of range", key=name, expected=f"a whole number from {least} to {most}")
    return value


_LISTEN: Final = 'an IP address and a port, such as "127.0.0.1:9799" or "[::1]:9799"'


def _address(table: Settings) -> Address | None:
    if "listen" not in table:
        return None
    import ipaddress

    text = table.take("listen", str, "", expected=_LISTEN)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        # Never a name: what it means may not be known yet when a host starts, and may change.
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise table.error(f"{shown(text)} is no address", key="listen", expected=_LISTEN) from None
    if (address.version == 6) is not bracketed:
        raise table.error(f"{shown(text)} can be read in two ways", key="listen", expected=_LISTEN)
    if not (colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise table.error(f"{shown(port)} is no port", key="listen", expected=_LISTEN)
    return Address(str(address), int(port))
