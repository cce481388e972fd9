"""The nft language: a rule as nft text, in the very form nft itself lists it, and nft's JSON back to a rule.

Because the text is the listed form, a commit can be proven by listing the chain and comparing lines; what
somebody else may have written is always read through the JSON, by meaning. Every rule holds a counter, as every
iptables rule does. Numbers stand where names would depend on the host's files (protocols, services).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.errors import InexpressibleError, MeshfwError, ModelError
from meshfw.extensions.codecs import PROTOCOL_NAMES, PROTOCOL_NUMBERS
from meshfw.extensions.extension import NftMatch
from meshfw.extensions.language import Language
from meshfw.model import (
    ACCEPT,
    DROP,
    RETURN,
    Accept,
    Comment,
    Drop,
    Family,
    Goto,
    Interface,
    Jump,
    Match,
    Network,
    Not,
    OpaqueMatch,
    OpaqueTarget,
    Return,
    Rule,
    SetRef,
    Target,
    format_address,
    matches_any,
    parse_address,
    stored_comment,
)

FAMILIES: Final[Mapping[Family, str]] = {Family.IPV4: "ip", Family.IPV6: "ip6"}
"""nft's names of the two families (nft(8), ADDRESS FAMILIES)."""
KEYWORDS: Final[Mapping[int, str]] = {
    1: "icmp ",
    6: "tcp ",
    17: "udp ",
    33: "dccp ",
    58: "icmpv6 ",
    132: "sctp ",
    136: "udplite ",
}
"""The header names that make nft test the protocol by itself, and leave that test out of a listing."""
_FRAGMENT: Final = "ip frag-off & 8191"  # struct iphdr, IP_OFFSET


class Names(msgspec.Struct, frozen=True):
    """How logical names of chains and sets are written in nft, and read back (None: not one of ours)."""

    chain: Callable[[str], str]
    set: Callable[[str], str]
    chain_of: Callable[[str], str | None]
    set_of: Callable[[str], str | None]


PLAIN_NAMES: Final = Names(chain=str, set=str, chain_of=str, set_of=str)


class UnreadableError(MeshfwError):
    """An nft rule that no typed rule means: ``statement`` is the part that isn't known."""

    def __init__(self, statement: Any) -> None:
        super().__init__(statement)
        self.statement = statement

    def __str__(self) -> str:
        return f"not a rule that meshfw writes: {self.statement}"


# --- model -> text -----------------------------------------------------------------------------------------


class NftText(msgspec.Struct, frozen=True, gc=False):
    """A rule's text in the halves between which its counter stands."""

    head: str
    tail: str

    def __str__(self) -> str:
        return f"{self.head}counter{self.tail}"

    def counting_from(self, packets: int, octets: int) -> str:
        """The text with a counter that goes on from these numbers."""
        return f"{self.head}counter packets {packets} bytes {octets}{self.tail}"


def render_rule(rule: Rule, *, family: Family, language: Language, names: Names = PLAIN_NAMES) -> NftText:
    """The rule as nft lists it.

    Raises:
        InexpressibleError: where nft has no way to say it, with what and why.
    """
    base = _base_conditions(rule, family, names)
    held, comment = _match_statements(rule, family, language, names)
    if rule.protocol is not None:
        if isinstance(rule.protocol, Not):
            base.append(f"meta l4proto != {rule.protocol.value}")
        elif not _implies_protocol(rule, held):
            base.append(f"meta l4proto {rule.protocol}")
    if rule.fragment is not None:
        base.append(f"{_FRAGMENT} {'!=' if rule.fragment else '=='} 0")
    base.extend(text for _, text in held)
    tail = _target_text(rule, family, language, names)
    if comment:
        tail += f' comment "{comment}"'
    return NftText(" ".join(base) + " " if base else "", tail)


def _base_conditions(rule: Rule, family: Family, names: Names) -> list[str]:
    words: list[str] = []
    network = FAMILIES[family]
    if rule.source is not None and not matches_any(rule.source):
        words.append(_address_condition(f"{network} saddr", rule.source, names))
    if rule.destination is not None and not matches_any(rule.destination):
        words.append(_address_condition(f"{network} daddr", rule.destination, names))
    if rule.in_interface is not None:
        words.append(_interface_condition("iifname", rule.in_interface))
    if rule.out_interface is not None:
        words.append(_interface_condition("oifname", rule.out_interface))
    return words


def _address_condition(left: str, held: Any, names: Names) -> str:
    negated = type(held) is Not
    value = held.value if negated else held
    sign = " != " if negated else " "
    if type(value) is SetRef:
        return f"{left}{sign}@{names.set(value.name)}"
    prefix = value.prefix
    address = format_address(value.address, value.family)
    if prefix is None:
        sign = "!=" if negated else "=="
        return f"{left} & {format_address(value.mask, value.family)} {sign} {address}"
    return f"{left}{sign}{address}" if prefix == value.family.bits else f"{left}{sign}{address}/{prefix}"


