"""Rules: conditions and one target, equal when a kernel would behave the same under both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.model.address import (
    Addresses,
    Elements,
    Interfaces,
    Network,
    byte_length,
    matches_any,
)
from meshfw.model.comment import stored_comment
from meshfw.model.conditions import address_met, interface_met, sign, signed
from meshfw.model.effect import ACCEPTED, DROPPED, Translation, Verdict
from meshfw.model.kinds import Family, Hook, Not, Table
from meshfw.model.loss import Loss, condition_losses
from meshfw.model.packet import Packet, every, turned
from meshfw.model.twice import ANEW, UNKNOWN, Twice


class Match(msgspec.Struct, frozen=True, gc=False):
    """One condition of a rule beyond addresses, interfaces and protocol; extensions subclass it once."""

    stateful: ClassVar[bool] = False
    """It counts or remembers, so its place among the matches is part of the rule's meaning."""
    protocols: ClassVar[frozenset[int] | None] = None
    """The IP protocols (RFC 5237 numbers) one of which the rule must state."""
    families: ClassVar[frozenset[Family]] = frozenset(Family)
    tables: ClassVar[frozenset[Table] | None] = None

    @property
    def shared(self) -> str:
        """What it counts in together with rules of any table that name the same; empty where it counts for itself."""
        return ""

    def atoms(self) -> Iterable[Any]:
        """Hashable parts of the rule's meaning; none where it adds nothing to the base conditions."""
        return (self,)

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """The hooks on which a kernel takes it; None for all."""
        return None

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Why it can't stand in this rule of this family; None where it can."""
        return None

    def losses(self) -> Iterable[Loss]:
        """What of it the kernel's tools lose."""
        return ()

    def twice(self) -> Twice | None:
        """What comes of it where a packet meets two copies of its rule, one right behind the other; None: nothing."""
        return ANEW if self.stateful else None

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet meets it, as the kernel would find; None where that can't be told from the packet alone.

        The rules, by which all extensions agree:

        * It is told of packets that meet the rule's base conditions. But what names its protocols doesn't meet a packet
          of any other, so that it can be asked alone.
        * A field of the packet that is None isn't known: the answer is None where it depends on that field. One thing
          that isn't met settles it (:func:`~meshfw.model.packet.every`), whatever else isn't known.
        * What the packet is known not to have is no unknown. Kernels answer False then, and for a negated condition
          False as well, not True: the ports, flags and types of a later fragment (``packet.fragment``), the mark of a
          connection where there is none (``packet.tracked`` is False), the hardware address of a packet that didn't
          come by Ethernet (``""``). There are two exceptions: ``! --ctstate`` is met without a connection, and an
          interface that isn't there is one with an empty name, so that ``! -i eth0`` is met.
        * What counts, remembers, looks at the clock, the payload, a socket, the routes or anything else outside the
          packet answers None, unless it can't be met at all.
        """
        return None

    def meets_among(self, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
        """The same, with the elements of the family's sets by name; only what may name a set needs its own."""
        return self.meets(packet)


class Target(msgspec.Struct, frozen=True, gc=False):
    """What a rule does with a packet; extensions subclass it once."""

    tables: ClassVar[frozenset[Table] | None] = None
    hooks: ClassVar[frozenset[Hook] | None] = None
    families: ClassVar[frozenset[Family]] = frozenset(Family)
    final: ClassVar[bool] = True
    """No later rule of the chain sees the packet."""
    drops: ClassVar[bool] = False
    """The packet is gone."""
    accepts: ClassVar[bool] = False
    """The packet passes this table of the hook."""

    @property
    def label(self) -> str:
        """The name a person knows it by."""
        return type(self).__name__.upper()

    def verdicts(self, packet: Packet) -> tuple[Verdict | None, ...]:
        """How the table may end for a packet that meets the rule; None where the packet goes on to the next rule.

        More than one where something outside decides, such as a program that reads a queue: so of a final target that
        says neither that it drops nor that it accepts.
        """
        if self.drops or self.accepts:
            return (DROPPED if self.drops else ACCEPTED,)
        return (ACCEPTED, DROPPED) if self.final else (None,)

    def applied(self, packet: Packet) -> Packet:
        """The packet as later rules see it; a field is None where it isn't known any more."""
        return packet

    def translation(self, packet: Packet) -> Translation | None:
        """What becomes of an end of the connection that the packet opens; None where it stays."""
        return None

    def atom(self, family: Family | None = None) -> Any:
        """Its part of the rule's meaning."""
        return self

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """The hooks on which a kernel takes it; None for all."""
        return self.hooks

    def then(self, following: Target) -> Target | None:
        """One target that does what this and then the following does; None where there is none."""
        return None

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Why it can't stand in this rule of this family; None where it can."""
        return None

    def losses(self) -> Iterable[Loss]:
        """What of it the kernel's tools lose."""
        return ()

    def twice(self) -> Twice | None:
        """What comes of it where a packet meets two copies of its rule, one right behind the other; None: nothing."""
        return None


