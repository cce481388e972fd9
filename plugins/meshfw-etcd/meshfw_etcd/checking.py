"""The rules of a release, read here as the nodes will read them, before anybody gets them."""

from __future__ import annotations

from meshfw import Config, ConfigError, Plugins, Policy, Ruleset, host_tables, parse_ruleset


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
    language = Plugins(config.plugins).language(host_tables())
    ruleset = parse_ruleset(text, language=language, source=file)
    decides = any(chain.rules for chain in ruleset.chains) or any(
        item.policy is not Policy.RETURN for item in ruleset.attachments
    )
    if not decides:
        raise ConfigError("it has no rule and no policy", file=file, expected="rules: no node lets all of them go")
    return ruleset
