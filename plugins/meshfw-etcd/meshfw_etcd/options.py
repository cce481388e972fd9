"""The keys of a ``[[source]]`` of type ``etcd``, taken and checked."""

from __future__ import annotations

import os
import re
from typing import Final

import msgspec

from meshfw import ConfigError, Declaration, Settings
from meshfw_etcd.client import Access, Client
from meshfw_etcd.keys import PREFIX, Keys
from meshfw_etcd.published import Place

_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_FILES: Final = ("ca-file", "cert-file", "key-file", "password-file")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the source was asked for; ``shrink_limit`` is in percent, ``heartbeat`` in seconds."""

    place: Place
    access: Access
    cache: str
    shrink_limit: int
    heartbeat: int

    @classmethod
    def taken(cls, declaration: Declaration) -> Options:
        """The options of a declaration.

        Raises:
            ConfigError: with the key path, where one is wrong, or another is missing beside it.
        """
        settings = declaration.settings()
        node = settings.take("node", str, "") or os.uname().nodename
        prefix = settings.take("prefix", str, PREFIX)
        access = access_of(settings, declaration)
        cache = settings.take("cache", str, "")
        limit = settings.take("shrink-limit", int, 50)
        heartbeat = settings.take("heartbeat", int, 30)
        settings.finish()
        if not _NODE.fullmatch(node):
            raise settings.error(f"{node!r} is no node", key="node", expected="letters, digits, '.', '_' and '-'")
        if not prefix.startswith("/") or not prefix.endswith("/"):
            raise settings.error(f"{prefix!r} is no prefix", key="prefix", expected="/.../")
        if not 0 <= limit <= 100:
            raise settings.error(f"{limit} is no share", key="shrink-limit", expected="percent, from 0 to 100")
        if heartbeat < 1:
            raise settings.error(f"{heartbeat} is too often", key="heartbeat", expected="seconds, 1 at least")
        return cls(
            place=Place(Keys(prefix), node),
            access=access,
            cache=declaration.beside(cache) if cache else "",
            shrink_limit=limit,
            heartbeat=heartbeat,
        )


def access_of(settings: Settings, declaration: Declaration) -> Access:
    """How to reach the store, out of the settings that say it."""
    endpoints = settings.strings("endpoints")
    files = {name: settings.take(name, str, "", expected="the path of a file") for name in _FILES}
    user = settings.take("user", str, "")
    timeout = settings.take("timeout", int, 5)
    if timeout < 1:
        raise settings.error(f"{timeout} is too short", key="timeout", expected="seconds, 1 at least")
    if bool(user) != bool(files["password-file"]):
        missing = "password-file" if user else "user"
        raise settings.error(f"{missing} is missing", expected="user and password-file, or neither")
    if files["key-file"] and not files["cert-file"]:
        raise settings.error("cert-file is missing", expected="cert-file beside key-file")
    plain = [text for text in endpoints if not text.startswith("https://")]
    given = [name for name in ("ca-file", "cert-file") if files[name]]
    if plain and given:
        raise settings.error(
            f"{plain[0]} has no TLS, and {given[0]} is given", key="endpoints", expected="https://HOST:PORT"
        )
    beside = {name.replace("-", "_"): declaration.beside(path) if path else "" for name, path in files.items()}
    access = Access(endpoints=endpoints, user=user, timeout=float(timeout), **beside)
    try:
        Client(access).close()
    except ConfigError as error:
        raise settings.error(error.reason, key=error.key, expected=error.expected) from error
    return access
