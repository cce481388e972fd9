"""The SYNPROXY target: TCP handshakes are answered here, and only complete ones go on (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, listed
from meshfw.extensions.extension import Extension, Option
from meshfw.extensions.tcp import FLAGS
from meshfw.model import DROPPED, Family, Hook, Packet, Rule, Target, Verdict

MSS_MAX: Final = 0xFFFF
WSCALE_MAX: Final = 0xFF  # linux/netfilter/nf_synproxy.h: what RFC 7323 allows is less, and nobody checks it


_COMPARED_BITS: Final = FLAGS["FIN"] | FLAGS["SYN"] | FLAGS["RST"] | FLAGS["ACK"]
_ANSWERED_BITS: Final = (FLAGS["SYN"], FLAGS["ACK"])


class SynProxy(Target, frozen=True, kw_only=True):
    """SYNPROXY: what the server behind supports, as its SYN cookies say it; None where it doesn't."""

    hooks: ClassVar[frozenset[Hook] | None] = frozenset({Hook.INPUT, Hook.FORWARD})
    final: ClassVar[bool] = False  # but for a SYN or an ACK
    sack_perm: bool = False
    timestamp: bool = False
    wscale: int | None = None
    mss: int | None = None
    ecn: bool = False

    def __post_init__(self) -> None:
        for value, most in ((self.wscale, WSCALE_MAX), (self.mss, MSS_MAX)):
            if value is not None and not 0 <= value <= most:
                raise ModelError(f"SYNPROXY: {value} is not between 0 and {most}")

    def verdicts(self, packet: Packet) -> tuple[Verdict | None, ...]:
        """A SYN and an ACK end here, answered or dropped; what else there is goes on."""
        if packet.tcp_flags is None:
            return (None, DROPPED)
        return (DROPPED if packet.tcp_flags & _COMPARED_BITS in _ANSWERED_BITS else None,)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A rule that doesn't state TCP."""
        return None if rule.protocol == 6 else "SYNPROXY needs the rule to state tcp"


_NFT_FLAGS: Final = {"timestamp": "timestamp", "sack_perm": "sack-perm"}
_HANDSHAKE: Final = "tcp flags & (fin | syn | rst | ack) == { syn, ack }"
"""What SYNPROXY answers; all else goes on to the next rule. nft's synproxy alone answers a SYN with any other flag, its
own answers too, and drops a FIN or RST with ACK. (Of a bad checksum, SYNPROXY drops that as well.)"""


def _bits(mask: Any) -> int:
    """The flags of nft's JSON, by name or by number."""
    if isinstance(mask, dict):
        return _bits(mask["|"])
    if isinstance(mask, list):
        return sum(map(_bits, mask))
    return int(mask) if isinstance(mask, int) else FLAGS[mask.upper()]


def _to_nft(value: SynProxy, family: Family, rule: Rule) -> Iterable[str]:
    if family is Family.IPV6:
        raise InexpressibleError(
            "SYNPROXY for ipv6: nft's synproxy reads the checksum as IPv4's, and drops what no hardware has checked"
        )
    if value.ecn:
        raise InexpressibleError("SYNPROXY --ecn: nft's synproxy has no word for it")
    words = [f"{name} {held}" for name, held in (("mss", value.mss), ("wscale", value.wscale)) if held is not None]
    words += [name for field, name in _NFT_FLAGS.items() if getattr(value, field)]
    yield _HANDSHAKE
    yield " ".join(["synproxy", *words])


def _from_nft(bodies: Any, family: Family) -> SynProxy | None:
    condition, said = bodies
    left, right = condition["left"], condition["right"]
    plain = condition["op"] == "==" and _bits(left["&"][1]) == _COMPARED_BITS
    plain = plain and sorted(map(_bits, listed(right))) == sorted(_ANSWERED_BITS)
    said = said or {}
    flags = listed(said.get("flags", []))
    if not plain or set(said) - {"mss", "wscale", "flags"} or set(flags) - set(_NFT_FLAGS.values()):
        return None
    held = {field: name in flags for field, name in _NFT_FLAGS.items()}
    return SynProxy(mss=said.get("mss"), wscale=said.get("wscale"), **held)


EXTENSIONS: Final = (
    Extension(
        name="SYNPROXY",
        value=SynProxy,
        options=(
            Option("--sack-perm", "sack_perm", words=0),
            Option("--timestamp", "timestamp", words=0),
            Option("--wscale", "wscale", integer("a shift", high=WSCALE_MAX)),
            Option("--mss", "mss", integer("a segment's size", high=MSS_MAX)),
            Option("--ecn", "ecn", words=0),
        ),
        to_nft=_to_nft,
        from_nft={"match tcp flags + synproxy": _from_nft},
    ),
)
