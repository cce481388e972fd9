"""The SYNPROXY target: TCP handshakes are answered here, and only complete ones go on (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer
from meshfw.extensions.extension import Extension, Option
from meshfw.model import Family, Hook, Rule, Target

MSS_MAX: Final = 0xFFFF
WSCALE_MAX: Final = 0xFF  # linux/netfilter/nf_synproxy.h: what RFC 7323 allows is less, and nobody checks it


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

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A rule that doesn't state TCP."""
        return None if rule.protocol == 6 else "SYNPROXY needs the rule to state tcp"


def _to_nft(value: SynProxy, family: Family, rule: Rule) -> Iterable[str]:
    words = [f"{name} {held}" for name, held in (("mss", value.mss), ("wscale", value.wscale)) if held is not None]
    words += [name for name, held in (("timestamp", value.timestamp), ("sack-perm", value.sack_perm)) if held]
    raise InexpressibleError(
        "SYNPROXY lets a segment with FIN or RST go on to the next rule, and nft's synproxy drops it where it has ACK; "
        f"nearest is: {' '.join(['synproxy', *words])}"
    )


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
    ),
)
