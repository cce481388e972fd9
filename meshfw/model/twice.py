"""What comes of a match or target that one packet meets twice, as while two backends hold the same rules."""

from __future__ import annotations

from typing import Final

import msgspec


class Twice(msgspec.Struct, frozen=True):
    """The effect in words; ``alters`` is whether the packet or its connection leaves as another than after one."""

    effect: str
    alters: bool = False


ANEW: Final = Twice("each copy counts for itself, a packet has to pass both, and the new one begins anew")
"""What counts or remembers for itself alone."""
UNKNOWN: Final = Twice("meshfw doesn't know what it does to a packet that it has met before", alters=True)
"""What the typed language doesn't know."""
