"""The agent's log on standard error: a line each event, as text for people or as JSON for programs.

What is logged carries its data as fields (``extra=``, one by one or together as ``fields``), never only in words.
Names of processes and comments of rules are strangers' text, so nothing of it can end a line early or command a
terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from meshfw.printable import one_line, whole
from meshfw.settings import LogFormat, LogLevel

NAME: Final = "meshfw"
"""The logger that all of meshfw's are below."""
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_PLAIN: Final = re.compile(r"[^\s\"=\\]+\Z")
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_to(stream: TextIO, *, form: LogFormat, level: LogLevel) -> logging.Handler:
    """The handler by which meshfw's loggers write to a stream from now on, in place of any before.

    Lines for the journal begin with their priority (sd-daemon(3)) and leave the time to it.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form is LogFormat.JSON else TextLines(journal=in_journal(stream)))
    logger = logging.getLogger(NAME)
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    return handler


def in_journal(stream: TextIO) -> bool:
    """Whether the journal reads a stream: $JOURNAL_STREAM has its device and inode (systemd.exec(5))."""
    device, colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file at all
        return False
    return bool(colon) and (device, inode) == (str(status.st_dev), str(status.st_ino))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: value for name, value in vars(record).items() if name not in _OWN}
    together = found.pop("fields", {})
    return {**found, **together} if isinstance(together, Mapping) else {**found, "fields": together}


class TextLines(logging.Formatter):
    """A record as ``message name=value ...`` on one line, the lines of a traceback behind it."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record, each with its priority or the first with its time."""
        words = [whole(record.getMessage()), *(f"{name}={_value(value)}" for name, value in _fields(record).items())]
        lines = [" ".join(words)]
        if record.exc_info:
            lines += map(whole, self.formatException(record.exc_info).splitlines())
        if self._journal:
            priority = _PRIORITIES.get(record.levelno, 6)
            return "\n".join(f"<{priority}>{line}" for line in lines)
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        return "\n".join([f"{time} {record.levelname.lower()}: {lines[0]}", *(f"  {line}" for line in lines[1:])])


def _value(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)
    if _PLAIN.match(text) and text.isascii():
        return one_line(text)
    return json.dumps(text)


class JsonLines(logging.Formatter):
    """A record as one JSON object in ASCII: time (RFC 3339), level, message, logger, its fields, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The one line of a record."""
        data = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        for name, value in _fields(record).items():
            data[f"{name}_" if name in data else name] = value
        if record.exc_info:
            data["traceback"] = self.formatException(record.exc_info)
        return json.dumps(data, default=_builtin)


def _builtin(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
