"""The owner match: the user and group of the socket that a packet left (iptables-extensions(8), owner)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import number, plain_condition, set_nft, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Hook, Match, Not, Rule

ID_MAX: Final = 0xFFFFFFFE
"""The highest number of a user or group; the next one stands for none (chown(2))."""


class Ids(msgspec.Struct, frozen=True, gc=False, order=True):
    """One user or group or a range of them by number, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= ID_MAX:
            raise ModelError(f"ids {self.low}-{self.high}: two numbers from 0 to {ID_MAX} in ascending order")

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


class Owner(Match, frozen=True, kw_only=True):
    """A packet's socket: whether there is one, and the user and group of the process that opened it.

    With ``supplementary`` the groups of that process count as well (``--suppl-groups``).
    """

    socket: bool | Not[bool] | None = None
    uid: Ids | Not[Ids] | None = None
    gid: Ids | Not[Ids] | None = None
    supplementary: bool = False

    def __post_init__(self) -> None:
        if self.socket is None and self.uid is None and self.gid is None:
            raise ModelError("owner needs --uid-owner, --gid-owner or --socket-exists")
        if self.supplementary and self.gid is None:
            raise ModelError("--suppl-groups needs --gid-owner")

    @property
    def owned(self) -> bool:
        """Whether only packets of a socket with an owner meet it; ``! --uid-owner`` is met without one (xt_owner.c)."""
        return isinstance(self.uid, Ids) or isinstance(self.gid, Ids)

    def atoms(self) -> Iterable[Any]:
        """One part for each option, without a socket asked for that another option needs anyway."""
        if type(self.socket) is Not:
            if self.owned or self.supplementary:
                yield ("owner never",)
            else:
                yield ("socket", True)  # and so every ! is met
            return
        if not self.owned and (self.socket is not None or self.supplementary):
            yield ("socket", False)
        if self.uid is not None:
            yield ("skuid", *sign(self.uid))
        if self.gid is not None:
            yield ("skgids" if self.supplementary else "skgid", *sign(self.gid))

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet that was made here passes (xt_owner.c)."""
        return frozenset({Hook.OUTPUT, Hook.POSTROUTING})


def _ids(names: str) -> Callable[[str, ParseContext], Ids]:
    """The parser of a name out of one of the host's tables, of a number or of a range of numbers."""

    def parse(text: str, context: ParseContext) -> Ids:
        found = getattr(context.hosts, names).get(text)
        if found is not None:
            return Ids(found, found)
        first, dash, last = text.replace(":", "-").partition("-")
        try:
            low = number(first, high=ID_MAX)
            return Ids(low, number(last, high=ID_MAX) if dash else low)
        except ModelError as error:
            kind = names.removesuffix("s")
            raise ModelError(f"{text!r} is neither a {kind} of this host nor a range of ids: {error}") from None

    return parse


def _codec(names: str) -> Codec:
    return Codec(parse=_ids(names), format=str, expected=f"a {names.removesuffix('s')}'s name or number, or FIRST-LAST")


def _nearest(value: Owner) -> Iterable[str]:
    """The conditions on owners, negated ones among them, which packets without an owner never meet."""
    for left, ids in (("meta skuid", value.uid), ("meta skgid", value.gid)):
        if ids is not None:
            negated, held = sign(ids)
            yield set_nft(left, str(held), negated)


def _to_nft(value: Owner, family: Family, rule: Rule) -> Iterable[str]:
    if value.supplementary:
        raise InexpressibleError("--suppl-groups: nft's meta skgid is the one group of the socket's owner")
    for option, held in (("--uid-owner", value.uid), ("--gid-owner", value.gid)):
        if type(held) is Not:
            raise InexpressibleError(
                f"! {option} {held.value}: a packet without an owner, which the kernel itself or a closed socket sent, "
                "meets it, and no condition of nft on an owner",
                nearest=tuple(_nearest(value)),
            )
    if type(value.socket) is Not:
        raise InexpressibleError("! --socket-exists: no condition of nft is met without a socket")
    if value.socket is not None and not value.owned:
        raise InexpressibleError("--socket-exists alone: nft doesn't see the sockets of the kernel itself")
    for left, ids in (("meta skuid", value.uid), ("meta skgid", value.gid)):
        if isinstance(ids, Ids):
            yield set_nft(left, str(ids), negated=False)


def _reader(field: str) -> Callable[[NftMatch, Family], Owner | None]:
    def read(match: NftMatch, family: Family) -> Owner | None:
        if not plain_condition(match) or match.negated:  # which means less than iptables' negation
            return None
        right = match.right
        low, high = right["range"] if isinstance(right, Mapping) else (right, right)
        fields: dict[str, Any] = {field: Ids(int(low), int(high))}
        return Owner(**fields)

    return read


EXTENSIONS: Final = (
    Extension(
        name="owner",
        value=Owner,
        options=(
            Option("--socket-exists", "socket", words=0, invertible=True),
            Option("--uid-owner", "uid", _codec("users"), invertible=True),
            Option("--gid-owner", "gid", _codec("groups"), invertible=True),
            Option("--suppl-groups", "supplementary", words=0),
        ),
        to_nft=_to_nft,
        from_nft={"meta skuid": _reader("uid"), "meta skgid": _reader("gid")},
    ),
)
