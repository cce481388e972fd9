"""nft's JSON back to a rule (libnftables-json(5)), by meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshfw.errors import MeshfwError, ModelError
from meshfw.extensions.codecs import PROTOCOL_NUMBERS
from meshfw.extensions.extension import NftMatch
from meshfw.extensions.language import Language
from meshfw.languages.nft.names import AH, FAMILIES, KEYWORDS, NO_INTERFACE, PLAIN_NAMES, Names
from meshfw.languages.nft.told import told
from meshfw.model import (
    ACCEPT,
    DROP,
    RETURN,
    Comment,
    Family,
    Goto,
    Interface,
    Jump,
    Match,
    Network,
    Not,
    Rule,
    SetRef,
    Target,
    parse_address,
)


class UnreadableError(MeshfwError):
    """An nft rule that no typed rule means: ``statement`` is the part that isn't known."""

    def __init__(self, statement: Any) -> None:
        super().__init__(statement)
        self.statement = statement

    def __str__(self) -> str:
        return f"not a rule that meshfw writes: {told(self.statement)}"


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
        for index, statement in enumerate(statements):
            reader.statement(statement)
            if _counts(statement) and reader.whole_target(statements[index + 1 :]):
                break
    except (KeyError, TypeError, ValueError, IndexError, ModelError) as error:
        raise UnreadableError(f"{told(statement)}: {error}") from None
    return reader.rule(comment)


def _counts(statement: Mapping[str, Any]) -> bool:
    """Whether it is the rule's own counter, and not a named one, which is a condition of nfacct's."""
    return "counter" in statement and not isinstance(statement["counter"], str)


_VERDICTS: Final[Mapping[str, Target]] = {"accept": ACCEPT, "drop": DROP, "return": RETURN}
_OPERATORS: Final = frozenset({"==", "!=", "in", "<", ">", "<=", ">=", "!"})


_SET_FIELDS: Final = (" saddr", " daddr", " sport", " dport")


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
        if self._target is not None and (name == "match" or name in _VERDICTS or name in ("jump", "goto")):
            raise UnreadableError(f"{told(statement)} as a second target of one rule")
        if name == "counter":
            if isinstance(body, str):  # an object's name
                self._other(name, body, statement)
        elif name == "match":
            self._match(body)
        elif name in _VERDICTS:
            self._target = _VERDICTS[name]
        elif name in ("jump", "goto"):
            self._jump(name, body["target"])
        else:
            self._other(name, body, statement)

    def whole_target(self, statements: Sequence[Mapping[str, Any]]) -> bool:
        """Take all that stands behind the counter for one target, where an extension reads it so."""
        if not reads_whole(statements, self._language):
            return False
        reader = self._language.readers[_whole_key(statements)]
        value = reader([body for statement in statements for body in statement.values()], self._family)
        if not isinstance(value, Target):
            raise UnreadableError(statements)
        self._target = value
        return True

    def _jump(self, kind: str, chain: str) -> None:
        logical = self._names.chain_of(chain)
        if logical is None:
            raise UnreadableError(f"{kind} {chain}")
        self._target = Jump(logical) if kind == "jump" else Goto(logical)

    def _other(self, name: str, body: Any, statement: Mapping[str, Any]) -> None:
        if name == "meter":
            for header in _headers(body["key"]):
                self._implied_protocols(f"{header} ")
        reader = self._language.readers.get(_statement_key(statement))
        value = reader(body, self._family) if reader is not None else None
        if self._target is not None:  # a target may take several statements
            value = self._target.then(value) if isinstance(value, Target) else None
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
        left, bits = body["left"], 0
        if "|" in left:  # bits that are set before it is compared
            left, bits = left["|"]
        key, mask = _left(left)
        right = self._logical_set(body["right"]) if key.endswith(_SET_FIELDS) else body["right"]
        if op == "!":  # how nft writes that none of these bits are on: left & right == 0
            if mask is not None:
                raise UnreadableError(body)
            op, mask, right = "==", right, 0
        detail = _detail(body["left"])
        match = NftMatch(key, right, self._family, negated=op == "!=", op=op, mask=mask, bits=bits, detail=detail)
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
        more = (" &" if match.mask is not None else "") + (" |" if match.bits else "")
        key = f"{match.key}{more}"
        spots = (key, f"{match.key.partition(',')[0]}{more}")  # @nh,64,32 itself, or any place behind @nh
        names = (name for spot in spots for name in (f"{spot} {kind}", spot))
        reader = next((readers[name] for name in names if name in readers), None)
        value = reader(match, self._family) if reader is not None else None
        header = KEYWORDS.get(self._fields.get("protocol", 0), "")
        if not isinstance(value, Match) and header and match.key.startswith("th "):  # of the protocol that is stated
            self._extension_match(msgspec.structs.replace(match, key=header + match.key.removeprefix("th ")), body)
            return
        if not isinstance(value, Match):
            raise UnreadableError(body)
        self._implied_protocols(key)
        self._matches.append(value)

    def _implied_protocols(self, key: str) -> None:
        for number, keyword in KEYWORDS.items():
            if key.startswith(keyword) and (number != AH or self._family is Family.IPV4):
                self._implied_protocol(number)

    def _implied_protocol(self, number: int) -> None:
        """A header's name means that nft tested the protocol before, whether the listing shows that test or not."""
        if self._fields.setdefault("protocol", number) != number:
            raise UnreadableError(f"protocol {self._fields['protocol']} and {number} in one rule")

    def _base(self, match: NftMatch) -> bool:
        """Take a condition that every rule may state; False for any other."""
        key = match.key
        if match.bits or (match.mask is not None and not key.endswith((" saddr", " daddr", " frag-off"))):
            return False
        if key in (f"{self._network} saddr", f"{self._network} daddr"):
            field = "source" if key.endswith("saddr") else "destination"
            value: Any = self._addresses(match)
        elif key in ("meta iifname", "meta oifname", "iifname", "oifname"):
            field = "in_interface" if key.endswith("iifname") else "out_interface"
            name = str(match.right)
            if name == NO_INTERFACE and match.op == "==":
                self._once(field, Not(Interface("+")))
                return True
            value = _interface(name)
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
        if self._fields.get(field, value) != value:
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


