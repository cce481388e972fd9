"""The rules of a release, read here as the nodes will read them, before anybody gets them."""

from __future__ import annotations

import tomllib
from typing import Final

from meshfw import Config, ConfigError, Declaration, Language, Plugins, Policy, Ruleset, host_tables

_TABLES: Final = ("chain", "set")


def read_file(path: str) -> str:
    """The text of a file of rules.

    Raises:
        ConfigError: it can't be read, or is no text.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror or error}", file=path, expected="a file of rules") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is not UTF-8", file=path, expected="TOML, which is UTF-8") from error


def check_rules(text: str, *, file: str, config: Config) -> Ruleset:
    """The ruleset of a text with ``[[chain]]`` and ``[[set]]`` tables, in the language of a configuration's plugins.

    Raises:
        ConfigError, ParseError, ModelError: it is none, by file, key and line; or it lets everything go.
    """
    plugins = Plugins(config.plugins)
    ruleset = _loaded(text, file, plugins, plugins.language(host_tables()))
    decides = any(chain.rules for chain in ruleset.chains) or any(
        item.policy is not Policy.RETURN for item in ruleset.attachments
    )
    if not decides:
        raise ConfigError(
            "it has no rule and no policy", file=file, expected="rules: nodes refuse to let all of them go"
        )
    return ruleset


def _loaded(text: str, file: str, plugins: Plugins, language: Language) -> Ruleset:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", file=file, expected="TOML 1.0") from None
    for name in tables:
        if name not in _TABLES:
            raise ConfigError("it isn't for a fleet", file=file, key=name, expected="[[chain]] and [[set]] tables")
    declaration = Declaration(options={}, language=language, file=file, path="", tables=tables)
    return plugins.open_source(plugins.source("rules"), declaration).load()
