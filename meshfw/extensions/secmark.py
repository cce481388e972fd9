"""The SECMARK and CONNSECMARK targets: security marks of packets and connections (iptables-extensions(8), SECMARK)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.extension import Codec, Extension, NftObject, Option
from meshfw.model import Family, Rule, Table, Target

CONTEXT_BYTES: Final = 255
"""The longest context (linux/netfilter/xt_SECMARK.h, SECMARK_SECCTX_MAX with the final NUL)."""
_CONTEXT: Final = re.compile(r"[A-Za-z0-9_.:,-]+\Z")
_TABLES: Final = frozenset({Table.MANGLE, Table.SECURITY})


class SecMark(Target, frozen=True):
    """SECMARK: gives the packet a security context, as selinux(8) writes it."""

    final: ClassVar[bool] = False
    tables: ClassVar[frozenset[Table] | None] = _TABLES
    context: str

    def __post_init__(self) -> None:
        if not _CONTEXT.match(self.context) or len(self.context) > CONTEXT_BYTES:
            raise ModelError(
                f"security context {self.context!r}: 1 to {CONTEXT_BYTES} letters, digits and _ . : , - are allowed"
            )


class ConnSecMark(Target, frozen=True):
    """CONNSECMARK: copies a mark where there is none, ``save`` to the connection or ``restore`` to the packet."""

    final: ClassVar[bool] = False
    tables: ClassVar[frozenset[Table] | None] = _TABLES
    copy: str

    def __post_init__(self) -> None:
        if self.copy not in ("save", "restore"):
            raise ModelError(f"{self.copy!r} is neither save nor restore")


_SELCTX: Final = Codec(parse=lambda text, context: text, format=str, expected="a security context")

# --- nft ------------------------------------------------------------------------------------------------

_PREFIX: Final = "selctx/"
"""What the object's name begins with; the context follows, with the signs that no name can hold written as others."""
_NAMED: Final = str.maketrans(":,", "/\\")
_READ: Final = str.maketrans("/\\", ":,")


def _secmark_nft(value: SecMark, family: Family, rule: Rule) -> Iterable[str | NftObject]:
    name = _PREFIX + value.context.translate(_NAMED)
    if len(name) > 127:  # linux/netfilter/nf_tables.h, NFT_NAME_MAXLEN, which nft halves
        raise InexpressibleError(f"SECMARK --selctx {value.context}: too long for the name of an nft object")
    yield NftObject("secmark", name, f'"{value.context}"')
    yield f'meta secmark set "{name}"'


def _read_secmark(body: Any, family: Family) -> SecMark | None:
    name = body if isinstance(body, str) else ""
    return SecMark(name.removeprefix(_PREFIX).translate(_READ)) if name.startswith(_PREFIX) else None


def _connsecmark_nft(value: ConnSecMark, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError(
        f"CONNSECMARK --{value.copy}: iptables copies a mark only to where there is none, nft overwrites"
    )


EXTENSIONS: Final = (
    Extension(
        name="SECMARK",
        value=SecMark,
        options=(Option("--selctx", "context", _SELCTX),),
        to_nft=_secmark_nft,
        from_nft={"secmark": _read_secmark},
    ),
    Extension(
        name="CONNSECMARK",
        value=ConnSecMark,
        options=(
            Option("--save", "copy", words=0, preset="save"),
            Option("--restore", "copy", words=0, preset="restore"),
        ),
        save=lambda value, family: (f"--{value.copy}",),
        to_nft=_connsecmark_nft,
    ),
)
