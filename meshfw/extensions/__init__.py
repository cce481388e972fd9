"""The xtables extensions: one file each, holding its value, its iptables options and its nft expression."""

from __future__ import annotations

from meshfw.extensions import (
    addrtype,
    clock,
    cluster,
    comment,
    connbytes,
    connlimit,
    conntrack,
    hashlimit,
    hmark,
    icmp,
    idletimer,
    iprange,
    limit,
    log,
    mac,
    mark,
    multiport,
    nat,
    nfacct,
    quota,
    rateest,
    recent,
    reject,
    sctp,
    statistic,
    tcp,
    udp,
)
from meshfw.extensions.extension import (
    Codec,
    Extension,
    HostTables,
    NftMatch,
    NftObject,
    Option,
    ParseContext,
)
from meshfw.extensions.language import Language

__all__ = [
    "Codec",
    "Extension",
    "HostTables",
    "Language",
    "NftMatch",
    "NftObject",
    "Option",
    "ParseContext",
    "builtin_extensions",
]

_MODULES = (
    addrtype,
    clock,
    cluster,
    comment,
    connbytes,
    connlimit,
    conntrack,
    hashlimit,
    hmark,
    icmp,
    idletimer,
    iprange,
    limit,
    log,
    mac,
    mark,
    multiport,
    nat,
    nfacct,
    quota,
    rateest,
    recent,
    reject,
    sctp,
    statistic,
    tcp,
    udp,
)


def builtin_extensions() -> tuple[Extension, ...]:
    """Every extension that meshfw knows by itself."""
    return tuple(extension for module in _MODULES for extension in module.EXTENSIONS)
