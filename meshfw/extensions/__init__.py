"""The xtables extensions: one file each, holding its value, its iptables options and its nft expression.

None is imported before it's asked for: whoever keeps rules of a few kinds, and starts anew for each call, pays for
these alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

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

_FILES: Final = (
    "addrtype bpf cgroup checksum classify clock cluster clusterip comment connbytes connlabel connlimit "
    "conntrack cpu ct dccp ecn eui64 expectation frag groups hashlimit hmark icmp idletimer iprange ipv6header "
    "ipvs led length limit log mac mark mh multiport nat netmap nfacct nfqueue npt options6 osf owner physdev "
    "pkttype policy quota rateest recent reject rpfilter rt sctp secmark sets socket spi srh statistic string "
    "synproxy tcp tcpmss tcpoptstrip tee tos tproxy trace ttl u32 udp"
).split()


def builtin_extensions(*files: str) -> tuple[Extension, ...]:
    """Every extension that meshfw knows by itself, or those of some files alone, such as ``conntrack`` and ``nat``.

    A file holds a close family: ``nat`` has DNAT, SNAT, MASQUERADE and REDIRECT.

    Raises:
        ValueError: there is no such file.
    """
    if strange := {*files} - {*_FILES}:
        raise ValueError(f"no file of extensions: {', '.join(sorted(strange))}")
    modules = (import_module(f"meshfw.extensions.{name}") for name in files or _FILES)
    return tuple(extension for module in modules for extension in module.EXTENSIONS)
