"""The clock by which Nodes are alive or not, and what of them is no more than a heartbeat.

Kilo's agents write the time into an annotation of their Node, every 30 s. Judged by a clock that runs on while nobody
hears the API server, every Node would die, one after another, and its rules with it. So this clock stands where the
server was last heard. After an outage it goes on standing for as long as the agents need to check in again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

LAST_SEEN: Final = "kilo.squat.ai/last-seen"
"""The annotation of the heartbeat, in Unix seconds."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}\Z")


class ContactClock:
    """Seconds since 1970 at the last word from the server; before the first, and while all is well, that of now."""

    def __init__(self, stale_after: float, *, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.stale_after = stale_after
        self._wall = wall
        self._monotonic = monotonic
        self.at = wall()
        self._contact: float | None = None
        self._lost = False
        self._stands_until = float("-inf")

    def contact(self) -> None:
        """The server has said something, and it is taken."""
        now = self._monotonic()
        long = self._contact is not None and now - self._contact >= self.stale_after / 2
        if self._lost and long:
            self._stands_until = now + self.stale_after
        self._contact, self._lost = now, False
        if now >= self._stands_until:
            self.at = self._wall()

    def lost(self) -> None:
        """The server can't be heard."""
        self._lost = True


def last_seen(node: Mapping[str, Any]) -> int:
    """When a Node (as it is kept) checked in last, in Unix seconds; 0 where it doesn't say."""
    text = node["metadata"]["annotations"].get(LAST_SEEN)
    return int(text) if isinstance(text, str) and _NUMBER.match(text) else 0


def without_heartbeat(kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """An object (as it is kept) without the annotation that moves by itself."""
    about = kept["metadata"]
    if LAST_SEEN not in about.get("annotations", ()):
        return kept
    annotations = {name: value for name, value in about["annotations"].items() if name != LAST_SEEN}
    return {**kept, "metadata": {**about, "annotations": annotations}}


def what_matters(objects: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Objects by name, each without its heartbeat."""
    return {name: without_heartbeat(kept) for name, kept in objects.items()}
