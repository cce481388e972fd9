"""The connlabel match: a label that a connection carries, or gets (iptables-extensions(8), connlabel)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import number, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Family, Match, Not, Packet, Rule, Twice

LABEL_MAX: Final = 127  # linux/netfilter/xt_connlabel.h, XT_CONNLABEL_MAXBIT


class ConnLabel(Match, frozen=True):
    """The connection carries a label, by its bit; with ``set`` it gets the label where it doesn't."""

    stateful: ClassVar[bool] = True  # it may change the connection
    label: int | Not[int]
    set: bool = False

    def __post_init__(self) -> None:
        label = sign(self.label)[1]
        if not 0 <= label <= LABEL_MAX:
            raise ModelError(f"label {label} is not between 0 and {LABEL_MAX}")

    def meets(self, packet: Packet) -> bool | None:
        """What belongs to no connection carries no label."""
        return type(self.label) is Not if packet.tracked is False else None

    def twice(self) -> Twice | None:
        """Nothing: a label is set or isn't."""
        return None


def _parse(text: str, context: ParseContext) -> int:
    if not text[:1].isdigit():  # the tools read /etc/xtables/connlabel.conf, which few hosts have
        raise ModelError(f"{text!r} is a label's name; say its number")
    return number(text, high=LABEL_MAX)


_LABEL: Final = Codec(
    parse=_parse, format=lambda label: f'"{label}"', expected=f"a label's number from 0 to {LABEL_MAX}"
)


def _to_nft(value: ConnLabel, family: Family, rule: Rule) -> Iterable[str]:
    negated, label = sign(value.label)
    if value.set:
        raise InexpressibleError("connlabel --set: nft sets a label, but can't tell whether the connection took it")
    if negated:
        raise InexpressibleError(f"! --label {label}: a packet without a connection meets it, but not in nft")
    yield f"ct label {label}"


def _read(match: NftMatch, family: Family) -> ConnLabel | None:
    return ConnLabel(match.right) if match.op == "in" and isinstance(match.right, int) and match.mask is None else None


_READERS: Final[dict[str, Any]] = {"ct label": _read}

EXTENSIONS: Final = (
    Extension(
        name="connlabel",
        value=ConnLabel,
        options=(Option("--label", "label", _LABEL, invertible=True), Option("--set", "set", words=0)),
        to_nft=_to_nft,
        from_nft=_READERS,
    ),
)
