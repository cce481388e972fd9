"""Text made fit to be shown: comments of rules and names of processes are strangers' and may hold anything."""

from __future__ import annotations

import re
from typing import Final

_COMMANDING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters (ECMA-48, C0 and C1) but tab and newline, and those that reorder or break lines (UAX #9)."""


def printable(text: str) -> str:
    """The text with whatever could command a terminal written as an escape; lines and tabs stay."""
    return _COMMANDING.sub(_escaped, text)


def one_line(text: str) -> str:
    """The printable text of what stands on one line, whatever it holds."""
    return printable(text).replace("\n", "\\n")


def whole(text: str) -> str:
    """The printable text of one line, with escapes for what can't be written in UTF-8 either."""
    return one_line(text).encode("utf-8", "backslashreplace").decode()


def counted(number: int, noun: str) -> str:
    """``1 change``, ``2 changes``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
