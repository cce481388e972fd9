"""The model: frozen values for what an owner wants of a firewall, validated when they are built.

A :class:`Ruleset` holds chains of rules, sets, and attachments of chains to hooks, for one or both
address families. Nothing here knows how a backend lays it out in a kernel. Two rules are equal when a
kernel would behave the same under both: :meth:`Rule.key` is that meaning, and text is never compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from meshfw.errors import FamilyError, ModelError

T = TypeVar("T")


class Family(StrEnum):
    """An address family."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def bits(self) -> int:
        """The width of an address in bits."""
        return 32 if self is Family.IPV4 else 128


class Table(StrEnum):
    """An iptables table (iptables(8), TABLES)."""

    RAW = "raw"
    MANGLE = "mangle"
    NAT = "nat"
    FILTER = "filter"
    SECURITY = "security"


class Hook(StrEnum):
    """A netfilter hook, by its nft name; the iptables built-in chain has the same name in capitals."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


HOOKS: Final[Mapping[Table, frozenset[Hook]]] = {
    Table.RAW: frozenset({Hook.PREROUTING, Hook.OUTPUT}),
    Table.MANGLE: frozenset(Hook),
    Table.NAT: frozenset({Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING}),
    Table.FILTER: frozenset({Hook.INPUT, Hook.FORWARD, Hook.OUTPUT}),
    Table.SECURITY: frozenset({Hook.INPUT, Hook.FORWARD, Hook.OUTPUT}),
}
"""The hooks of each table (iptables(8), TABLES)."""


class Place(StrEnum):
    """Where on a hook an attachment stands: before or behind what others have there."""

    FIRST = "first"
    LAST = "last"


class Policy(StrEnum):
    """What a hook and place do with a packet that no rule decided; ``return`` leaves it to whoever comes next."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"


