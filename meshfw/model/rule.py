"""Rules: conditions and one target, equal when a kernel would behave the same under both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, ClassVar, Final

import msgspec

from meshfw.errors import ModelError
from meshfw.model.address import Addresses, Interfaces, Network, byte_length
from meshfw.model.kinds import Family, Hook, Not, Table
from meshfw.model.packet import Packet


class Loss(msgspec.Struct, frozen=True):
    """A meaning that a kernel tool loses without a word: which of iptables' variants do, and what comes of it."""

    variants: frozenset[str]
    """``legacy`` and ``nft``: iptables would store the rule as another one; ``native``: nft itself would."""
    text: str


class Match(msgspec.Struct, frozen=True, gc=False):
    """One condition of a rule beyond addresses, interfaces and protocol; extensions subclass it once."""

    stateful: ClassVar[bool] = False
    """It counts or remembers, so its place among the matches is part of the rule's meaning."""
    protocols: ClassVar[frozenset[int] | None] = None
    """The IP protocols (RFC 5237 numbers) one of which the rule must state."""
    families: ClassVar[frozenset[Family]] = frozenset(Family)
    told_once: ClassVar[bool] = False
    """Of several in one rule that state the same field, iptables-nft tells the last alone."""

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

    def meets(self, packet: Packet) -> bool | None:
        """Whether the packet meets it; None where that can't be told from the packet alone."""
        return None


class Target(msgspec.Struct, frozen=True, gc=False):
    """What a rule does with a packet; extensions subclass it once."""

    tables: ClassVar[frozenset[Table] | None] = None
    hooks: ClassVar[frozenset[Hook] | None] = None
    families: ClassVar[frozenset[Family]] = frozenset(Family)
    final: ClassVar[bool] = True
    """No later rule of the chain sees the packet."""
    drops: ClassVar[bool] = False
    """The packet is gone."""

    @property
    def label(self) -> str:
        """The name a person knows it by."""
        return type(self).__name__.upper()

    def atom(self, family: Family | None = None) -> Any:
        """Its part of the rule's meaning."""
        return self

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Why it can't stand in this rule of this family; None where it can."""
        return None

    def losses(self) -> Iterable[Loss]:
        """What of it the kernel's tools lose."""
        return ()


class Accept(Target, frozen=True):
    """ACCEPT: the packet passes this hook."""


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


class OpaqueTarget(Target, frozen=True):
    """A target that the typed language doesn't know: its name and the words of its options, kept as they are."""

    final: ClassVar[bool] = False  # unknown; the cautious reading
    name: str
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The target's own name."""
        return self.name


COMMENT_BYTES: Final = 128  # libnftnl/udata.h, NFTNL_UDATA_COMMENT_MAXLEN
_COMMENT_HASH: Final = 12


_SIMPLE: Final = re.compile(r"[ !#-\[\]-~]*\Z")  # printable ASCII but quote and backslash


def stored_comment(text: str) -> str:
    """The comment as every backend can hold it: at most 128 bytes, no double quote; idempotent.

    Longer ones, and those with a quote, a backslash or a control character, become a prefix and a hash.
    """
    if len(text) <= COMMENT_BYTES and _SIMPLE.match(text):
        return text
    raw = text.encode()
    if len(raw) <= COMMENT_BYTES and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    digest = hashlib.sha256(raw).hexdigest()[:_COMMENT_HASH]
    clean = "".join(c if c.isprintable() and c not in '"\\' else "'" for c in text)
    head = clean.encode()[: COMMENT_BYTES - _COMMENT_HASH - 1].decode(errors="ignore")
    return f"{head}#{digest}"


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


def _signed(field: str, value: Any) -> tuple[Any, ...]:
    """An atom of a base condition, with its sign first."""
    if type(value) is Not:
        value = value.value
        return (field, True, value.atom() if hasattr(value, "atom") else value)
    return (field, False, value.atom() if hasattr(value, "atom") else value)


def matches_any(addresses: Addresses) -> bool:
    """Whether it is the network of all addresses, which states nothing."""
    return type(addresses) is Network and addresses.mask == 0


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
            plain.add(_signed("saddr", self.source))
        if self.destination is not None and not matches_any(self.destination):
            plain.add(_signed("daddr", self.destination))
        if self.in_interface is not None:
            plain.add(_signed("iif", self.in_interface))
        if self.out_interface is not None:
            plain.add(_signed("oif", self.out_interface))
        if self.protocol is not None:
            plain.add(_signed("protocol", self.protocol))
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

    def losses(self) -> tuple[Loss, ...]:
        """What of it the kernel's tools would lose."""
        found = [loss for match in self.matches for loss in match.losses()]
        for place, match in enumerate(self.matches):
            if match.told_once and any(_same_field(match, other) for other in self.matches[:place]):
                found.append(_TOLD_ONCE)
        return (*found, *(() if self.target is None else self.target.losses()))

    def other_family(self, family: Family) -> str | None:
        """Which address is of another family than this; None where none is."""
        for name, addresses in (("source", self.source), ("destination", self.destination)):
            value = addresses.value if isinstance(addresses, Not) else addresses
            if isinstance(value, Network) and value.family is not family:
                return f"{name} {value} is an {value.family} address in an {family} chain"
        return None

    def problem(self, family: Family) -> str | None:
        """Why this can't be a rule of the family; None where it can."""
        stranger = self.other_family(family)
        if stranger:
            return stranger
        for name, addresses in (("source", self.source), ("destination", self.destination)):
            if isinstance(addresses, Not) and isinstance(addresses.value, Network) and addresses.value.mask == 0:
                return f"{name} ! {addresses.value} matches nothing"
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
        name = type(match).__name__.lower()
        if family not in match.families:
            return f"match {name} does not exist for {family}"
        if match.protocols is not None and self.protocol not in match.protocols:
            wanted = " or ".join(str(number) for number in sorted(match.protocols))
            return f"match {name} needs the rule to state its protocol ({wanted})"
        return match.problem(self, family)


_TOLD_ONCE: Final = Loss(
    frozenset({"nft"}), "two matches of one kind state the same option: iptables-nft tells the last of them alone"
)


def _same_field(one: Match, other: Match) -> bool:
    """Whether both are of one kind and state the same field."""
    return type(one) is type(other) and any(
        getattr(one, field) is not None and getattr(other, field) is not None for field in one.__struct_fields__
    )


_stated: Final = attrgetter(*Rule.__struct_fields__)
"""All that a rule states, as it is: rules that state the same in the same order mean the same."""
