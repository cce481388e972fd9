"""What the verbs print: text for people, in colour on a terminal, or the same data as JSON for programs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from meshfw.errors import MeshfwError
from meshfw.plan import Edit
from meshfw.printable import counted as counted  # noqa: PLC0414 - the verbs find here whatever prints
from meshfw.printable import one_line as one_line  # noqa: PLC0414 - as above
from meshfw.printable import printable as printable  # noqa: PLC0414 - as above

_STYLES: Final = {"+": "green", "~": "yellow", "-": "red"}
_IPV4: Final = re.compile(r"\bipv4\b")


def for_tools(text: str) -> str:
    """Text that tools read as it is; on a terminal, which would obey what it holds, escaped as for people."""
    return printable(text) if sys.stdout.isatty() else text


def print_json(data: object) -> None:
    """One JSON document on standard output."""
    try:
        text = msgspec.json.encode(data, enc_hook=str)
    except UnicodeEncodeError:  # an argument or the name of a file whose bytes are no text
        text = msgspec.json.encode(_as_text(msgspec.to_builtins(data, enc_hook=str)))
    print(msgspec.json.format(text, indent=2).decode())


def _as_text(data: Any) -> Any:
    """The data with escapes for what can't be written in UTF-8."""
    if isinstance(data, dict):
        return {_as_text(key): _as_text(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_as_text(value) for value in data]
    return data.encode("utf-8", "backslashreplace").decode() if isinstance(data, str) else data


def print_edits(edits: Sequence[Edit], *, most: int | None = None) -> None:
    """The lines of a plan, at most so many of them; each symbol has its colour on a terminal."""
    _print_lines(edits[:most])
    if most is not None and len(edits) > most:
        print(f"... {len(edits) - most} more (-v shows all)")


def _print_lines(edits: Sequence[Edit]) -> None:
    if not sys.stdout.isatty():
        for edit in edits:
            print(one_line(str(edit)))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for edit in edits:
        console.print(Text(one_line(str(edit)), style=_STYLES[edit.symbol]), soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Each warning on a line of standard error, once; what is so in both families is one line."""
    left: dict[str, str | None] = dict.fromkeys(warnings)
    for warning in list(left):
        if warning not in left:
            continue
        twin = _IPV4.sub("ipv6", warning)
        both = twin != warning and left.pop(twin, twin) is None
        shown = _IPV4.sub("ipv4 and ipv6", warning) if both else warning
        print(f"meshfw: warning: {printable(shown)}", file=sys.stderr)


class UnfinishedError(Exception):
    """An error after a part of the work: ``done`` is that part's data, printed with that of the ``error``."""

    def __init__(self, error: Exception, done: dict[str, Any]) -> None:
        super().__init__(error, done)
        self.error = error
        self.done = done


def error_message(error: Exception) -> str:
    """What went wrong, where, and what to do, as far as it's known."""
    if isinstance(error, MeshfwError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{place}{error.strerror or error}"
    return f"{type(error).__name__}: {error} (a defect of meshfw; -v shows where it is)"


def error_data(error: Exception) -> dict[str, Any]:
    """An error's data: its type, its message, and the fields that its type has."""
    fields = {name: value for name, value in vars(error).items() if value and not name.startswith("_")}
    return {"type": type(error).__name__, "message": error_message(error), **fields}
