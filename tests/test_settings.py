"""Laws of the ``[agent]`` table: what it says by default, and that each mistake is named with file and key."""

from __future__ import annotations

import pytest

from meshfw import ConfigError, parse_config
from meshfw.settings import Address, AgentSettings, LogFormat, LogLevel, OnStop


def agent(text: str) -> AgentSettings:
    return parse_config(f"[agent]\n{text}\n", file="f.toml").agent


def test_without_the_table_everything_is_as_usual() -> None:
    assert parse_config("").agent == agent("") == AgentSettings()


def test_every_key_is_read() -> None:
    numbers = (
        "resync = 60\ndebounce = 0.5\nfull_check = 0\nshrink = 1\nrival_limit = 2\nrival_window = 30\n"
        "back_off = 2\nback_off_longest = 40\npatience = 3\n"
    )
    words = 'listen = "[::1]:0"\nlog = "JSON"\nlevel = "debug"\non_stop = "clean"\nlast_good = false\n'
    assert agent(numbers + words) == AgentSettings(
        resync=60.0,
        debounce=0.5,
        full_check=0.0,
        listen=Address("::1", 0),
        log=LogFormat.JSON,
        level=LogLevel.DEBUG,
        on_stop=OnStop.CLEAN,
        shrink=1.0,
        last_good=False,
        rival_limit=2,
        rival_window=30.0,
        back_off=2.0,
        back_off_longest=40.0,
        patience=3,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resyn = 1", r"f\.toml: agent\.resyn: unknown key \(did you mean resync\?\)"),
        ("resync = 0", r"f\.toml: agent\.resync: 0 is out of range; expected seconds from 1 to 86400"),
        ("resync = nan", r"agent\.resync: nan is out of range"),
        ("resync = true", r"agent\.resync: true is a boolean; expected seconds"),
        ('resync = "5m"', r"agent\.resync: '5m' is a string; expected seconds"),
        ("debounce = -1", r"agent\.debounce: -1 is out of range"),
        ("full_check = 0.01", r"agent\.full_check: 0\.01 is less than debounce; expected more, or 0 for never"),
        ("shrink = 1.5", r"agent\.shrink: 1\.5 is out of range; expected a share from 0 to 1"),
        ("patience = 1", r"agent\.patience: 1 is out of range; expected a whole number from 2 to 1000"),
        ("patience = 2.5", r"agent\.patience: 2\.5 is a number; expected a whole number"),
        ("back_off = 9\nback_off_longest = 3", r"agent\.back_off_longest: 3 is less than back_off"),
        ('log = "xml"', r"agent\.log: unknown log 'xml'; expected text or json"),
        ('on_stop = "keeps"', r"agent\.on_stop: unknown on_stop 'keeps' \(did you mean keep\?\)"),
        ("last_good = 1", r"agent\.last_good: 1 is a number; expected true or false"),
        ("listen = 9799", r"agent\.listen: 9799 is a number; expected an IP address and a port"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        agent(text)


@pytest.mark.parametrize("text", ["", "9799", ":9799", "localhost:9799", "127.0.0.1", "::1:9799", "[127.0.0.1]:9799"])
def test_what_is_no_address_and_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: agent\.listen: .*such as"):
        agent(f'listen = "{text}"')


@pytest.mark.parametrize("port", ["", "65536", "-1", "x", "٣"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: agent\.listen: .* is no port; expected .*such as"):
        agent(f'listen = "127.0.0.1:{port}"')


def test_a_table_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: agent: true is a boolean; expected a table \[agent\]$"):
        parse_config("agent = true", file="f.toml")


@pytest.mark.parametrize(("text", "warned"), [("127.0.0.5:1", 0), ("[::1]:1", 0), ("0.0.0.0:1", 1), ("[fd00::1]:1", 1)])
def test_an_address_that_others_reach_is_warned_of(text: str, warned: int) -> None:
    settings = agent(f'listen = "{text}"')
    assert len(settings.warnings) == warned
    assert all(text in warning for warning in settings.warnings)


def test_how_many_states_are_kept_is_read() -> None:
    assert parse_config("").history.keep == 10
    assert parse_config("history = { keep = 2 }").history.keep == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("history = 10", "history: 10 is a number; expected a table [history]"),
        ("history.keep = 1", "history.keep: 1 is out of range; expected a whole number from 2 to 1000"),
        ('history.keep = "all"', "history.keep: 'all' is a string; expected a whole number from 2 to 1000"),
        ("history.kept = 3", "history.kept: unknown key (did you mean keep?); expected keep"),
    ],
)
def test_a_mistake_about_the_history_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(text, file="f")
    assert str(refused.value).removeprefix("f: ") == message