def _interface_condition(left: str, held: Interface | Not[Interface]) -> str:
    negated = isinstance(held, Not)
    name = held.value.name if isinstance(held, Not) else held.name
    if "*" in name or "\\" in name:
        raise InexpressibleError(f"interface {name}: nft reads * and \\ as its own")
    text = f"{name[:-1]}*" if name.endswith("+") else name
    return f'{left} {"!= " if negated else ""}"{text}"'


def _match_statements(
    rule: Rule, family: Family, language: Language, names: Names
) -> tuple[list[tuple[Match, str]], str]:
    """The statements of the rule's matches with the match each comes from, and its comment."""
    held: list[tuple[Match, str]] = []
    comment = ""
    for match in rule.matches:
        if isinstance(match, Comment):
            if comment and match.text:
                raise InexpressibleError("two comments: an nft rule holds one")
            comment = comment or stored_comment(match.text)
            continue
        if isinstance(match, OpaqueMatch):
            raise InexpressibleError(f"match {match.name} has no typed value")
        extension = language.by_value[type(match)]
        statements = extension.nft_statements(match, family, rule)
        if statements is None:
            raise InexpressibleError(f"match {extension.name} has no nft expression in this form")
        held.extend((match, _named_set(text, names)) for text in statements)
    return held, comment


_SET: Final = re.compile(r"@(\S+)\Z")


def _named_set(text: str, names: Names) -> str:
    return _SET.sub(lambda found: f"@{names.set(found[1])}", text) if "@" in text else text


def _implies_protocol(rule: Rule, held: Sequence[tuple[Match, str]]) -> bool:
    """Whether nft tests the protocol by itself before anything that remembers: then a listing leaves the test out."""
    keyword = KEYWORDS.get(rule.protocol) if isinstance(rule.protocol, int) else None
    if keyword is None:
        return False
    for match, text in held:
        if text.startswith(keyword):
            return True
        if match.stateful:
            return False
    return False


def _target_text(rule: Rule, family: Family, language: Language, names: Names) -> str:
    match rule.target:
        case None:
            return ""
        case Accept():
            return " accept"
        case Drop():
            return " drop"
        case Return():
            return " return"
        case Jump(chain):
            return f" jump {names.chain(chain)}"
        case Goto(chain):
            return f" goto {names.chain(chain)}"
        case OpaqueTarget(name):
            raise InexpressibleError(f"target {name} has no typed value")
        case target:
            extension = language.by_value[type(target)]
            statements = extension.nft_statements(target, family, rule)
            if statements is None:
                raise InexpressibleError(f"target {extension.name} has no nft statement in this form")
            return "".join(f" {text}" for text in statements)


# --- JSON -> model -----------------------------------------------------------------------------------------


def read_rule(
    statements: Sequence[Mapping[str, Any]],
    *,
    family: Family,
    language: Language,
    names: Names = PLAIN_NAMES,
    comment: str = "",
) -> Rule:
    """The rule that a list of nft statements means (libnftables-json(5), STATEMENTS).

    Raises:
        UnreadableError: where a statement is none that :func:`render_rule` writes.
    """
    reader = _RuleReader(family, language, names)
    statement: Mapping[str, Any] = {}
    try:
        for statement in statements:
            reader.statement(statement)
    except (KeyError, TypeError, ValueError, IndexError, ModelError) as error:
        raise UnreadableError(f"{statement}: {error}") from None
    return reader.rule(comment)


_VERDICTS: Final[Mapping[str, Target]] = {"accept": ACCEPT, "drop": DROP, "return": RETURN}
_OPERATORS: Final = frozenset({"==", "!=", "in", "<", ">", "<=", ">="})