def _interface(name: str) -> Interface:
    """The interface of a name in nft: a last ``*`` stands for any ending, one behind a backslash for itself."""
    if name.endswith("\\*"):
        return Interface(f"{name[:-2]}*")
    return Interface(f"{name[:-1]}+" if name.endswith("*") else name)


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


def reads_whole(statements: Sequence[Mapping[str, Any]], language: Language) -> bool:
    """Whether an extension reads the statements that stand behind a counter as one target, a condition among them."""
    return len(statements) > 1 and _whole_key(statements) in language.readers


def _whole_key(statements: Sequence[Mapping[str, Any]]) -> str:
    return " + ".join(map(_statement_key, statements))


def _statement_key(statement: Mapping[str, Any]) -> str:
    """What a statement's reader is found by: its name, and for a condition or a change what that looks at."""
    ((name, body),) = statement.items()
    if name == "mangle":
        return f"mangle {_left(body['key'])[0]}"
    if name == "meter":
        return f"meter {next(iter(body['stmt']))}"
    return f"match {_left(body['left'])[0]}" if name == "match" else str(name)


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
    if kind == "concat":
        parts = [_left(part) for part in body]
        if any(mask is not None for _, mask in parts):
            raise UnreadableError(left)
        return " . ".join(key for key, _ in parts), None
    return _key(kind, body), None


def _detail(left: Any) -> Mapping[str, Any]:
    """What the left side states beside its key."""
    body = left.get("numgen") if isinstance(left, Mapping) else None
    return body if isinstance(body, Mapping) else {}


def _headers(key: Any) -> Iterator[str]:
    """The headers that an expression looks into."""
    if isinstance(key, Mapping):
        if "payload" in key:
            yield key["payload"]["protocol"]
        else:
            yield from _headers(list(key.values()))
    elif isinstance(key, list):
        for part in key:
            yield from _headers(part)


def _key(kind: str, body: Mapping[str, Any]) -> str:
    """One thing that a condition looks at, as nft's words."""
    if kind == "payload" and "field" in body:
        return f"{body['protocol']} {body['field']}"
    if kind == "payload":
        return f"@{body['base']},{body['offset']},{body['len']}"
    if kind == "socket":
        return f"socket {body['key']}"
    if kind in ("meta", "rt"):
        return f"{kind} {body['key']}"
    if kind == "numgen":
        return f"numgen {body['mode']}"
    if kind == "ct":
        direction = f"{body['dir']} " if "dir" in body else ""
        return f"ct {direction}{body['key']}"
    if kind == "fib":
        flags = body["flags"]
        joined = " . ".join([flags] if isinstance(flags, str) else flags)
        return f"fib {joined} {body['result']}"
    return _header_key(kind, body)


def _header_key(kind: str, body: Mapping[str, Any]) -> str:
    """A header behind the first ones, an option or a chunk, as nft's words."""
    if kind == "tcp option" and body.get("offset", 0) == 0 and body.get("len", 8) == 8 and "base" in body:
        return f"tcp option {body['base']}"  # one that nft has no name for
    if kind == "sctp chunk":
        return f"sctp chunk {body['name']} {body.get('field', '')}".strip()
    if kind == "exthdr":
        return f"{body['name']} {body['field']}" if "field" in body else f"exthdr {body['name']}"
    if kind == "tcp option":
        return f"tcp option {body.get('name', '')} {body.get('field', '')}".strip()
    raise UnreadableError({kind: body})
