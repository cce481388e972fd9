"""The store that ``meshfw fleet`` works with: as the configuration's etcd source or the command line say."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from meshfw import Config, ConfigError, Declaration, Language, Settings, find_config, load_config
from meshfw_etcd.client import Access
from meshfw_etcd.keys import PREFIX, Keys
from meshfw_etcd.options import access_of

_FILES: Final = ("ca-file", "cert-file", "key-file", "password-file")


class Reach(msgspec.Struct, frozen=True):
    """How the store is reached, where the keys are, and the configuration, which may be all defaults."""

    access: Access
    keys: Keys
    config: Config


def reach(arguments: Namespace) -> Reach:
    """The store that the command line and the configuration mean.

    Raises:
        ConfigError: neither names an endpoint, or one of them says what can't be meant.
    """
    path = find_config(arguments.config)
    config = Config() if path is None else load_config(path)
    table = next((source for source in config.sources if source.type == "etcd"), None)
    options = {**(table.options if table is not None else {}), **_given(arguments)}
    if not options.get("endpoints"):
        expected = 'URLs here, or a [[source]] of type = "etcd" in the configuration'
        raise ConfigError("no endpoint is given", key="--endpoints", expected=expected)
    where = table.path if table is not None else ""
    declaration = Declaration(options=options, language=Language.of(()), file=config.file, path=where)
    settings = Settings(options, file=config.file, path=where)
    prefix = settings.take("prefix", str, PREFIX)
    if not prefix.startswith("/") or not prefix.endswith("/"):
        raise settings.error(f"{prefix!r} is no prefix", key="prefix", expected="/.../")
    return Reach(access_of(settings, declaration), Keys(prefix), config)


def _given(arguments: Namespace) -> Mapping[str, Any]:
    """What the command line says, in the words of the configuration; files are beside whoever typed them."""
    names = ("prefix", "user", *_FILES)
    said = {name: value for name in names if (value := getattr(arguments, name.replace("-", "_"))) is not None}
    found: dict[str, Any] = {name: os.path.abspath(said[name]) if name in _FILES else said[name] for name in said}
    if arguments.endpoints is not None:
        found["endpoints"] = [part.strip() for part in arguments.endpoints.split(",") if part.strip()]
    return found
