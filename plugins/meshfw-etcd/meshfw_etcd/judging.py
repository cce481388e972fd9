"""What acknowledgements say of a release: who holds it, who failed at it, who says nothing. Values alone, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from meshfw_etcd.documents import Ack

_SHOWN: Final = 5
"""So many nodes a message names; all are in ``meshfw fleet status``."""


class Verdict(msgspec.Struct, frozen=True):
    """What became of a release at the nodes that were to get it; ``failed`` has the error of each.

    ``others`` are nodes that weren't to get it and fail since it began, with the error of each. ``later`` is a release
    with a higher number that a node speaks of, 0 where none does.
    """

    applied: tuple[str, ...] = ()
    failed: Mapping[str, str] = {}
    missing: tuple[str, ...] = ()
    others: Mapping[str, str] = {}
    later: int = 0

    @property
    def bad(self) -> str:
        """Why the roll-out must not go on, in words; empty where nothing speaks against it."""
        if self.later:
            return f"somebody else published release {self.later} in between"
        if self.failed:
            return f"{_count(len(self.failed))} failed at it: {_errors(self.failed)}"
        if self.others:
            return f"{_count(len(self.others))} without it fail since it began: {_errors(self.others)}"
        return ""


def judge(
    acks: Mapping[str, Ack], wanted: Collection[str], *, release: int, digest: str, failing: Collection[str] = ()
) -> Verdict:
    """What the acknowledgements say of a release, which ``wanted`` were to get; ``failing`` did so before it."""
    applied, missing = [], []
    failed: dict[str, str] = {}
    for name in wanted:
        ack = acks.get(name)
        if ack is None or ack.release != release:
            missing.append(name)  # whatever it said of another release, before it heard of this one
        elif ack.state == "failed":
            failed[name] = ack.error
        elif ack.digest != digest:
            failed[name] = "it acknowledged another text than this release's"
        else:
            applied.append(name)
    known = {*wanted, *failing}
    others = {name: ack.error for name, ack in acks.items() if ack.state == "failed" and name not in known}
    latest = max((ack.release for ack in acks.values()), default=0)
    return Verdict(tuple(applied), failed, tuple(missing), others, latest if latest > release else 0)


def failing_now(acks: Mapping[str, Ack]) -> tuple[str, ...]:
    """The nodes whose last word is that they failed."""
    return tuple(sorted(name for name, ack in acks.items() if ack.state == "failed"))


def silent(missing: Collection[str]) -> str:
    """That nodes didn't acknowledge, in words."""
    return f"{_count(len(missing))} didn't acknowledge it: {named(missing)}"


def named(names: Collection[str]) -> str:
    """The first of the names, and how many more there are."""
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _count(number: int) -> str:
    return f"{number} node{'' if number == 1 else 's'}"


def _errors(errors: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name}: {error or 'it says no reason'}" for name, error in sorted(errors.items())[:_SHOWN])
    return f"{shown}; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else shown
