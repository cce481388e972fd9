"""The documents of a roll-out: the releases that are kept, and the state of the roll-out that is or was under way."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from meshfw_etcd.documents import FORMAT, OrNone, Release, digest
from meshfw_etcd.stages import Route

KEPT: Final = 20
"""How many releases are kept, besides the one that stands."""


class ReleaseText(msgspec.Struct, frozen=True, kw_only=True):
    """A release as it is kept, so that it can be brought back.

    ``base`` is the release that stood when it was made, ``restores`` the one whose text it brings back, 0 for none.
    ``published`` is when it became that of all nodes, in seconds since the epoch; 0: it never did.
    """

    release: Release
    rules: str
    digest: str
    base: OrNone = 0
    restores: OrNone = 0
    force: bool = False
    message: str = ""
    by: str = ""
    time: float = 0.0
    published: float = 0.0
    format: int = FORMAT


Phase = Literal["trying", "settling", "halting", "halted", "done", "aborted"]
UNDER_WAY: Final[frozenset[Phase]] = frozenset({"trying", "settling", "halting"})
"""The phases in which somebody has to go on."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a roll-out: whose it is, how far it is, and how it is to go on.

    ``trying``: the nodes of ``route`` up to ``stage``'s end have the release as their trial, or are getting it.
    ``settling``: it is the common one, and trials are taken back that nobody needs any more. ``halting``: it failed for
    the ``reason``, and trials are being taken back; then it is ``halted``, or ``aborted`` where somebody said so.

    ``common`` is the revision of the store that wrote the release it builds on. ``failing`` are nodes that failed
    before it began. ``owner`` and ``step`` tell one writer's writes apart, ``by`` names him, ``beat`` is when he
    wrote last. Times are in seconds, and points in time since the epoch.
    """

    release: Release
    digest: str
    base: OrNone = 0
    common: int = 0
    phase: Phase
    route: Route = Route((), ())
    stage: int = 0
    reached: int = 0
    timeout: float
    soak: float
    missing: int = 0
    failing: tuple[str, ...] = ()
    reason: str = ""
    ends_as: Phase = "halted"
    force: bool = False
    owner: str = ""
    step: int = 0
    by: str = ""
    started: float = 0.0
    beat: float = 0.0
    format: int = FORMAT

    @property
    def under_way(self) -> bool:
        """Whether somebody has to go on with it."""
        return self.phase in UNDER_WAY

    @property
    def trying(self) -> tuple[str, ...]:
        """The nodes that have it as their trial, or are just getting it."""
        return self.route.order[: self.reached] if self.under_way else ()


def new_release(number: int, rules: str, **fields: object) -> ReleaseText:
    """The release of a text."""
    return msgspec.convert({"release": number, "rules": rules, "digest": digest(rules), **fields}, ReleaseText)
