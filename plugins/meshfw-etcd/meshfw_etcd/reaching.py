"""The store that ``meshfw fleet`` works with: as the configuration's etcd source or the command line say."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import msgspec

from meshfw import Config, ConfigError, Settings, find_config, load_config
from meshfw_etcd.client import Access
from meshfw_etcd.keys import PREFIX, Keys

_NAMES = ("ca-file", "cert-file", "key-file", "user", "password-file")


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
    options: Mapping[str, Any] = table.options if table is not None else {}
    settings = Settings(options, file=config.file, path=table.path if table is not None else "")
    endpoints = settings.strings("endpoints")
    if arguments.endpoints is not None:
        endpoints = tuple(part.strip() for part in arguments.endpoints.split(",") if part.strip())
    if not endpoints:
        raise ConfigError(
            "no endpoint is given", key="--endpoints", expected='URLs here, or a [[source]] of type = "etcd"'
        )
    named = {name.replace("-", "_"): settings.take(name, str, "") for name in _NAMES}
    named.update({name: value for name in named if (value := getattr(arguments, name)) is not None})
    prefix = arguments.prefix or settings.take("prefix", str, PREFIX)
    access = msgspec.structs.replace(Access(endpoints=endpoints), **named)
    return Reach(access, Keys(prefix if prefix.endswith("/") else f"{prefix}/"), config)