class _RuleReader:
    """The parts of a rule found so far."""

    def __init__(self, family: Family, language: Language, names: Names) -> None:
        self._family = family
        self._network = FAMILIES[family]
        self._language = language
        self._names = names
        self._fields: dict[str, Any] = {}
        self._matches: list[Match] = []
        self._target: Target | None = None

    def rule(self, comment: str) -> Rule:
        if comment:
            self._matches.append(Comment(comment))
        return Rule(matches=tuple(self._matches), target=self._target, **self._fields)

    def statement(self, statement: Mapping[str, Any]) -> None:
        ((name, body),) = statement.items()
        if self._target is not None and name != "counter":
            raise UnreadableError(f"{statement} behind the target")
        if name == "counter":
            if not isinstance(body, Mapping) and body is not None:
                raise UnreadableError(statement)  # a named counter object, none of ours
        elif name == "match":
            self._match(body)
        elif name in _VERDICTS:
            self._target = _VERDICTS[name]
        elif name in ("jump", "goto"):
            self._jump(name, body["target"])
        else:
            self._other(name, body, statement)

    def _jump(self, kind: str, chain: str) -> None:
        logical = self._names.chain_of(chain)
        if logical is None:
            raise UnreadableError(f"{kind} {chain}")
        self._target = Jump(logical) if kind == "jump" else Goto(logical)

    def _other(self, name: str, body: Any, statement: Mapping[str, Any]) -> None:
        key = f"mangle {_left(body['key'])[0]}" if name == "mangle" else name
        reader = self._language.readers.get(key)
        value = reader(body, self._family) if reader is not None else None
        if isinstance(value, Match):
            self._matches.append(value)
        elif isinstance(value, Target):
            self._target = value
        else:
            raise UnreadableError(statement)

    def _match(self, body: Mapping[str, Any]) -> None:
        op = body["op"]
        if op not in _OPERATORS:
            raise UnreadableError(body)
        key, mask = _left(body["left"])
        right = self._logical_set(body["right"])
        match = NftMatch(key, right, self._family, negated=op == "!=", op=op, mask=mask)
        if not self._base(match):
            self._extension_match(match, body)

    def _logical_set(self, right: Any) -> Any:
        if isinstance(right, str) and right.startswith("@"):
            logical = self._names.set_of(right[1:])
            if logical is None:
                raise UnreadableError(right)
            return f"@{logical}"
        return right

    def _extension_match(self, match: NftMatch, body: Mapping[str, Any]) -> None:
        readers = self._language.readers
        kind = next(iter(match.right)) if isinstance(match.right, Mapping) else ""
        key = match.key if match.mask is None else f"{match.key} &"
        reader = readers.get(f"{key} {kind}") or readers.get(key)
        value = reader(match, self._family) if reader is not None else None
        if not isinstance(value, Match):
            raise UnreadableError(body)
        for number, keyword in KEYWORDS.items():
            if key.startswith(keyword):
                self._implied_protocol(number)
        self._matches.append(value)

    def _implied_protocol(self, number: int) -> None:
        """A header's name means that nft tested the protocol before, whether the listing shows that test or not."""
        if self._fields.setdefault("protocol", number) != number:
            raise UnreadableError(f"protocol {self._fields['protocol']} and {number} in one rule")

    def _base(self, match: NftMatch) -> bool:
        """Take a condition that every rule may state; False for any other."""
        key = match.key
        if key in (f"{self._network} saddr", f"{self._network} daddr"):
            field = "source" if key.endswith("saddr") else "destination"
            value: Any = self._addresses(match)
        elif key in ("meta iifname", "meta oifname", "iifname", "oifname"):
            field = "in_interface" if key.endswith("iifname") else "out_interface"
            name = str(match.right)
            value = Interface(f"{name[:-1]}+" if name.endswith("*") else name)
        elif key == "meta l4proto" or (key == "ip protocol" and self._family is Family.IPV4):
            field, value = "protocol", _protocol(match.right, self._language)
        elif key == "ip frag-off" and match.mask == 8191 and match.right == 0 and match.op in ("==", "!="):
            self._once("fragment", match.negated)
            return True
        else:
            return False
        if value is None or match.op not in ("==", "!="):
            return False
        self._once(field, Not(value) if match.negated else value)
        return True

    def _once(self, field: str, value: Any) -> None:
        if field in self._fields:
            raise UnreadableError(f"two conditions on {field}")
        self._fields[field] = value

    def _addresses(self, match: NftMatch) -> Network | SetRef | None:
        right = match.right
        if match.mask is not None:
            return _network(str(right), self._family, mask=parse_address(str(match.mask))[1])
        if isinstance(right, Mapping):
            prefix = right.get("prefix")
            return None if prefix is None else Network.parse(f"{prefix['addr']}/{prefix['len']}")
        text = str(right)
        return SetRef(text[1:]) if text.startswith("@") else _network(text, self._family)


def _network(text: str, family: Family, *, mask: int | None = None) -> Network:
    found, address = parse_address(text)
    if found is not family:
        raise UnreadableError(text)
    return Network(family, address, (1 << family.bits) - 1 if mask is None else mask)


def _protocol(right: Any, language: Language) -> int | None:
    if isinstance(right, int):
        return right
    if isinstance(right, str):
        return PROTOCOL_NUMBERS.get(right, language.hosts.protocols.get(right))
    return None


def _left(left: Any) -> tuple[str, Any]:
    """The left side of a condition as nft's words, and the mask it is and-ed with."""
    if not isinstance(left, Mapping):
        raise UnreadableError(left)
    ((kind, body),) = left.items()
    if kind == "&":
        inner, mask = _left(body[0])
        if mask is not None:
            raise UnreadableError(left)
        return inner, body[1]
    if kind == "payload" and "field" in body:
        return f"{body['protocol']} {body['field']}", None
    if kind == "meta":
        return f"meta {body['key']}", None
    if kind == "ct":
        direction = f"{body['dir']} " if "dir" in body else ""
        return f"ct {direction}{body['key']}", None
    if kind == "fib":
        flags = body["flags"]
        joined = " . ".join([flags] if isinstance(flags, str) else flags)
        return f"fib {joined} {body['result']}", None
    if kind == "tcp option":
        return f"tcp option {body.get('name', '')} {body.get('field', '')}".strip(), None
    raise UnreadableError(left)


__all__ = [
    "FAMILIES",
    "PLAIN_NAMES",
    "PROTOCOL_NAMES",
    "Names",
    "NftText",
    "UnreadableError",
    "read_rule",
    "render_rule",
]
