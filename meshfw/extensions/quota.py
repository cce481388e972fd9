"""The quota match: as many bytes as it states, and then no more (iptables-extensions(8), quota)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, sign
from meshfw.extensions.extension import Extension, Option
from meshfw.model import Family, Match, Not, Rule

_MAX: Final = 0xFFFFFFFFFFFFFFFF
_NFT_MAX: Final = 0x7FFFFFFFFFFFFFFF  # net/netfilter/nft_quota.c
_UNITS: Final = {"mbytes": 1 << 20, "kbytes": 1 << 10, "bytes": 1}


class Quota(Match, frozen=True):
    """Packets as long as their bytes fit in what is left of the quota; negated, those that no longer do."""

    stateful: ClassVar[bool] = True
    quota: int | Not[int]

    def __post_init__(self) -> None:
        if not 0 <= sign(self.quota)[1] <= _MAX:
            raise ModelError("a quota is a number of bytes of 64 bits")

    def atoms(self) -> Iterable[Any]:
        """Sign and bytes."""
        yield ("quota", *sign(self.quota))


def _to_nft(value: Quota, family: Family, rule: Rule) -> Iterable[str]:
    negated, octets = sign(value.quota)
    if octets > _NFT_MAX:
        raise InexpressibleError(f"--quota {octets}: nft counts up to {_NFT_MAX} bytes")
    unit = next(name for name, size in _UNITS.items() if (octets and not octets % size) or size == 1)
    yield f"quota {'over ' if negated else ''}{octets // _UNITS[unit]} {unit}"


def _from_nft(body: Any, family: Family) -> Quota | None:
    if not isinstance(body, dict) or set(body) - {"val", "val_unit", "inv"}:  # also a quota object's name
        return None
    octets = int(body["val"]) * _UNITS[body["val_unit"]]
    return Quota(Not(octets) if body.get("inv") else octets)


EXTENSIONS: Final = (
    Extension(
        name="quota",
        value=Quota,
        options=(Option("--quota", "quota", integer("a number of bytes", high=_MAX), invertible=True),),
        to_nft=_to_nft,
        from_nft={"quota": _from_nft},
    ),
)
