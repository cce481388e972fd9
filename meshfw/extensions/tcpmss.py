"""The tcpmss match and the TCPMSS target: the largest segment that the opening of a TCP connection asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, plain_condition, sign
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.extensions.spans import Span, read_span, span_nft, spans
from meshfw.extensions.tcp import FLAGS, TCP, Tcp, TcpFlags
from meshfw.model import Family, Hook, Match, Not, Packet, Rule, Target

SIZE_LAST: Final = {Family.IPV4: 0xFFFF - 20, Family.IPV6: 0xFFFF - 40}
"""The largest size that iptables sets: what a packet of 65,535 octets leaves behind its IP header."""
DEFAULT_SIZE: Final = {Family.IPV4: 536, Family.IPV6: 1220}
"""What a segment without the option asks for (RFC 9293, section 3.7.1)."""


class TcpMss(Match, frozen=True):
    """A range of sizes in octets; its negation meets a segment without the option as well.

    See iptables-extensions(8), tcpmss.
    """

    protocols: ClassVar[frozenset[int] | None] = frozenset({TCP})
    mss: Span | Not[Span]


class SetMss(Target, frozen=True):
    """TCPMSS: lowers the size to this one in octets, or (None) to what the path's MTU leaves; it never raises it.

    See iptables-extensions(8), TCPMSS. The kernel takes it for the opening segments of a connection alone.
    """

    final: ClassVar[bool] = False
    mss: int | None = None

    @property
    def label(self) -> str:
        """The target's own name."""
        return "TCPMSS"

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where the path is known, if it is asked for (xt_TCPMSS.c)."""
        return None if self.mss is not None else frozenset({Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING})

    def applied(self, packet: Packet) -> Packet:
        """The packet, which is longer by the option where it had none."""
        return msgspec.structs.replace(packet, length=None)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A rule that isn't one of opening segments, or a size that no packet has room for."""
        if rule.protocol != TCP:
            return f"target TCPMSS needs the rule to state its protocol ({TCP})"
        if not any(isinstance(match, Tcp) and _opening(match.flags) for match in rule.matches):
            return "target TCPMSS needs a match of opening segments: --syn, or --tcp-flags with SYN on"
        if (self.mss or 0) > SIZE_LAST[family]:
            return f"TCPMSS --set-mss {self.mss} is above {SIZE_LAST[family]}"
        return None


def _opening(flags: Any) -> bool:
    return type(flags) is TcpFlags and bool(flags.set & FLAGS["SYN"])


# --- nft ------------------------------------------------------------------------------------------------

_LEFT: Final = "tcp option maxseg size"


def _match_nft(value: TcpMss, family: Family, rule: Rule) -> Iterable[str]:
    negated, span = sign(value.mss)
    if negated:
        raise InexpressibleError(
            f"! tcpmss --mss {span}: a segment without the option meets it, and nft's test of the size never does"
        )
    yield span_nft(_LEFT, span, negated, last=0xFFFF)


def _read(match: NftMatch, family: Family) -> TcpMss | None:
    return TcpMss(read_span(match.right)) if plain_condition(match) and not match.negated else None


def _target_nft(value: SetMss, family: Family, rule: Rule) -> Iterable[str]:
    if value.mss is not None and value.mss < DEFAULT_SIZE[family]:
        raise InexpressibleError(
            f"TCPMSS --set-mss {value.mss}: iptables adds the option where it is missing, which means "
            f"{DEFAULT_SIZE[family]}; nft does not",
            nearest=(f"{_LEFT} set {value.mss}",),
        )
    yield f"{_LEFT} set {'rt mtu' if value.mss is None else value.mss}"


def _read_target(body: Any, family: Family) -> SetMss | None:
    held = body["value"]
    if held == {"rt": {"key": "mtu"}}:
        return SetMss()
    return SetMss(held) if isinstance(held, int) else None


def _build(fields: dict[str, Any], context: Any) -> SetMss:
    if not fields:
        raise ModelError("TCPMSS needs --set-mss or --clamp-mss-to-pmtu")
    if len(fields) > 1:  # iptables takes both, and the later for both
        raise ModelError("--set-mss can't stand beside --clamp-mss-to-pmtu")
    return SetMss(fields.get("mss"))


EXTENSIONS: Final = (
    Extension(
        name="tcpmss",
        value=TcpMss,
        options=(Option("--mss", "mss", spans("a size", high=0xFFFF, falling=False), invertible=True),),
        to_nft=_match_nft,
        from_nft={_LEFT: _read},
    ),
    Extension(
        name="TCPMSS",
        value=SetMss,
        options=(
            Option("--set-mss", "mss", integer("a size in octets", high=SIZE_LAST[Family.IPV4])),
            Option("--clamp-mss-to-pmtu", "clamp", words=0),
        ),
        build=_build,
        save=lambda value, family: ("--clamp-mss-to-pmtu",) if value.mss is None else ("--set-mss", str(value.mss)),
        to_nft=_target_nft,
        from_nft={f"mangle {_LEFT}": _read_target},
    ),
)
