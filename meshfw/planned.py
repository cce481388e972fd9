"""Plans as documents: what was reviewed, and what must still be so when it is carried out."""

from __future__ import annotations

from typing import Final

import msgspec

from meshfw.errors import StateError
from meshfw.sealed import seal, unseal

KIND: Final = "plan"
VERSION: Final = 1
"""The version of the document; another one is refused."""


class Planned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan as it was reviewed.

    ``namespace`` is the identity of the network namespace that ``netns`` (None: the caller's) meant. ``wanted`` is the
    digest of the ruleset, as far as it fits the host, and ``kernel`` that of what the kernel held of the owner's.
    ``changes`` are the plan's lines, and ``transaction`` the text of what would have run then.
    """

    owner: str
    backend: str
    netns: str | None
    namespace: str
    time: float
    wanted: str
    kernel: str
    changes: tuple[str, ...] = ()
    transaction: str = ""

    def moved(self, now: Planned) -> str:
        """What differs from the plan that would be made now; empty where nothing does.

        What the transaction's text holds beyond the plan (counters, handles) may differ.
        """
        if self.owner != now.owner:
            return f"it is for owner {self.owner}, and this is {now.owner}"
        if self.backend != now.backend:
            return f"it is for backend {self.backend}, and this is {now.backend}"
        if self.netns != now.netns:
            return f"it is for {_named(self.netns)}, and this is {_named(now.netns)}"
        if self.namespace != now.namespace:
            return f"{_named(self.netns)} isn't the one any more that it was made for"
        if self.wanted != now.wanted:
            return "the declared rules have changed since it was made"
        if self.kernel != now.kernel:
            return "the kernel's rules of ours have changed since it was made"
        if self.changes != now.changes:  # the same rules on both sides, but another meshfw
            return "its changes aren't those that would be made now"
        return ""


def _named(netns: str | None) -> str:
    return "the network namespace of whoever asks" if netns is None else f"network namespace {netns}"


def format_planned(planned: Planned) -> bytes:
    """The document of a plan; StateError where it holds text that JSON can't."""
    return seal(planned, kind=KIND, version=VERSION)


def parse_planned(document: bytes) -> Planned:
    """The plan of a document.

    Raises:
        StateError: it is cut off, damaged, or of another kind or version.
    """
    try:
        return msgspec.json.decode(unseal(document, kind=KIND, version=VERSION), type=Planned)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"it holds no plan: {error}") from None