class Not(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """The negation of one condition: iptables' ``!`` before an option."""

    value: T


# --- conditions that every rule may state (ip_tables.h, struct ipt_ip) ---------------------------------


_ZEROS: Final = re.compile(r"(?:(?<=:)|^)0(?::0)+(?=:|$)")


def format_address(value: int, family: Family) -> str:
    """The text of an address exactly as inet_ntop(3) writes it, which is what the kernel's tools print."""
    if family is Family.IPV4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    if value >> 32 == 0xFFFF:
        return f"::ffff:{format_address(value & 0xFFFFFFFF, Family.IPV4)}"
    if 0xFFFF < value <= 0xFFFFFFFF:
        return f"::{format_address(value, Family.IPV4)}"
    digits = f"{value:032x}"
    text = ":".join([digits[at : at + 4].lstrip("0") or "0" for at in range(0, 32, 4)])
    longest = max(_ZEROS.finditer(text), key=lambda run: len(run.group()), default=None)
    if longest is None:
        return text
    return f"{text[: longest.start()].removesuffix(':')}::{text[longest.end() :].removeprefix(':')}"


def parse_address(text: str) -> tuple[Family, int]:
    """Family and integer of an address's text; ``ModelError`` for anything else, host names too."""
    octets = text.split(".")
    if len(octets) == 4 and all(word.isdigit() and word.isascii() and (word[0] != "0" or word == "0") for word in octets):
        one, two, three, four = map(int, octets)
        if max(one, two, three, four) < 256:
            return Family.IPV4, one << 24 | two << 16 | three << 8 | four
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ModelError(f"{text!r} is not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ModelError(f"{text!r} has a scope, which a rule can't match")
        return Family.IPV6, int(address)
    return Family.IPV4, int(address)


class Network(msgspec.Struct, frozen=True, gc=False, order=True):
    """Addresses under a mask: one host, a prefix, or (iptables' speciality) a mask with gaps."""

    family: Family
    address: int
    mask: int

    def __post_init__(self) -> None:
        if not 0 <= self.mask < 1 << self.family.bits or self.address & ~self.mask:
            raise ModelError(f"host bits outside the mask in an {self.family} network")

    @classmethod
    def parse(cls, text: str) -> Network:
        """The network of ``ADDRESS``, ``ADDRESS/LENGTH`` or ``ADDRESS/MASK``; host bits are masked off."""
        head, slash, tail = text.partition("/")
        family, address = parse_address(head)
        mask = cls._mask(tail, family, text) if slash else (1 << family.bits) - 1
        return cls(family, address & mask, mask)

    @staticmethod
    def _mask(text: str, family: Family, whole: str) -> int:
        full = (1 << family.bits) - 1
        if text.isascii() and text.isdigit():
            if int(text) > family.bits:
                raise ModelError(f"{whole!r}: prefix length {text} is more than {family.bits}")
            return full ^ (full >> int(text))
        try:
            mask_family, mask = parse_address(text)
        except ModelError:
            raise ModelError(f"{whole!r}: {text!r} is neither a prefix length nor a mask") from None
        if mask_family is not family:
            raise ModelError(f"{whole!r}: the mask is of the other family")
        return mask

    @property
    def prefix(self) -> int | None:
        """The prefix length; None for a mask with gaps."""
        length = self.mask.bit_count()
        full = (1 << self.family.bits) - 1
        return length if self.mask == full ^ (full >> length) else None

    @property
    def last(self) -> int:
        """The highest address (of a prefix)."""
        return self.address | (~self.mask & ((1 << self.family.bits) - 1))

    def __str__(self) -> str:
        prefix = self.prefix
        tail = format_address(self.mask, self.family) if prefix is None else prefix
        return f"{format_address(self.address, self.family)}/{tail}"

    def atom(self) -> tuple[Any, ...]:
        """Its part of a rule's meaning: the range of a prefix, or value and mask."""
        if self.prefix is None:
            return (self.family.bits, "mask", self.address, self.mask)
        return (self.family.bits, self.address, self.last)


class SetRef(msgspec.Struct, frozen=True, gc=False, order=True):
    """A reference to a :class:`Set` of the same ruleset and family, written ``@name``."""

    name: str

    def __str__(self) -> str:
        return f"@{self.name}"

    def atom(self) -> tuple[Any, ...]:
        """Its part of a rule's meaning."""
        return ("set", self.name)


Addresses = Network | SetRef | Not[Network] | Not[SetRef]

_IFNAMSIZ: Final = 16  # linux/if.h, with the final NUL


class Interface(msgspec.Struct, frozen=True, gc=False, order=True):
    """A network interface by name; a final ``+`` stands for any ending (iptables(8), --in-interface)."""

    name: str

    def __post_init__(self) -> None:
        if not self.name or len(self.name.encode()) >= _IFNAMSIZ:
            raise ModelError(f"interface name {self.name!r} must have 1 to {_IFNAMSIZ - 1} bytes")
        if not self.name.isprintable() or set(self.name) & set('/ "'):
            raise ModelError(f"interface name {self.name!r} holds a character that no interface can have")
        if self.name == "+":
            raise ModelError("interface '+' stands for every interface: leave it out")

    def __str__(self) -> str:
        return self.name


Interfaces = Interface | Not[Interface]


# --- matches and targets ---------------------------------------------------------------------------------


class Match(msgspec.Struct, frozen=True, gc=False):
    """One condition of a rule beyond addresses, interfaces and protocol; extensions subclass it once."""

    stateful: ClassVar[bool] = False
    """It counts or remembers, so its place among the matches is part of the rule's meaning."""
    protocols: ClassVar[frozenset[int] | None] = None
    """The IP protocols (RFC 5237 numbers) one of which the rule must state."""
    families: ClassVar[frozenset[Family]] = frozenset(Family)

    def atoms(self) -> Iterable[Any]:
        """Hashable parts of the rule's meaning; none where it adds nothing to the base conditions."""
        return (self,)

    def problem(self, rule: Rule, family: Family) -> str | None:
        """Why it can't stand in this rule of this family; None where it can."""
        return None


class Target(msgspec.Struct, frozen=True, gc=False):
    """What a rule does with a packet; extensions subclass it once."""

    tables: ClassVar[frozenset[Table] | None] = None
    hooks: ClassVar[frozenset[Hook] | None] = None
    families: ClassVar[frozenset[Family]] = frozenset(Family)
    final: ClassVar[bool] = True
    """No later rule of the chain sees the packet."""

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


class Accept(Target, frozen=True):
    """ACCEPT: the packet passes this hook."""


class Drop(Target, frozen=True):
    """DROP: the packet is gone."""


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


def stored_comment(text: str) -> str:
    """The comment as every backend can hold it: at most 128 bytes, no double quote; idempotent.

    Longer ones, and those with a quote, a backslash or a control character, become a prefix and a hash.
    """
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
        if len(self.text.encode()) > 255:  # xt_comment.h, XT_MAX_COMMENT_LEN with the final NUL
            raise ModelError("a comment holds at most 255 bytes")
        if "\n" in self.text or "\0" in self.text:
            raise ModelError("a comment can't hold a line end or NUL")

    def atoms(self) -> Iterable[Any]:
        """The comment as any backend stores it."""
        return (("comment", stored_comment(self.text)),) if self.text else ()


# --- rules, chains, sets, attachments ----------------------------------------------------------------------


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
        for match in self.matches:
            if match.stateful:
                parts.append(frozenset(plain))
                parts.extend(match.atoms())
                plain = set()
            else:
                plain.update(match.atoms())
        parts.append(frozenset(plain))
        parts.append(None if self.target is None else self.target.atom())
        return tuple(parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rule):
            return NotImplemented
        return self is other or self.key() == other.key()

    def __ne__(self, other: object) -> bool:  # the struct's own would compare identity
        return not self == other

    def __hash__(self) -> int:
        return hash(self.key())

    @property
    def comment(self) -> str:
        """The text of its comment matches, joined by a space; empty without one."""
        return " ".join(match.text for match in self.matches if isinstance(match, Comment))

    def problem(self, family: Family) -> str | None:
        """Why this can't be a rule of the family; None where it can."""
        for name, addresses in (("source", self.source), ("destination", self.destination)):
            value = addresses.value if isinstance(addresses, Not) else addresses
            if isinstance(value, Network) and value.family is not family:
                return f"{name} {value} is an {value.family} address in an {family} chain"
            if isinstance(addresses, Not) and isinstance(value, Network) and value.mask == 0:
                return f"{name} ! {value} matches nothing"
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


NAME_MAX: Final = 128
_NAME: Final = re.compile(r"[!-~]+\Z")
_RESERVED: Final = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})
SET_NAME_MAX: Final = 31  # linux/netfilter/ipset/ip_set.h, IPSET_MAXNAMELEN with the final NUL


