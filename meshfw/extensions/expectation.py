"""The helper match: which conntrack helper's expectation a connection came of (iptables-extensions(8), helper)."""

from __future__ import annotations

from typing import Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import plain_condition, quoted, sign
from meshfw.extensions.extension import Codec, Extension, NftMatch, Option, ParseContext
from meshfw.model import Match, Not, Packet, byte_length

NAME_BYTES: Final = 29  # linux/netfilter/xt_helper.h, name[30] with the final NUL
_HELPER_BYTES: Final = 15  # net/netfilter/nf_conntrack_helper.h, NF_CT_HELPER_NAME_LEN with the final NUL
_HELPERS: Final = (
    "ftp tftp irc sip amanda pptp netbios-ns snmp snmp_trap sane RAS Q.931 H.245 rpc tns dhcpv6 ssdp mdns slp".split()
)
"""Helpers of Linux and of conntrackd(8): a name matches every helper whose name it begins with."""


class Expected(Match, frozen=True):
    """The connection was expected by a helper of this name; an empty name stands for any."""

    name: str | Not[str]

    def __post_init__(self) -> None:
        name = sign(self.name)[1]
        if byte_length(name) > NAME_BYTES or not (name.isprintable() or not name):
            raise ModelError(f"helper name {name!r} is not a text of at most {NAME_BYTES} bytes")

    def meets(self, packet: Packet) -> bool | None:
        """What belongs to no connection is expected by no helper."""
        return type(self.name) is Not if packet.tracked is False else None


def _parse(text: str, context: ParseContext) -> str:
    """The name, cut to what the kernel keeps, as iptables cuts it."""
    return text.encode()[:NAME_BYTES].decode(errors="ignore")


def _nft(left: str, name: str, negated: bool) -> str:
    if negated:
        raise InexpressibleError(f"! --helper {name}: a connection that no helper expected meets it, but not in nft")
    if not name:
        raise InexpressibleError('--helper "": nft has no word for any helper')
    if byte_length(name) > _HELPER_BYTES or set(name) & set('"$*\\'):
        raise InexpressibleError(f"--helper {name}: nft has no such name")
    shorter = [helper for helper in _HELPERS if name.startswith(helper) and name != helper]
    if shorter:
        raise InexpressibleError(f"--helper {name}: iptables takes helper {shorter[0]} for it as well, nft doesn't")
    return f'{left} "{name}"'


def _read(match: NftMatch) -> str:
    if not plain_condition(match) or match.negated or not isinstance(match.right, str):
        raise ModelError(f"{match.right} as a helper")
    return match.right


_NAME: Final = Codec(
    parse=_parse, format=quoted, expected=f"a name of at most {NAME_BYTES} bytes", nft=_nft, read=_read
)

EXTENSIONS: Final = (
    Extension(
        name="helper",
        value=Expected,
        options=(Option("--helper", "name", _NAME, invertible=True, nft="ct helper"),),
    ),
)
