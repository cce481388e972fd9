"""The nfacct match: it meets every packet and counts it in an object of nfacct(8) (iptables-extensions(8), nfacct)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import ModelError
from meshfw.extensions.codecs import plain, quoted
from meshfw.extensions.extension import Extension, NftObject, Option
from meshfw.extensions.meter import name_of, nft_name
from meshfw.model import Family, Match, Rule, Twice, byte_length

NAME_BYTES: Final = 31  # linux/netfilter/nfnetlink_acct.h, NFACCT_NAME_MAX with the final NUL
_PREFIX: Final = "nfacct-"


class NfAcct(Match, frozen=True):
    """An accounting object by its name; an object with a quota of its own, of nfacct(8), is met only beyond it."""

    stateful: ClassVar[bool] = True
    name: str

    def __post_init__(self) -> None:
        if not 1 <= byte_length(self.name) <= NAME_BYTES or not self.name.isprintable():
            raise ModelError(f"the name of an accounting object has 1 to {NAME_BYTES} bytes")

    def twice(self) -> Twice | None:
        """Another count."""
        return Twice("each packet is counted twice in the accounting object")


def _to_nft(value: NfAcct, family: Family, rule: Rule) -> Iterable[str | NftObject]:
    """A counter object: what nfacct(8) counts, nft lists."""
    name = nft_name(_PREFIX, value.name)
    yield NftObject("counter", name, "")
    yield f'counter name "{name}"'


def _from_nft(body: Any, family: Family) -> NfAcct | None:
    name = name_of(_PREFIX, body) if isinstance(body, str) else None
    return None if name is None else NfAcct(name)


EXTENSIONS: Final = (
    Extension(
        name="nfacct",
        value=NfAcct,
        options=(Option("--nfacct-name", "name", plain("the name of an accounting object")),),
        save=lambda value, family: ("--nfacct-name", "", quoted(value.name)),  # iptables-save prints two spaces
        to_nft=_to_nft,
        from_nft={"counter": _from_nft},
    ),
)
