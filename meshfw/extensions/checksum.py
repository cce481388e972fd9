"""The CHECKSUM target: a checksum filled in before its time (iptables-extensions(8), CHECKSUM)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.extension import Extension, Option
from meshfw.model import Family, Rule, Table, Target


class Checksum(Target, frozen=True):
    """CHECKSUM: computes the checksum that a network card would have computed."""

    final: ClassVar[bool] = False
    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    fill: bool

    def __post_init__(self) -> None:
        if not self.fill:
            raise ModelError("CHECKSUM needs --checksum-fill")


def _to_nft(value: Checksum, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("CHECKSUM --checksum-fill: nft has no statement that fills in a checksum")


EXTENSIONS: Final = (
    Extension(
        name="CHECKSUM",
        value=Checksum,
        options=(Option("--checksum-fill", "fill", words=0),),
        to_nft=_to_nft,
    ),
)