def name_problem(name: str, *, longest: int = NAME_MAX) -> str | None:
    """Why a chain or set can't bear the name, on any backend; None where it can."""
    if not name or len(name) > longest:
        return f"name {name!r} has {len(name)} characters; 1 to {longest} are allowed"
    if not _NAME.match(name):
        return f"name {name!r} holds a space or a character outside printable ASCII"
    if name[0] in "-!@" or set(name) & set("\"'\\;{}#"):
        return f"name {name!r}: it can't begin with - ! @ or hold quotes, backslash, braces, ; or #"
    if name in _RESERVED:
        return f"name {name!r} is a target of iptables"
    return None


class ChainKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """What names a chain: family, table and name together."""

    family: Family
    table: Table
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Chain(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An ordered list of rules in one table of one family."""

    family: Family
    table: Table
    name: str
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        why = name_problem(self.name)
        if why:
            raise ModelError(f"chain {why}")
        for index, rule in enumerate(self.rules, 1):
            why = rule.problem(self.family) or _table_problem(rule, self.table)
            if why:
                kind = FamilyError if "ipv" in why and "address" in why else ModelError
                raise kind(why, where=f"{self.key}, rule {index}")

    @property
    def key(self) -> ChainKey:
        """Family, table and name."""
        return ChainKey(self.family, self.table, self.name)


def _table_problem(rule: Rule, table: Table) -> str | None:
    target = rule.target
    if target is None or target.tables is None or table in target.tables:
        return None
    allowed = ", ".join(sorted(target.tables))
    return f"{target.label} is allowed in table {allowed} only, not in {table}"


class ElementType(StrEnum):
    """What a set holds: addresses of its family, or ports."""

    ADDRESS = "address"
    PORT = "port"


class Set(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A named set of addresses or ports that rules refer to.

    ``elements`` are pairs of first and last value as integers, sorted and without overlap; without
    ``intervals`` first and last are the same. :meth:`of` makes one from text.
    """

    family: Family
    name: str
    type: ElementType = ElementType.ADDRESS
    intervals: bool = False
    elements: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        where = f"set {self.name}"
        why = name_problem(self.name, longest=SET_NAME_MAX)
        if why:
            raise ModelError(f"set {why}")
        last = -1
        for low, high in self.elements:
            if not last < low <= high < 1 << self.bits:
                raise ModelError("elements must be sorted, without overlap and of the set's family", where=where)
            if low != high and not self.intervals:
                raise ModelError(f"{self.text(low, high)} is a range and the set holds no intervals", where=where)
            last = high

    @property
    def bits(self) -> int:
        """The width of an element in bits."""
        return self.family.bits if self.type is ElementType.ADDRESS else 16

    @classmethod
    def of(
        cls,
        family: Family,
        name: str,
        elements: Iterable[str],
        *,
        type: ElementType = ElementType.ADDRESS,  # noqa: A002 - the field's own name
    ) -> Set:
        """The set of elements given as text: an address, a prefix, ``first-last``, or a port."""
        pairs = []
        for text in elements:
            try:
                pairs.append(_element(text, family, type))
            except ModelError as error:
                raise error.at(f"set {name}") from None
        merged = merge_ranges(pairs)
        return cls(
            family=family, name=name, type=type, intervals=any(a != b for a, b in merged), elements=merged
        )

    def text(self, low: int, high: int) -> str:
        """One element as text: the shortest of host, prefix and range."""
        if self.type is ElementType.PORT:
            return str(low) if low == high else f"{low}-{high}"
        first = format_address(low, self.family)
        if low == high:
            return first
        size = high - low + 1
        if size & (size - 1) == 0 and low % size == 0:
            return f"{first}/{self.bits - size.bit_length() + 1}"
        return f"{first}-{format_address(high, self.family)}"


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges sorted, overlapping ones joined; neighbours stay apart."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _element(text: str, family: Family, kind: ElementType) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if kind is ElementType.PORT:
        if not all(word.isascii() and word.isdigit() and int(word) < 1 << 16 for word in (first, last or first)):
            raise ModelError(f"{text!r} is not a port from 0 to 65535")
        low, high = int(first), int(last or first)
    elif dash:
        (one, low), (other, high) = parse_address(first), parse_address(last)
        if {one, other} != {family}:
            raise FamilyError(f"{text!r} is not an {family} range")
    else:
        network = Network.parse(text)
        if network.family is not family:
            raise FamilyError(f"{text!r} is not an {family} address")
        if network.prefix is None:
            raise ModelError(f"{text!r}: a set can't hold a mask with gaps")
        low, high = network.address, network.last
    if low > high:
        raise ModelError(f"{text!r}: the range ends before it begins")
    return low, high


class Attachment(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A chain's connection to a hook.

    Attachments of one hook and place are met in the order of ``rank``, then of chain name. ``policy`` is what that hook and
    place do with packets that no attached chain decided; ``when`` (a rule without target) narrows the jump.
    """

    family: Family
    table: Table
    hook: Hook
    chain: str
    place: Place = Place.FIRST
    rank: int = 0
    policy: Policy = Policy.RETURN
    when: Rule = Rule()

    def __post_init__(self) -> None:
        where = f"attachment of {self.chain} to {self.family} {self.table} {self.hook}"
        if self.hook not in HOOKS[self.table]:
            known = ", ".join(hook for hook in Hook if hook in HOOKS[self.table])
            raise ModelError(f"table {self.table} has no hook {self.hook}; it has {known}", where=where)
        if self.when.target is not None:
            raise ModelError("its conditions can't have a target", where=where)
        why = self.when.problem(self.family)
        if why:
            raise ModelError(why, where=where)
        if self.when != _ALWAYS and self.policy is not Policy.RETURN:
            raise ModelError("with conditions it can't state a policy: other packets would meet it too", where=where)

    @property
    def dispatcher(self) -> DispatcherKey:
        """Family, table, hook and place."""
        return DispatcherKey(self.family, self.table, self.hook, self.place)

    @property
    def rule(self) -> Rule:
        """The dispatcher's rule: the conditions and a jump to the chain."""
        return msgspec.structs.replace(self.when, target=Jump(self.chain))


_ALWAYS: Final = Rule()


class DispatcherKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """What names a dispatcher: the place on a hook where all attachments of one owner meet."""

    family: Family
    table: Table
    hook: Hook
    place: Place

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.hook}/{self.place}"


class Dispatcher(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The rules that lead from one hook and place into attached chains, and the policy behind them."""

    key: DispatcherKey
    policy: Policy
    rules: tuple[Rule, ...]


SetKey = tuple[Family, str]


class Ruleset(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """Everything one owner wants: chains, sets and attachments, sorted by name and checked as a whole."""

    chains: tuple[Chain, ...] = ()
    sets: tuple[Set, ...] = ()
    attachments: tuple[Attachment, ...] = ()

    def __post_init__(self) -> None:
        force = msgspec.structs.force_setattr
        force(self, "chains", tuple(sorted(self.chains, key=lambda chain: (chain.family, chain.table, chain.name))))
        force(self, "sets", tuple(sorted(self.sets, key=lambda entry: (entry.family, entry.name))))
        order = sorted(self.attachments, key=lambda a: (a.dispatcher, a.rank, a.chain))
        force(self, "attachments", tuple(order))
        _check(self)

    def __bool__(self) -> bool:
        return bool(self.chains or self.sets)

    def chain(self, key: ChainKey) -> Chain | None:
        """The chain of that name; None where there is none."""
        return next((chain for chain in self.chains if chain.key == key), None)

    @property
    def families(self) -> frozenset[Family]:
        """The families it has chains or sets for."""
        return frozenset(item.family for items in (self.chains, self.sets) for item in items)

    def dispatchers(self) -> tuple[Dispatcher, ...]:
        """The attachments grouped by hook and place, in order."""
        groups: dict[DispatcherKey, list[Attachment]] = {}
        for attachment in self.attachments:
            groups.setdefault(attachment.dispatcher, []).append(attachment)
        return tuple(
            Dispatcher(key=key, policy=_policy(key, group), rules=tuple(item.rule for item in group))
            for key, group in groups.items()
        )


def _policy(key: DispatcherKey, group: Iterable[Attachment]) -> Policy:
    stated = {item.policy for item in group} - {Policy.RETURN}
    if len(stated) > 1:
        raise ModelError("attachments state different policies; one hook and place has one", where=str(key))
    return stated.pop() if stated else Policy.RETURN


# --- checks over a whole ruleset ---------------------------------------------------------------------------


def _check(ruleset: Ruleset) -> None:
    chains = _unique((chain.key, chain) for chain in ruleset.chains)
    sets = _unique(((entry.family, entry.name), entry) for entry in ruleset.sets)
    jumps: dict[ChainKey, tuple[ChainKey, ...]] = {}
    for key, chain in chains.items():
        jumps[key] = _references(chain, chains, sets)
    _check_loops(jumps)
    reached = _reach(ruleset, chains, jumps)
    for key, hooks in reached.items():
        _check_hooks(chains[key], hooks)
    _check_interfaces(ruleset, chains)
    for attachment in ruleset.attachments:
        _check_sets(attachment.when, attachment.family, sets, f"attachment of {attachment.chain}")
    ruleset.dispatchers()


K = TypeVar("K")
V = TypeVar("V")


def _unique(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    found: dict[K, V] = {}
    for key, value in pairs:
        if key in found:
            name = " ".join(key) if isinstance(key, tuple) else str(key)
            raise ModelError(f"{type(value).__name__.lower()} {name} is declared twice")
        found[key] = value
    return found


def _references(
    chain: Chain, chains: Mapping[ChainKey, Chain], sets: Mapping[SetKey, Set]
) -> tuple[ChainKey, ...]:
    """The chains it jumps or goes to, each once; every chain and set it names must exist."""
    found: dict[str, ChainKey] = {}
    for index, rule in enumerate(chain.rules, 1):
        target = rule.target
        if isinstance(target, Jump | Goto) and target.chain not in found:
            key = ChainKey(chain.family, chain.table, target.chain)
            if key not in chains:
                raise ModelError(
                    f"{target.label}: there is no such chain in {chain.family} {chain.table}",
                    where=f"{chain.key}, rule {index}",
                )
            found[target.chain] = key
        _check_sets(rule, chain.family, sets, chain.key, index)
    return tuple(found.values())


def set_references(rule: Rule) -> Iterator[tuple[SetRef, ElementType]]:
    """The sets a rule names and what each must hold."""
    for addresses in (rule.source, rule.destination):
        value = addresses.value if isinstance(addresses, Not) else addresses
        if type(value) is SetRef:
            yield value, ElementType.ADDRESS
    for match in rule.matches:
        for field in match.__struct_fields__:
            value = getattr(match, field)
            value = value.value if type(value) is Not else value
            if type(value) is SetRef:
                yield value, ElementType.PORT


def _check_sets(
    rule: Rule, family: Family, sets: Mapping[SetKey, Set], place: object, index: int | None = None
) -> None:
    for reference, kind in set_references(rule):
        where = f"{place}, rule {index}" if index else str(place)
        entry = sets.get((family, reference.name))
        if entry is None:
            raise ModelError(f"there is no {family} set {reference.name}", where=where)
        if entry.type is not kind:
            raise ModelError(f"set {reference.name} holds {entry.type} elements, not {kind}", where=where)


def _check_loops(jumps: Mapping[ChainKey, tuple[ChainKey, ...]]) -> None:
    """Refuse chains that lead back to themselves, as the kernel would (ELOOP)."""
    done: set[ChainKey] = set()
    for start in jumps:
        path: dict[ChainKey, Iterator[ChainKey]] = {start: iter(jumps[start])} if start not in done else {}
        while path:
            here = next(reversed(path))
            step = next(path[here], None)
            if step is None:
                done.add(here)
                del path[here]
            elif step in path:
                names = [key.name for key in path]
                loop = " -> ".join([*names[names.index(step.name) :], step.name])
                raise ModelError(f"chains jump in a loop: {loop}", where=f"{step.family} {step.table}")
            elif step not in done:
                path[step] = iter(jumps[step])


def _reach(
    ruleset: Ruleset, chains: Mapping[ChainKey, Chain], jumps: Mapping[ChainKey, tuple[ChainKey, ...]]
) -> dict[ChainKey, set[Hook]]:
    """The hooks from which packets can come to each chain."""
    reached: dict[ChainKey, set[Hook]] = {}
    for attachment in ruleset.attachments:
        key = ChainKey(attachment.family, attachment.table, attachment.chain)
        if key not in chains:
            raise ModelError(
                f"there is no chain {attachment.chain} in {attachment.family} {attachment.table}",
                where=f"attachment to {attachment.dispatcher}",
            )
        todo = [key]
        while todo:
            here = todo.pop()
            hooks = reached.setdefault(here, set())
            if attachment.hook not in hooks:
                hooks.add(attachment.hook)
                todo.extend(jumps[here])
    return reached


def _check_hooks(chain: Chain, hooks: set[Hook]) -> None:
    for index, rule in enumerate(chain.rules, 1):
        target = rule.target
        if target is not None and target.hooks is not None and not hooks <= target.hooks:
            wrong = ", ".join(sorted(hooks - target.hooks))
            allowed = ", ".join(hook for hook in Hook if hook in target.hooks)
            raise ModelError(
                f"{target.label} is allowed on {allowed} only, and packets come here from {wrong}",
                where=f"{chain.key}, rule {index}",
            )


_NO_INPUT: Final = frozenset({Hook.OUTPUT, Hook.POSTROUTING})
_NO_OUTPUT: Final = frozenset({Hook.INPUT, Hook.PREROUTING})


def _check_interfaces(ruleset: Ruleset, chains: Mapping[ChainKey, Chain]) -> None:
    """Refuse an interface that a hook never knows, in attached chains, as iptables does for built-in ones."""
    for attachment in ruleset.attachments:
        chain = chains[ChainKey(attachment.family, attachment.table, attachment.chain)]
        for index, rule in enumerate(chain.rules, 1):
            where = f"{chain.key}, rule {index}"
            if rule.in_interface is not None and attachment.hook in _NO_INPUT:
                raise ModelError(f"a packet on {attachment.hook} has no input interface", where=where)
            if rule.out_interface is not None and attachment.hook in _NO_OUTPUT:
                raise ModelError(f"a packet on {attachment.hook} has no output interface", where=where)
