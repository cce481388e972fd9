"""The xtables extensions: one file each, holding its value, its iptables options and its nft expression."""

from __future__ import annotations

from meshfw.extensions import (
    addrtype,
    bpf,
    cgroup,
    comment,
    conntrack,
    dccp,
    eui64,
    frag,
    icmp,
    iprange,
    ipv6header,
    ipvs,
    limit,
    log,
    mac,
    mark,
    mh,
    multiport,
    nat,
    options6,
    osf,
    physdev,
    reject,
    rt,
    sctp,
    socket,
    srh,
    string,
    tcp,
    u32,
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
    bpf,
    cgroup,
    comment,
    conntrack,
    dccp,
    eui64,
    frag,
    icmp,
    iprange,
    ipv6header,
    ipvs,
    limit,
    log,
    mac,
    mark,
    mh,
    multiport,
    nat,
    options6,
    osf,
    physdev,
    reject,
    rt,
    sctp,
    socket,
    srh,
    string,
    tcp,
    u32,
    udp,
)


def builtin_extensions() -> tuple[Extension, ...]:
    """Every extension that meshfw knows by itself."""
    return tuple(extension for module in _MODULES for extension in module.EXTENSIONS)
