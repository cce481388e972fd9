"""The stages of a roll-out: which nodes try a release first, how many next, and at last all. Values alone, no I/O."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from meshfw import ConfigError

_SIZE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(%?)\Z")
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")


class Size(msgspec.Struct, frozen=True):
    """How many nodes: a number, or with ``share`` so many per cent of all."""

    number: float
    share: bool = False

    @classmethod
    def of(cls, text: str, *, key: str) -> Size:
        """The size that a text says, such as ``3`` or ``10%``; ``key`` is where it stands, for the message.

        Raises:
            ConfigError: it says none.
        """
        found = _SIZE.match(text.strip())
        if found is None or (not found[2] and "." in found[1]) or (found[2] and float(found[1]) > 100):
            raise ConfigError(f"{text!r} is no number of nodes", key=key, expected="such as 3, or 10% of all")
        return cls(float(found[1]), bool(found[2]))

    def among(self, nodes: int) -> int:
        """The number that it means where there are so many nodes, rounded up and never more than there are."""
        return min(nodes, math.ceil(nodes * self.number / 100) if self.share else int(self.number))

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.share else ''}"


class Canaries(msgspec.Struct, frozen=True):
    """Who tries a release first: ``names``, or so many as ``size`` says."""

    names: tuple[str, ...] = ()
    size: Size | None = None

    @classmethod
    def of(cls, text: str) -> Canaries:
        """The canaries that a text says: a number, a percentage, or names with commas between.

        Raises:
            ConfigError: it says none.
        """
        key = "--canaries"
        if _SIZE.match(text.strip()):
            size = Size.of(text, key=key)
            if not size.number:
                raise ConfigError("no canary at all", key=key, expected="1 or more; --now is for all at once")
            return cls(size=size)
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        for name in names:
            if not _NODE.match(name):
                raise ConfigError(f"{name!r} is no name of a node", key=key, expected="names such as web-1,web-2")
        if not names:
            raise ConfigError("it names no node", key=key, expected="such as web-1,web-2, or 3, or 10%")
        return cls(names=names)


def stages_of(text: str) -> tuple[Size, ...]:
    """The sizes of the stages that a text says, such as ``1,10%,100%``; the last is all.

    Raises:
        ConfigError: one is no size, or the last isn't all.
    """
    key = "--stages"
    sizes = tuple(Size.of(part, key=key) for part in text.split(","))
    if sizes[-1] != Size(100, share=True):
        raise ConfigError(f"the last stage is {sizes[-1]}", key=key, expected="100% at the end: all nodes")
    if any(not size.number for size in sizes):
        raise ConfigError("a stage has no node", key=key, expected="1 or more in each")
    return sizes


class Route(msgspec.Struct, frozen=True):
    """The way of a release: the nodes that try it, in order, and after how many of them each stage ends.

    What comes behind the last of these stages is all nodes at once, which ``order`` doesn't list.
    """

    order: tuple[str, ...]
    ends: tuple[int, ...]

    def tried(self, stage: int) -> tuple[str, ...]:
        """The nodes that try it when a stage, counted from 0, is under way."""
        return self.order[: self.ends[stage]]


def route(
    healthy: Collection[str], *, release: int, canaries: Canaries, sizes: Sequence[Size], everybody: int
) -> Route:
    """The way of a release through a fleet of ``everybody`` nodes, those of them first that may try it.

    Named canaries come first, ``healthy`` nodes behind them: in an order that is another for each release, so that not
    the same nodes bear every risk, and the same for whoever asks.
    """

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{release}:{name}".encode()).digest()

    rest = sorted(set(healthy) - set(canaries.names), key=place)
    order = (*canaries.names, *rest)
    first = len(canaries.names)
    if canaries.size is not None:
        first = canaries.size.among(everybody)
    counts = [first] if first else []
    counts += [size.among(everybody) for size in sizes if size != Size(100, share=True)]
    ends: list[int] = []
    for count in counts:
        end = min(count, len(order))
        if end > (ends[-1] if ends else 0):
            ends.append(end)
    return Route(order[: ends[-1]] if ends else (), tuple(ends))
