"""The options of a backend over iptables' tables, such as the table ``[backend.iptables-nft]``."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshfw.backend import Site
from meshfw.errors import ConfigError

_WAIT: Final = 10
_WAIT_MAX: Final = 600


class Options(msgspec.Struct, frozen=True):
    """``adopt``: chains of the owner's names that somebody else made are taken over. ``wait``: seconds for the lock."""

    adopt: bool = False
    wait: int = _WAIT


def options_of(site: Site, backend: str) -> Options:
    """The options of a site for the backend of that name; ConfigError for one that is unknown or has another type."""
    known = Options.__struct_fields__
    for name, value in site.options.items():
        key = f"backend.{backend}.{name}"
        if name not in known:
            raise ConfigError(f"unknown option {name!r}", key=f"backend.{backend}", expected=" or ".join(known))
        if name == "adopt" and not isinstance(value, bool):
            raise ConfigError(f"{value!r} is not true or false", key=key, expected="true or false")
        if name == "wait" and not _is_seconds(value):
            raise ConfigError(f"{value!r} is no time to wait", key=key, expected=f"whole seconds from 1 to {_WAIT_MAX}")
    return Options(**site.options)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _WAIT_MAX