class Accept(Target, frozen=True):
    """ACCEPT: the packet passes this hook."""

    accepts: ClassVar[bool] = True


class Drop(Target, frozen=True):
    """DROP: the packet is gone; not in table nat, which sees a connection's first packet only."""

    tables: ClassVar[frozenset[Table] | None] = frozenset(Table) - {Table.NAT}
    drops: ClassVar[bool] = True


class Return(Target, frozen=True):
    """RETURN: back to the calling chain, and from an attached chain on to the policy."""


class Jump(Target, frozen=True):
    """A jump: the chain's rules, then back to the next rule."""

    final: ClassVar[bool] = False
    chain: str

    @property
    def label(self) -> str:
        """The jump as a person writes it."""
        return f"jump to {self.chain}"


class Goto(Target, frozen=True):
    """A goto: the chain's rules, and then to the caller of this chain."""

    chain: str

    @property
    def label(self) -> str:
        """The goto as a person writes it."""
        return f"goto {self.chain}"


ACCEPT: Final = Accept()
DROP: Final = Drop()
RETURN: Final = Return()


class OpaqueMatch(Match, frozen=True):
    """A match that the typed language doesn't know: its name and the words of its options, kept as they are."""

    stateful: ClassVar[bool] = True
    name: str
    words: tuple[str, ...] = ()

    def twice(self) -> Twice | None:
        """Nobody knows; a match seldom changes the packet."""
        return msgspec.structs.replace(UNKNOWN, alters=False)


class OpaqueTarget(Target, frozen=True):
    """A target that the typed language doesn't know: its name and the words of its options, kept as they are."""

    final: ClassVar[bool] = False  # unknown; the cautious reading
    name: str
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The target's own name."""
        return self.name

    def verdicts(self, packet: Packet) -> tuple[Verdict | None, ...]:
        """Nobody knows."""
        return (None, ACCEPTED, DROPPED)

    def applied(self, packet: Packet) -> Packet:
        """Whatever a target may change isn't known."""
        return packet.obscured()

    def twice(self) -> Twice | None:
        """Nobody knows."""
        return UNKNOWN


class Comment(Match, frozen=True):
    """A comment: it matches every packet and is part of the rule's identity (iptables-extensions(8), comment)."""

    text: str

    def __post_init__(self) -> None:
        if byte_length(self.text) > 255:  # xt_comment.h, XT_MAX_COMMENT_LEN with the final NUL
            raise ModelError("a comment holds at most 255 bytes")
        if "\n" in self.text or "\0" in self.text:
            raise ModelError("a comment can't hold a line end or NUL")

    def atoms(self) -> Iterable[Any]:
        """The comment as any backend stores it."""
        return (("comment", stored_comment(self.text)),) if self.text else ()

    def meets(self, packet: Packet) -> bool | None:
        """Always."""
        return True


