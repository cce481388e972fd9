"""The ecn match and the ECN target: the bits of congestion notification in IP and TCP headers (RFC 3168)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, sign
from meshfw.extensions.extension import Extension, Fields, Option, ParseContext
from meshfw.extensions.tos import ECN_BITS, NFT_ECN, Masked, tos_applied, tos_atoms, tos_meets, tos_nft
from meshfw.model import Family, Match, Not, Packet, Rule, Table, Target

TCP: Final = 6
ECE: Final = 0x40
CWR: Final = 0x80
"""Flag bits of TCP (RFC 3168, section 6.1)."""

_NEEDS_TCP: Final = "needs the rule to state its protocol (6) for --ecn-tcp-ece and --ecn-tcp-cwr"


class Ecn(Match, frozen=True, kw_only=True):
    """The flags ECE and CWR of TCP, on or off, and the codepoint of the IP header, from 0 to 3."""

    ece: bool | Not[bool] | None = None
    cwr: bool | Not[bool] | None = None
    ect: int | Not[int] | None = None

    def __post_init__(self) -> None:
        if self.ece is None and self.cwr is None and self.ect is None:
            raise ModelError("ecn needs --ecn-tcp-ece, --ecn-tcp-cwr or --ecn-ip-ect")

    @property
    def flags(self) -> tuple[tuple[str, int, bool], ...]:
        """Name, bit and sign of each flag that is looked at."""
        held = (("ecn", ECE, self.ece), ("cwr", CWR, self.cwr))
        return tuple((name, bit, type(flag) is Not) for name, bit, flag in held if flag is not None)

    def atoms(self) -> Iterable[Any]:
        """One part for each flag, and those of a tos match for the codepoint."""
        for name, _, negated in self.flags:
            yield ("tcp flag", name, not negated)
        if self.ect is not None:
            negated, value = sign(self.ect)
            yield from tos_atoms(negated, Masked(value, ECN_BITS))

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Flags in a rule that isn't one of TCP."""
        return f"match ecn {_NEEDS_TCP}" if self.flags and rule.protocol != TCP else None

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet has these flags and this codepoint."""
        found: list[bool | None] = []
        for _, bit, negated in self.flags:
            found.append(None if packet.tcp_flags is None else bool(packet.tcp_flags & bit) != negated)
        if self.ect is not None:
            negated, value = sign(self.ect)
            found.append(tos_meets(negated, Masked(value, ECN_BITS), packet))
        return False if False in found else None if None in found else True


class SetEcn(Target, frozen=True, kw_only=True):
    """ECN: sets the flags ECE and CWR of TCP to 0 or 1, and the codepoint of the IPv4 header, from 0 to 3.

    The manual has --ecn-tcp-remove alone, which sets both flags to 0 (iptables-extensions(8), ECN).
    """

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    tables: ClassVar[frozenset[Table] | None] = frozenset({Table.MANGLE})
    final: ClassVar[bool] = False
    ece: int | None = None
    cwr: int | None = None
    ect: int | None = None

    def __post_init__(self) -> None:
        if self.ece is None and self.cwr is None and self.ect is None:
            raise ModelError("ECN needs --ecn-tcp-remove")

    @property
    def label(self) -> str:
        """The target's own name."""
        return "ECN"

    def applied(self, packet: Packet) -> Packet:
        """The packet with its new bits."""
        flags = packet.tcp_flags
        for bit, held in ((ECE, self.ece), (CWR, self.cwr)):
            if held is not None and flags is not None:
                flags = flags & ~bit | bit * held
        packet = msgspec.structs.replace(packet, tcp_flags=flags)
        return packet if self.ect is None else tos_applied(Masked(self.ect, ECN_BITS), packet)

    def atom(self, family: Family | None = None) -> Any:
        """What it sets; that of TOS where it sets the codepoint alone."""
        if self.ece is None and self.cwr is None and self.ect is not None:
            return ("TOS", Masked(self.ect, ECN_BITS))
        return self

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Flags in a rule that isn't one of TCP."""
        flags = self.ece is not None or self.cwr is not None
        return f"target ECN {_NEEDS_TCP}" if flags and rule.protocol != TCP else None


def _build(fields: Fields, context: ParseContext) -> SetEcn:
    if fields.pop("remove", False):
        if "ece" in fields or "cwr" in fields:
            raise ModelError("--ecn-tcp-remove can't stand beside --ecn-tcp-ece or --ecn-tcp-cwr")
        fields.update(ece=0, cwr=0)
    return SetEcn(**fields)


def _save(value: SetEcn, family: Family) -> Iterable[str]:
    if (value.ece, value.cwr, value.ect) == (0, 0, None):
        return ("--ecn-tcp-remove",)
    words = []
    for name, held in (("--ecn-tcp-ece", value.ece), ("--ecn-tcp-cwr", value.cwr), ("--ecn-ip-ect", value.ect)):
        if held is not None:
            words += [name, str(held)]
    return words


# --- nft ------------------------------------------------------------------------------------------------


def _to_nft(value: Ecn, family: Family, rule: Rule) -> Iterable[str]:
    for name, _, negated in value.flags:
        yield f"tcp flags & {name} {'!=' if negated else '=='} {name}"
    if value.ect is not None:
        negated, ect = sign(value.ect)
        yield from tos_nft(negated, Masked(ect, ECN_BITS), family)


def _target_nft(value: SetEcn, family: Family, rule: Rule) -> Iterable[str]:
    if value.ece is not None or value.cwr is not None:
        raise InexpressibleError("ECN --ecn-tcp-remove: nft 1.0.6 sets all flags of TCP at once, no single ones")
    yield f"ip ecn set {NFT_ECN[value.ect or 0]}"


def flags_match(mask: int, on: int, *, negated: bool) -> Ecn | None:
    """The match of nft's condition on the flags ECE and CWR; None for one on other flags as well."""
    if mask & ~(ECE | CWR) or on & ~mask or (negated and mask == ECE | CWR):
        return None
    fields: dict[str, Any] = {}
    for field, bit in (("ece", ECE), ("cwr", CWR)):
        if mask & bit:
            fields[field] = True if bool(on & bit) != negated else Not(True)
    return Ecn(**fields)


_BIT: Final = integer("0 or 1", high=1)
_ECT: Final = integer("a codepoint from 0 to 3", high=3)

EXTENSIONS: Final = (
    Extension(
        name="ecn",
        value=Ecn,
        options=(
            Option("--ecn-tcp-ece", "ece", words=0, invertible=True),
            Option("--ecn-tcp-cwr", "cwr", words=0, invertible=True),
            Option("--ecn-ip-ect", "ect", _ECT, invertible=True),
        ),
        to_nft=_to_nft,
    ),
    Extension(
        name="ECN",
        value=SetEcn,
        options=(
            Option("--ecn-tcp-remove", "remove", words=0),
            Option("--ecn-tcp-ece", "ece", _BIT),
            Option("--ecn-tcp-cwr", "cwr", _BIT),
            Option("--ecn-ip-ect", "ect", _ECT),
        ),
        build=_build,
        save=_save,
        to_nft=_target_nft,
    ),
)
