"""The xtables extensions: one file each, holding its value, its iptables options and its nft expression."""

from __future__ import annotations

from meshfw.extensions import (
    addrtype,
    comment,
    connlabel,
    conntrack,
    ct,
    expectation,
    icmp,
    iprange,
    limit,
    log,
    mac,
    mark,
    multiport,
    nat,
    netmap,
    npt,
    owner,
    policy,
    reject,
    rpfilter,
    sctp,
    sets,
    synproxy,
    tcp,
    tproxy,
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
    comment,
    connlabel,
    conntrack,
    ct,
    expectation,
    icmp,
    iprange,
    limit,
    log,
    mac,
    mark,
    multiport,
    nat,
    netmap,
    npt,
    owner,
    policy,
    reject,
    rpfilter,
    sctp,
    sets,
    synproxy,
    tcp,
    tproxy,
    udp,
)


def builtin_extensions() -> tuple[Extension, ...]:
    """Every extension that meshfw knows by itself."""
    return tuple(extension for module in _MODULES for extension in module.EXTENSIONS)
