"""What the words behind options say, as values; each refuses what can't be meant."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DAY: Final = 86400.0


def name(text: str) -> str:
    """A name as given; an empty one, mostly a variable that isn't set, must not pass for none at all."""
    if not text:
        raise ArgumentTypeError("it is empty, and names nothing")
    return text


def state(text: str) -> int:
    """The number of a kept state."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 1 << 31):
        raise ArgumentTypeError(f"{text!r} is no number of a state: 'meshfw history' lists them")
    return int(text)


def seconds(text: str) -> float:
    """Seconds to wait, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no time to wait: seconds, 0 or more")
    return value


def duration(text: str) -> float:
    """The seconds of a number with a unit, more than 0 and at most a day."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < value <= _DAY:
        raise ArgumentTypeError(f"{text!r} is no duration: seconds, or a number with s, m or h, at most 24h")
    return value


def interval(text: str) -> float:
    """Seconds between two looks."""
    value = seconds(text)
    if not 0.1 <= value <= 3600:
        raise ArgumentTypeError(f"{text!r} is no time between two looks: seconds from 0.1 to 3600")
    return value
