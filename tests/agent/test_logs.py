"""Laws of the log: one line an event whatever it holds, its data as fields, its priority where the journal reads."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from meshfw.agent.logs import NAME, in_journal, log_to
from meshfw.cli.agent import log_as
from meshfw.cli.arguments import parse
from meshfw.settings import AgentSettings, LogFormat, LogLevel

HOSTILE = "x\x1b[2J\nlevel=error\u202e\udcff\u2028\x9b"
LOG = logging.getLogger("meshfw.agent.loop")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    logger = logging.getLogger(NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_text_is_a_line_with_time_level_message_and_fields(stream: io.StringIO) -> None:
    log_to(stream, form=LogFormat.TEXT, level=LogLevel.INFO)
    LOG.warning("repaired %d changes", 3, extra={"culprits": ["iptables", "nft"], "backend": "nft", "why": "a b"})
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d warning: (.*)\n"
    found = re.fullmatch(pattern, stream.getvalue())
    assert found is not None
    assert found[1] == 'repaired 3 changes culprits=iptables,nft backend=nft why="a b"'


@pytest.mark.parametrize("words", [(), ("--json",), ("-v",), ("--json", "-v")])
def test_the_command_line_asks_the_agent_for_data_and_for_detail(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    log_as(AgentSettings(), parse(("agent", *words)))
    LOG.debug("a detail")
    LOG.info("a fact")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (2 if "-v" in words else 1)
    assert all(line.startswith("{") is ("--json" in words) for line in lines)


def test_json_is_an_object_with_the_same(stream: io.StringIO) -> None:
    log_to(stream, form=LogFormat.JSON, level=LogLevel.INFO)
    LOG.warning("repaired %d changes", 3, extra={"culprits": ["iptables"], "changes": 3, "level": "mine"})
    (line,) = json_lines(stream)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "warning",
        "level_": "mine",
        "message": "repaired 3 changes",
        "logger": LOG.name,
        "culprits": ["iptables"],
        "changes": 3,
    }


def test_fields_may_come_together(stream: io.StringIO) -> None:
    log_to(stream, form=LogFormat.JSON, level=LogLevel.INFO)
    LOG.warning("drift", extra={"fields": {"culprits": ["nft"], "message": "mine"}})
    LOG.info("none", extra={"fields": {}})
    first, second = json_lines(stream)
    assert (first["culprits"], first["message"], first["message_"]) == (["nft"], "drift", "mine")
    assert set(second) == {"time", "level", "message", "logger"}


@pytest.mark.parametrize("form", LogFormat)
def test_no_stranger_ends_a_line_or_commands_a_terminal(form: LogFormat, stream: io.StringIO) -> None:
    log_to(stream, form=form, level=LogLevel.INFO)
    LOG.info("by %s", HOSTILE, extra={"culprit": HOSTILE, "all": {HOSTILE}, "deep": {"er": HOSTILE}})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert text.encode("utf-8")
    if form is LogFormat.JSON:
        assert json_lines(stream)[0]["culprit"] == HOSTILE


@pytest.mark.parametrize("form", LogFormat)
def test_less_than_the_level_is_not_written(form: LogFormat, stream: io.StringIO) -> None:
    log_to(stream, form=form, level=LogLevel.WARNING)
    LOG.info("no")
    LOG.error("yes")
    assert "no" not in stream.getvalue()
    assert "yes" in stream.getvalue()


def crash() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        LOG.exception("failed")


def test_a_traceback_is_told_in_lines_of_its_own(stream: io.StringIO) -> None:
    log_to(stream, form=LogFormat.TEXT, level=LogLevel.INFO)
    crash()
    first, *others = stream.getvalue().splitlines()
    assert first.endswith(" error: failed")
    assert others[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in others)


def test_a_traceback_is_a_field_in_json(stream: io.StringIO) -> None:
    log_to(stream, form=LogFormat.JSON, level=LogLevel.INFO)
    crash()
    (line,) = json_lines(stream)
    assert line["traceback"].startswith("Traceback")


def test_lines_for_the_journal_carry_their_priority_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log_to(stream, form=LogFormat.TEXT, level=LogLevel.DEBUG)
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            LOG.log(level, "said")
        crash()
        stream.seek(0)
        lines = stream.read().splitlines()
        log_to(io.StringIO(), form=LogFormat.TEXT, level=LogLevel.DEBUG)
    assert lines[:5] == ["<7>said", "<6>said", "<4>said", "<3>said", "<3>failed"]
    assert all(line.startswith("<3>") for line in lines[5:])


@pytest.mark.parametrize("value", ["", "1", "1:2", ":", "x:y"])
def test_another_file_is_no_journal(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", value)
    assert not in_journal(io.StringIO())
    with (tmp_path / "file").open("w", encoding="utf-8") as stream:
        assert not in_journal(stream)


def test_a_new_setting_takes_the_place_of_the_old(stream: io.StringIO) -> None:
    log_to(stream, form=LogFormat.TEXT, level=LogLevel.INFO)
    second = io.StringIO()
    log_to(second, form=LogFormat.JSON, level=LogLevel.DEBUG)
    LOG.debug("once")
    assert stream.getvalue() == ""
    assert len(json_lines(second)) == 1