class Rule(msgspec.Struct, frozen=True, gc=False, kw_only=True, eq=False):
    """Conditions and one target; no target means: count and go on.

    ``protocol`` is the IP protocol number (RFC 5237). ``fragment`` is iptables' ``-f``: True for second and
    further IPv4 fragments only, False for all others, None for both. Matches stand in the order written.
    """

    source: Addresses | None = None
    destination: Addresses | None = None
    in_interface: Interfaces | None = None
    out_interface: Interfaces | None = None
    protocol: int | Not[int] | None = None
    fragment: bool | None = None
    matches: tuple[Match, ...] = ()
    target: Target | None = None

    def key(self) -> tuple[Any, ...]:
        """The rule's meaning and comment, hashable: stateless conditions as sets between the stateful ones."""
        plain: set[Any] = set()
        if self.source is not None and not matches_any(self.source):
            plain.add(signed("saddr", self.source))
        if self.destination is not None and not matches_any(self.destination):
            plain.add(signed("daddr", self.destination))
        if self.in_interface is not None and not matches_any(self.in_interface):
            plain.add(signed("iif", self.in_interface))
        if self.out_interface is not None and not matches_any(self.out_interface):
            plain.add(signed("oif", self.out_interface))
        if self.protocol is not None:
            plain.add(signed("protocol", self.protocol))
        if self.fragment is not None:
            plain.add(("fragment", self.fragment))
        parts: list[Any] = []
        comments: list[str] = []  # a comment has no place among the matches: nft keeps it, one text, beside the rule
        for match in self.matches:
            if type(match) is Comment:
                comments.append(match.text)
            elif match.stateful:
                parts.append(frozenset(plain))
                parts.extend(match.atoms())
                plain = set()
            else:
                plain.update(match.atoms())
        parts.append(frozenset(plain))
        parts.append(stored_comment(" ".join(filter(None, comments))) if comments else "")
        parts.append(None if self.target is None else self.target.atom())
        return tuple(parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rule):
            return NotImplemented
        return self is other or _stated(self) == _stated(other) or self.key() == other.key()

    def __ne__(self, other: object) -> bool:  # the struct's own would compare identity
        return not self == other

    def __hash__(self) -> int:
        return hash(self.key())

    @property
    def stateful(self) -> bool:
        """Whether a match of it counts or remembers."""
        return any(match.stateful for match in self.matches)

    @property
    def comment(self) -> str:
        """The text of its comment matches, joined by a space; empty without one."""
        return " ".join(match.text for match in self.matches if isinstance(match, Comment) and match.text)

    def answers(self, packet: Packet, sets: Mapping[str, Elements]) -> Iterator[tuple[str | Match, bool | None]]:
        """Each condition, a base condition by its name, and whether the packet meets it (ip_tables.c)."""
        if self.source is not None:
            yield "source address", address_met(self.source, packet.source, sets)
        if self.destination is not None:
            yield "destination address", address_met(self.destination, packet.destination, sets)
        if self.in_interface is not None:
            yield "incoming interface", interface_met(self.in_interface, packet.in_interface)
        if self.out_interface is not None:
            yield "outgoing interface", interface_met(self.out_interface, packet.out_interface)
        if self.protocol is not None:
            negated, protocol = sign(self.protocol)
            known = None if packet.protocol is None else packet.protocol == protocol
            yield "protocol", turned(known, negated)
        if self.fragment is not None:
            yield "fragment", packet.fragment is self.fragment
        for match in self.matches:
            yield match, match.meets_among(packet, sets)

    def meets(self, packet: Packet, sets: Mapping[str, Elements]) -> bool | None:
        """Whether the packet, of the rule's family, meets all conditions; None where that can't be told.

        ``sets`` are the elements of the ruleset's sets of that family by name.
        """
        return every(answer for _, answer in self.answers(packet, sets))

    def losses(self) -> tuple[Loss, ...]:
        """What of it the kernel's tools would lose."""
        conditions = condition_losses(self.source, self.destination, self.in_interface, self.out_interface)
        of_matches = (loss for match in self.matches for loss in match.losses())
        return (*conditions, *of_matches, *(() if self.target is None else self.target.losses()))

    def other_family(self, family: Family) -> str | None:
        """Which address is of another family than this; None where none is."""
        for name, addresses in (("source", self.source), ("destination", self.destination)):
            value = addresses.value if isinstance(addresses, Not) else addresses
            if isinstance(value, Network) and value.family is not family:
                return f"{name} {value} is an {value.family} address in an {family} chain"
        return None

    def problem(self, family: Family) -> str | None:
        """Why this can't be a rule of the family; None where it can."""
        if stranger := self.other_family(family):
            return stranger
        protocol = self.protocol.value if isinstance(self.protocol, Not) else self.protocol
        if protocol is not None and not 1 <= protocol <= 255:
            return f"protocol {protocol} is not a number from 1 to 255"
        if self.fragment is not None and family is Family.IPV6:
            return "-f matches IPv4 fragments only"
        for match in self.matches:
            why = self._match_problem(match, family)
            if why:
                return why
        target = self.target
        if target is not None:
            if family not in target.families:
                return f"{target.label} does not exist for {family}"
            return target.problem(self, family)
        return None

    def _match_problem(self, match: Match, family: Family) -> str | None:
        if family not in match.families:
            return f"match {type(match).__name__.lower()} does not exist for {family}"
        if match.protocols is not None and self.protocol not in match.protocols:
            wanted = " or ".join(str(number) for number in sorted(match.protocols))
            return f"match {type(match).__name__.lower()} needs the rule to state its protocol ({wanted})"
        return match.problem(self, family)


_stated: Final = attrgetter(*Rule.__struct_fields__)
"""All that a rule states, as it is: rules that state the same in the same order mean the same."""
