"""What both directions of the nft language share: family names, header keywords, and names of chains and sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from meshfw.model import (
    Family,
)

FAMILIES: Final[Mapping[Family, str]] = {Family.IPV4: "ip", Family.IPV6: "ip6"}
"""nft's names of the two families (nft(8), ADDRESS FAMILIES)."""
AH: Final = 51
"""The authentication header: a protocol in IPv4, and in IPv6 an extension header, before what is the protocol."""
KEYWORDS: Final[Mapping[int, str]] = {
    1: "icmp ",
    6: "tcp ",
    17: "udp ",
    33: "dccp ",
    50: "esp ",
    AH: "ah ",
    58: "icmpv6 ",
    108: "comp ",
    132: "sctp ",
    136: "udplite ",
}
"""The header names that make nft test the protocol by itself, and leave that test out of a listing."""

NO_INTERFACE: Final = "INVAL/D"
"""What stands for no interface at all: a name that none can bear, the one that iptables-nft writes for ``! -i +``."""


class Names(msgspec.Struct, frozen=True):
    """How logical names of chains and sets are written in nft, and read back (None: not one of ours)."""

    chain: Callable[[str], str]
    set: Callable[[str], str]
    chain_of: Callable[[str], str | None]
    set_of: Callable[[str], str | None]


PLAIN_NAMES: Final = Names(chain=str, set=str, chain_of=str, set_of=str)


RESERVED: Final = frozenset(
    (
        "accept add ah all and arp auto-merge bridge cgroup chain comment comp constant continue counter cpu "
        "create ct day dccp define delete describe destroy device devices dnat drop dst dup dynamic ecn "
        "element elements eq esp ether exists expires export exthdr fib flags flow flowtable flush frag fwd "
        "gc-interval ge geneve get goto gre gretap gt handle hbh hook hour ibriport ibrname icmp icmpv6 igmp "
        "iif iifgroup iifname iiftype import include index inet insert interval ip ip6 ipsec jhash jump last "
        "le limit list log lshift lt map mark masquerade meta meter mh missing monitor ne netdev nftrace not "
        "notrack numgen obriport obrname offload oif oifgroup oifname oiftype or osf pkttype policy position "
        "priority queue quota random redefine redirect reject rename replace reset return rshift rt rt0 rt2 "
        "rtclassid rule ruleset sctp secmark set size skgid skuid snat socket srh symhash synproxy table tcp "
        "th time timeout tproxy tunnel type typeof udp udplite undefine update vlan vmap vni vxlan xor xt "
    ).split()
)
"""Words of nft's own that can't name a chain in its text; some of them only in newer releases than 1.0.6."""
_IDENTIFIER: Final = re.compile(r"[A-Za-z_.][A-Za-z0-9/_.-]*\Z")
_ESCAPED: Final = re.compile(r"\.([0-9a-f]{2})")
_OWN: Final = "chain."


def spoken_name(name: str) -> str:
    """A name as nft's text can say it: itself, or with odd characters as ``.XX``, or behind ``chain.``."""
    if name in RESERVED:
        return _OWN + name
    if _IDENTIFIER.match(name) and not _ESCAPED.search(name) and not name.startswith(_OWN):
        return name
    odd = re.sub(r"[^A-Za-z0-9/_-]", lambda found: "".join(f".{byte:02x}" for byte in found[0].encode()), name)
    return odd if _IDENTIFIER.match(odd) else f".{ord(odd[0]):02x}{odd[1:]}"


def unspoken_name(name: str) -> str:
    """The name that :func:`spoken_name` has made this of."""
    if name.startswith(_OWN) and name.removeprefix(_OWN) in RESERVED:
        return name.removeprefix(_OWN)
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    try:
        logical = raw.encode("latin-1").decode()
    except UnicodeError:
        return name
    return logical if logical and spoken_name(logical) == name else name


SPOKEN_NAMES: Final = Names(chain=spoken_name, set=spoken_name, chain_of=unspoken_name, set_of=unspoken_name)
"""Every name as nft's text can say it, as near to itself as can be."""
