"""The cpu match: the processor that handles a packet (iptables-extensions(8), cpu)."""

from __future__ import annotations

from typing import Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import number, plain_condition, set_nft
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option
from meshfw.model import Match, Not


class Cpu(Match, frozen=True):
    """The number of the processor, counted from 0."""

    cpu: int | Not[int]


def _read(match: NftMatch) -> int:
    if not plain_condition(match):
        raise ModelError("a processor under a mask")
    return int(match.right)


_CPU: Final = Codec(
    parse=lambda text, context: number(text),
    format=str,
    expected="a processor's number",
    nft=lambda left, value, negated: set_nft(left, str(value), negated),
    read=_read,
)

EXTENSIONS: Final = (
    Extension(
        name="cpu",
        value=Cpu,
        options=(Option("--cpu", "cpu", _CPU, invertible=True, nft="meta cpu"),),
    ),
)
