"""What the verbs print: text for people, in colour on a terminal, or the same data as JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from meshfw.errors import MeshfwError
from meshfw.plan import Edit

_STYLES: Final = {"+": "green", "~": "yellow", "-": "red"}


def print_json(data: object) -> None:
    """One JSON document on standard output."""
    print(msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode())


def print_edits(edits: Iterable[Edit]) -> None:
    """The lines of a plan; each symbol has its colour on a terminal."""
    if not sys.stdout.isatty():
        for edit in edits:
            print(edit)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for edit in edits:
        console.print(Text(str(edit), style=_STYLES[edit.symbol]), soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Each warning on a line of standard error."""
    for warning in warnings:
        print(f"meshfw: warning: {warning}", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """``1 change``, ``2 changes``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
