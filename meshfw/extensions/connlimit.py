"""The connlimit match: how many connections an address, or its network, has (iptables-extensions(8), connlimit)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import PREFIX, integer, sign
from meshfw.extensions.extension import Extension, Option, ParseContext
from meshfw.extensions.meter import SIZE, meter, prefix_mask, read_meter
from meshfw.model import Family, Match, Rule, Twice


class ConnLimit(Match, frozen=True, kw_only=True):
    """More than ``limit`` connections of one network, or with ``upto`` at most so many.

    ``mask`` is the prefix length of such a network (None: each address by itself), of the source address unless
    ``destination`` is set.
    """

    stateful: ClassVar[bool] = True
    limit: int
    upto: bool = False
    mask: int | None = None
    destination: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 0xFFFFFFFF:
            raise ModelError(f"{self.limit} connections: a number of 32 bits")

    def atoms(self) -> Iterable[Any]:
        """The whole; with a mask of no bits, whose address it is does not matter."""
        yield ("connlimit", self.limit, self.upto, self.mask, self.destination and self.mask != 0)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A mask longer than the family's addresses."""
        if self.mask is not None and self.mask > family.bits:
            return f"connlimit: /{self.mask} is longer than an {family} address"
        return None

    def twice(self) -> Twice | None:
        """Nothing while both stand; the new copy begins anew."""
        return Twice("each copy knows the connections that it has seen, and the new one begins with none")


_LIMIT: Final = integer("a number of connections")


def _build(fields: dict[str, Any], context: ParseContext) -> ConnLimit:
    if ("upto" in fields) == ("above" in fields):
        raise ModelError("connlimit needs one of --connlimit-upto and --connlimit-above")
    upto = "upto" in fields
    negated, limit = sign(fields.pop("upto" if upto else "above"))
    if fields.pop("source", False) and "destination" in fields:
        raise ModelError("--connlimit-saddr can't stand beside --connlimit-daddr")
    if fields.get("mask") == context.family.bits:
        del fields["mask"]
    return ConnLimit(limit=limit, upto=upto is not negated, **fields)


def _save(value: ConnLimit, family: Family) -> Iterable[str]:
    return (
        "--connlimit-upto" if value.upto else "--connlimit-above",
        str(value.limit),
        "--connlimit-mask",
        str(family.bits if value.mask is None else value.mask),
        "--connlimit-daddr" if value.destination else "--connlimit-saddr",
    )


# --- nft ------------------------------------------------------------------------------------------------------

_PREFIX: Final = "connlimit-"


def _to_nft(value: ConnLimit, family: Family, rule: Rule) -> Iterable[str]:
    count = f"ct count {'' if value.upto else 'over '}{value.limit}"
    if value.mask == 0:
        return (count,)
    # Every rule counts for itself, and a table holds one meter of a name: so the name is made of what the rule states.
    digest = hashlib.sha256(repr((value, rule)).encode()).hexdigest()[:12]
    mask = None if value.mask is None else prefix_mask(value.mask, family)
    field = f"{'ip' if family is Family.IPV4 else 'ip6'} {'daddr' if value.destination else 'saddr'}"
    return (meter(f"{_PREFIX}{digest}", [(field, mask)], count),)


def _count(body: Any) -> dict[str, Any]:
    if set(body) - {"val", "inv"}:
        raise ModelError(f"{body} in a count of connections")
    return {"limit": int(body["val"]) & 0xFFFFFFFF, "upto": not body.get("inv", False)}


def _from_meter(body: Any, family: Family) -> ConnLimit | None:
    if not body["name"].startswith(_PREFIX) or body["size"] != SIZE:
        return None
    key, seconds = read_meter(body)
    if len(key) != 1 or seconds:
        return None
    ((field, mask),) = key.items()
    length = None if mask is None else mask.bit_count()
    network = "ip" if family is Family.IPV4 else "ip6"
    if field not in (f"{network} saddr", f"{network} daddr") or (
        length is not None and prefix_mask(length, family) != mask
    ):
        return None
    return ConnLimit(mask=length, destination=field.endswith("daddr"), **_count(body["stmt"]["ct count"]))


EXTENSIONS: Final = (
    Extension(
        name="connlimit",
        value=ConnLimit,
        options=(
            Option("--connlimit-upto", "upto", _LIMIT, invertible=True),
            Option("--connlimit-above", "above", _LIMIT, invertible=True),
            Option("--connlimit-mask", "mask", PREFIX),
            Option("--connlimit-saddr", "source", words=0),
            Option("--connlimit-daddr", "destination", words=0),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
        from_nft={"meter ct count": _from_meter, "ct count": lambda body, family: ConnLimit(mask=0, **_count(body))},
    ),
)
