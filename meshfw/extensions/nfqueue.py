"""The NFQUEUE and QUEUE targets: a program decides about the packet (iptables-extensions(8), NFQUEUE)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import integer, listed, number
from meshfw.extensions.extension import Codec, Extension, Fields, Option, ParseContext
from meshfw.model import Family, Rule, Target, Twice

LAST: Final = 0xFFFF
"""The highest number of a queue."""


class NfQueue(Target, frozen=True, kw_only=True):
    """NFQUEUE: hands the packet to a queue from ``first`` to ``last``, each connection or, with ``fanout``, CPU to one.

    With ``bypass`` the packet goes on where no program listens, else it is dropped.
    """

    first: int = 0
    last: int = 0
    bypass: bool = False
    fanout: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= LAST:
            raise ModelError(f"queues {self.first}:{self.last}: two numbers from 0 to {LAST} in ascending order")
        if self.last - self.first == LAST:
            raise ModelError(f"queues {self.first}:{self.last}: the kernel counts {LAST} queues at the most")
        if self.fanout and self.first == self.last:
            raise ModelError("--queue-cpu-fanout needs --queue-balance")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "NFQUEUE"

    def twice(self) -> Twice | None:
        """Another verdict of the program's."""
        return Twice("a packet that its program lets pass is queued again")


class Queue(Target, frozen=True):
    """QUEUE: hands the packet to queue 0, as NFQUEUE without options does."""

    def atom(self, family: Family | None = None) -> Any:
        """The same as NFQUEUE's."""
        return NfQueue()

    def twice(self) -> Twice | None:
        """The same as of NFQUEUE."""
        return NfQueue().twice()


def _parse_range(text: str, context: ParseContext) -> tuple[int, int]:
    """``FIRST:LAST`` with either left out."""
    first, colon, last = text.partition(":")
    low = number(first, high=LAST) if first else 0
    high = number(last, high=LAST) if last else LAST
    if not colon or low >= high:
        raise ModelError(f"{text!r} is not a range of queues")
    return low, high


def _build(fields: Fields, context: ParseContext) -> NfQueue:
    only, balance = fields.pop("only", None), fields.pop("balance", None)
    if only is not None and balance is not None:
        raise ModelError("--queue-num can't stand beside --queue-balance")
    first, last = balance or (only or 0, only or 0)
    return NfQueue(first=first, last=last, **fields)


def _save(value: NfQueue, family: Family) -> Iterable[str]:
    if value.first == value.last:
        yield from ("--queue-num", str(value.first))
    else:
        yield from ("--queue-balance", f"{value.first}:{value.last}")
    if value.bypass:
        yield "--queue-bypass"
    if value.fanout:
        yield "--queue-cpu-fanout"


def _to_nft(value: Any, family: Family, rule: Rule) -> Iterable[str]:
    held: NfQueue = value.atom()
    flags = ",".join(name for name in ("bypass", "fanout") if getattr(held, name))
    queues = str(held.first) if held.first == held.last else f"{held.first}-{held.last}"
    yield f"queue{f' flags {flags}' if flags else ''} to {queues}"


def _from_nft(body: Any, family: Family) -> NfQueue | None:
    body = body or {}
    flags = listed(body.get("flags", []))
    if set(body) - {"num", "flags"} or set(flags) - {"bypass", "fanout"}:
        return None
    queues = body.get("num", 0)
    first, last = queues["range"] if isinstance(queues, dict) else (queues, queues)
    return NfQueue(first=int(first), last=int(last), bypass="bypass" in flags, fanout="fanout" in flags)


EXTENSIONS: Final = (
    Extension(
        name="NFQUEUE",
        value=NfQueue,
        options=(
            Option("--queue-num", "only", integer(f"a queue's number from 0 to {LAST}", high=LAST)),
            Option("--queue-balance", "balance", Codec(parse=_parse_range, format=str, expected="FIRST:LAST")),
            Option("--queue-bypass", "bypass", words=0),
            Option("--queue-cpu-fanout", "fanout", words=0),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft={"queue": _from_nft},
    ),
    Extension(name="QUEUE", value=Queue, to_nft=_to_nft),
)
