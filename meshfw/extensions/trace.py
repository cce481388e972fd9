"""The TRACE target: every rule that a packet meets is reported (iptables-extensions(8), TRACE)."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from meshfw.extensions.extension import Extension
from meshfw.model import Family, Table, Target, Twice


class Trace(Target, frozen=True):
    """TRACE: from here on the kernel reports each rule that the packet meets."""

    final: ClassVar[bool] = False
    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.RAW})

    def twice(self) -> Twice | None:
        """The rules of both copies."""
        return Twice("the rules of both copies are reported")


def _from_nft(body: Any, family: Family) -> Trace | None:
    return Trace() if body["value"] == 1 else None


EXTENSIONS: Final = (
    Extension(
        name="TRACE",
        value=Trace,
        to_nft=lambda value, family, rule: ("meta nftrace set 1",),
        from_nft={"mangle meta nftrace": _from_nft},
    ),
)
