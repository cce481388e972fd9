"""The expressions of a rule as the kernel dumps them: its counter cut out, its jump, and whether iptables can tell it.

iptables-nft lists a rule that nft(8) made by what it understands of it and leaves out the rest, with exit code 0: a
match on a set comes out as no match at all. So its text counts only for rules all of whose expressions are of the kinds
and shapes that iptables-nft makes itself (iptables, iptables/nft-shared.c). Layout: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from meshfw.kernel.nfmessage import attributes

_NAME, _DATA = 1, 2  # enum nft_expr_attributes
_ELEMENT: Final = 1  # NFTA_LIST_ELEM
_NESTED: Final = 0x8000


_HEADER: Final = struct.Struct("=HH")  # struct nlattr: length, type


def _header(length: int, kind: int) -> bytes:
    return _HEADER.pack(length, kind)


_COUNTER: Final = b"".join(
    (
        re.escape(_header(12, _NAME)) + b"counter\0",
        b"(?:" + re.escape(_header(28, _DATA)) + b"|" + re.escape(_header(28, _DATA | _NESTED)) + b")",
        re.escape(_header(12, 1)) + b"(.{8})",  # NFTA_COUNTER_BYTES
        re.escape(_header(12, 2)) + b"(.{8})",  # NFTA_COUNTER_PACKETS
    )
)
_COUNTER_ALONE: Final = re.compile(_COUNTER, re.DOTALL)

_USUAL_SIZES: Final = (36, 44, 52, 48, 76, 56, 300, 216, 64, 68, 60, 72, 80, 84, 88)
"""Of the expressions before a counter; any others are walked one by one."""
_COUNTER_BEHIND_OTHERS: Final = re.compile(
    b"(?:%b)*?%b%b"
    % (
        b"|".join(re.escape(_header(size, _ELEMENT)) + b".{%d}" % (size - 4) for size in _USUAL_SIZES),
        re.escape(_header(44, _ELEMENT)),
        _COUNTER,
    ),
    re.DOTALL,
)

_ZEROS: Final = bytes(8) + _header(12, 2) + bytes(8)


class NfBody(msgspec.Struct, frozen=True, gc=False):
    """What a rule does, apart from its counter's numbers.

    ``jump`` is the chain that it jumps or goes to, empty without one; ``plain`` whether it is a jump without a
    condition; ``told`` whether iptables-nft lists all that it does; ``comment`` is that of a rule of iptables' that is
    nothing else.
    """

    jump: str = ""
    plain: bool = False
    told: bool = False
    comment: str = ""


def without_counter(expressions: bytes) -> tuple[bytes, int, int]:
    """The expressions with the numbers of the first counter made zeros, and these: packets and bytes."""
    found = _COUNTER_BEHIND_OTHERS.match(expressions) or _walked_to_counter(expressions)
    if found is None:
        return expressions, 0, 0
    octets, packets = found.groups()
    body = expressions[: found.start(1)] + _ZEROS + expressions[found.end(2) :]
    return body, int.from_bytes(packets, "big"), int.from_bytes(octets, "big")


def _walked_to_counter(expressions: bytes) -> re.Match[bytes] | None:
    """The first counter among the expressions themselves: the bytes of one may stand inside another expression too."""
    offset, end = 0, len(expressions)
    while offset + 4 <= end:
        length, _ = _HEADER.unpack_from(expressions, offset)
        if length < 4 or offset + length > end:
            return None
        found = _COUNTER_ALONE.fullmatch(expressions, offset + 4, offset + length)
        if found is not None:
            return found
        offset += length + 3 & ~3
    return None


def read_body(expressions: bytes, *, ipv6: bool) -> NfBody:
    """What NFTA_RULE_EXPRESSIONS say; OSError with EPROTO where they are no attributes.

    What decides is the same in rules that differ in addresses, ports and comments alone, so it's thought over once: a
    body never seen before takes some 6 µs.
    """
    elements = [element for _, element in attributes(expressions, 0, len(expressions))]
    body, remarks = _judged(tuple([_facts(element) for element in elements]), ipv6)
    return msgspec.structs.replace(body, comment=_comment(elements[0])) if remarks else body


_MEMORY: Final = 4096  # of what recurs in rules; far more than there are kinds and shapes of rules in a ruleset


@lru_cache(_MEMORY)
def _judged(found: tuple[_Facts, ...], ipv6: bool) -> tuple[NfBody, bool]:
    """A body of expressions with these facts, its comment aside, and whether it's nothing but a match."""
    names = [facts.name for facts in found]
    counted = names.index("counter") if names.count("counter") == 1 else len(names)
    target = found[counted + 1 :]
    code, jump = (target[0].code, target[0].jump) if names[counted + 1 :] == ["immediate"] else (None, "")
    plain = counted == 0 and code == _JUMP and bool(jump)
    told = counted < len(names) and _is_target(target) and _are_conditions(found[:counted], ipv6=ipv6)
    return NfBody(jump, plain, told), names == ["match", "counter"]


_Load = tuple[str, int, int]


class _Facts(NamedTuple):
    """What of an expression may decide: all but its literals, and of them only what some answer depends on."""

    name: str
    load: _Load = ("", 0, 0)
    """What a payload or meta loads: base, offset and length, or a key; where it writes instead, "set"."""
    code: int | None = None
    """The operator of a comparison; the verdict of an immediate, None where it loads a register."""
    jump: str = ""
    literal: int = 0
    """A literal that is 0 or has a meaning of its own; of others -1."""
    kept: bool = True
    """Whether iptables has words for all of a mask, a limit or a log."""


_JUMP: Final = -3  # linux/netfilter/nf_tables.h, enum nft_verdicts: NFT_JUMP
_VERDICTS: Final = frozenset({0, 1, -1, _JUMP, -4, -5})  # NF_DROP, NF_ACCEPT, NFT_CONTINUE, JUMP, GOTO, RETURN


def _is_target(found: Sequence[_Facts]) -> bool:
    """Whether iptables has a target, or none, for what stands behind the counter."""
    names = [facts.name for facts in found]
    if names == ["immediate"]:
        return found[0].code in _VERDICTS
    if names == ["log"]:
        return found[0].kept
    if names == ["immediate", "meta"]:  # TRACE: NFT_META_NFTRACE set to 1
        return found[0].literal == 1 and found[1].load == ("set", _NFTRACE, 0)
    return names in ([], ["target"])


# --- conditions --------------------------------------------------------------------------------------------


class _Condition(msgspec.Struct):
    """What is loaded, what it's masked with and what it's compared with."""

    load: _Load
    masks: list[_Facts] = []
    tests: list[_Facts] = []


def _are_conditions(found: Sequence[_Facts], *, ipv6: bool) -> bool:
    """Whether iptables lists all that has to be met; its own options come first there, and each of them once."""
    conditions: list[_Condition] = []
    matches = False
    for facts in found:
        if facts.name in ("payload", "meta"):
            if matches and facts.load in (_OPTIONS_IPV6 if ipv6 else _OPTIONS_IPV4):
                return False
            conditions.append(_Condition(facts.load))
        elif facts.name == "bitwise" and conditions:
            conditions[-1].masks.append(facts)
        elif facts.name in ("cmp", "range") and conditions:
            conditions[-1].tests.append(facts)
        elif facts.name in _KNOWN and facts.kept:
            matches = True
        else:
            return False
    places = [condition.load[:2] for condition in conditions if condition.load != _MARK]
    if len(places) != len(set(places)):  # iptables lists the last one
        return False
    protocol = next((_protocol(condition) for condition in conditions if condition.load == _PROTOCOL), 0)
    return all(_is_told(condition, protocol, ipv6=ipv6) for condition in conditions)


def _protocol(condition: _Condition) -> int:
    """TCP or UDP where a condition asks for it."""
    test = condition.tests[0] if condition.tests else None
    return test.literal if test is not None and test.code == _EQUAL else 0


def _is_told(condition: _Condition, protocol: int, *, ipv6: bool) -> bool:
    load, masks, tests = condition.load, condition.masks, condition.tests
    comparison = [test.code for test in tests if test.name == "cmp"]
    once = len(tests) == 1 and comparison in ([_EQUAL], [_UNEQUAL])
    masked = len(masks) == 1 and masks[0].kept
    if load in _PORTS:
        ranged = len(tests) == 1 or comparison == [_AT_LEAST, _AT_MOST]
        return not masks and ranged and protocol in (_TCP, _UDP)
    if load == _BOTH_PORTS:  # listed as two conditions, whatever the comparison: true for equality alone
        return not masks and len(tests) == 1 and comparison == [_EQUAL] and protocol in (_TCP, _UDP)
    if load == _TCP_FLAGS:
        return once and masked and protocol == _TCP
    if load == _FRAGMENT and not ipv6:
        return once and masked and masks[0].literal == _OFFSET and tests[0].literal == 0
    if load in _INTERFACES or load == _PROTOCOL:
        return once and not masks and (load != _PROTOCOL or tests[0].literal != 0)
    addresses = _ADDRESSES_IPV6 if ipv6 else _ADDRESSES_IPV4
    return (load in addresses or load == _MARK) and once and (masked or not masks)


def _is_told_limit(data: _Data) -> bool:
    """Whether iptables prints a limit's own rate, rather than one that shares its time of a packet in 1/10,000 s.

    That time is all that it keeps of a rate (iptables/nft-shared.c, nft_parse_limit; libxt_limit.c, print_rate).
    """
    rate, unit = _number(data, 1), _number(data, 2)
    period = (unit * _LIMIT_SCALE // rate if rate else 0) & 0xFFFFFFFF
    if not period or _number(data, 4) or _number(data, 5):  # NFTA_LIMIT_TYPE packets; NFTA_LIMIT_FLAGS not inverted
        return False
    printed = _DAY
    for shorter in _SHORTER:
        packets, rest = divmod(shorter * _LIMIT_SCALE, period)
        if packets < rest or not packets:
            break
        printed = shorter
    return (printed * _LIMIT_SCALE // period, printed) == (rate, unit)


_LIMIT_SCALE: Final = 10_000  # linux/netfilter/xt_limit.h, XT_LIMIT_SCALE
_DAY: Final = 86_400
_SHORTER: Final = (3_600, 60, 1)
_KNOWN: Final = frozenset({"match", "limit"})
_EQUAL, _UNEQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5  # enum nft_cmp_ops
_TCP, _UDP = 6, 17  # linux/in.h
_NETWORK, _TRANSPORT = 1, 2  # enum nft_payload_bases
_NFTRACE: Final = 12  # enum nft_meta_keys
_MARK, _PROTOCOL = ("meta", 3, 0), ("meta", 16, 0)
_INTERFACES: Final = frozenset({("meta", 6, 0), ("meta", 7, 0)})  # NFT_META_IIFNAME, OIFNAME
_PORTS: Final = frozenset((f"payload {_TRANSPORT}", offset, 2) for offset in (0, 2))
_BOTH_PORTS: Final = (f"payload {_TRANSPORT}", 0, 4)
_TCP_FLAGS: Final = (f"payload {_TRANSPORT}", 13, 1)
_FRAGMENT: Final = (f"payload {_NETWORK}", 6, 2)
_OFFSET: Final = 0x1FFF  # linux/ip.h, IP_OFFSET


def _addresses(source: int, destination: int, size: int) -> frozenset[_Load]:
    """The loads of both addresses: of a prefix that ends with an octet only those octets are loaded."""
    return frozenset((f"payload {_NETWORK}", at, count) for at in (source, destination) for count in range(1, size + 1))


_ADDRESSES_IPV4: Final = _addresses(12, 16, 4)
_ADDRESSES_IPV6: Final = _addresses(8, 24, 16)
_OPTIONS_IPV4: Final = _ADDRESSES_IPV4 | _INTERFACES | {_PROTOCOL, _FRAGMENT}
_OPTIONS_IPV6: Final = _ADDRESSES_IPV6 | _INTERFACES | {_PROTOCOL}


# --- one expression ----------------------------------------------------------------------------------------

_Data = Mapping[int, bytes]


def _facts(element: bytes) -> _Facts:
    """The facts of an expression.

    The three kinds that hold the literals of ordinary rules are read without a look at the literals, and so without
    any memory of them; whatever is laid out in another way than the kernel's is read like the rest.
    """
    if element[4:8] == b"cmp\0":
        laid = _laid_out(element[:_LITERAL_AT], len(element))
        if laid is not None:
            return _test("cmp", laid[0], _literal(element[_LITERAL_AT : _LITERAL_AT + laid[1]], _TESTED))
    else:
        facts = _XT.get(element[:_XT_AT])
        if facts is not None and element[_XT_AT : _XT_AT + 4] == _header(len(element) - _XT_AT, _DATA):
            return facts
    return _other_facts(element)


# What an xt match or target holds isn't looked into: iptables lists those from the very same bytes.
_XT: Final = {
    _header(10, _NAME) + b"match\0\0\0": _Facts("match"),
    _header(11, _NAME) + b"target\0\0": _Facts("target"),
}
_XT_AT: Final = 12
_LITERAL_AT: Final = 36  # in a comparison


@lru_cache(_MEMORY)
def _laid_out(head: bytes, size: int) -> tuple[int, int] | None:
    """The operator of a comparison of so many bytes, and how many are the literal; None where it isn't laid out so."""
    if len(head) < _LITERAL_AT:
        return None
    length = _HEADER.unpack_from(head, _LITERAL_AT - 4)[0] - 4
    if size != _LITERAL_AT + (length + 3 & ~3):
        return None
    # NFTA_EXPR_NAME, DATA; NFTA_CMP_SREG, OP, DATA; NFTA_DATA_VALUE
    usual = _header(8, _NAME) + b"cmp\0" + _header(size - 8, _DATA) + _header(8, 1) + head[16:20]
    usual += _header(8, 2) + head[24:28] + _header(size - 28, 3) + _header(length + 4, 1)
    return (int.from_bytes(head[24:28], "big"), length) if head == usual else None


@lru_cache(_MEMORY)
def _test(name: str, code: int, literal: int) -> _Facts:
    return _Facts(name, code=code, literal=literal)


def _literal(value: bytes, telling: frozenset[int]) -> int:
    number = int.from_bytes(value, "big")
    return number if number in telling else -1


_TESTED: Final = frozenset({0, _TCP, _UDP})
_MASKS: Final = frozenset({_OFFSET})


@lru_cache(_MEMORY)
def _other_facts(element: bytes) -> _Facts:
    """The facts of any expression, from its attributes."""
    held = dict(attributes(element, 0, len(element)))
    name = held.get(_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
    if name in ("match", "target"):
        return _Facts(name)
    inner = held.get(_DATA, b"")
    data = dict(attributes(inner, 0, len(inner)))
    if name in ("payload", "meta"):
        return _Facts(name, load=_loaded(name, data))
    if name in ("cmp", "range"):  # NFTA_CMP_OP, DATA; NFTA_RANGE_OP, FROM_DATA
        return _test(name, _number(data, 2), _literal(_data(data, 3), _TESTED))
    if name == "bitwise":  # NFTA_BITWISE_MASK; XOR, OP: a mask and no more
        return _Facts(
            name,
            literal=_literal(_data(data, 4), _MASKS) if len(_data(data, 4)) == 2 else -1,
            kept=not any(_data(data, 5)) and not _number(data, 6),
        )
    if name == "immediate":  # NFTA_IMMEDIATE_DATA
        code, jump = _verdict(data)
        return _Facts(name, code=code, jump=jump, literal=int(_data(data, 2) == b"\1"))
    if name == "log":  # NFTA_LOG_GROUP, NFTA_LOG_LEVEL: NFLOG alone is made of it
        return _Facts(name, kept=1 in data and 5 not in data)
    return _Facts(name, kept=name != "limit" or _is_told_limit(data))


def _comment(element: bytes) -> str:
    """The comment that a match holds; empty where it's another match."""
    inner = dict(attributes(element, 0, len(element))).get(_DATA, b"")
    match = dict(attributes(inner, 0, len(inner)))  # NFTA_MATCH_NAME, INFO: struct xt_comment_info
    if match.get(1) != b"comment\0":
        return ""
    return match.get(3, b"").partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(data: _Data, kind: int, missing: int = 0) -> int:
    return int.from_bytes(data[kind], "big") if kind in data else missing


def _data(data: _Data, kind: int) -> bytes:
    """The value (NFTA_DATA_VALUE) in an attribute."""
    held = data.get(kind, b"")
    return dict(attributes(held, 0, len(held))).get(1, b"")


def _loaded(name: str, data: _Data) -> _Load:
    """What an expression loads: base, offset and length of a payload, or a meta's key; "set" where it writes."""
    if name == "payload":  # NFTA_PAYLOAD_BASE, OFFSET, LEN, SREG
        return (f"payload {_number(data, 2)}", _number(data, 3), _number(data, 4)) if 5 not in data else ("set", 0, 0)
    return ("set" if 3 in data else "meta", _number(data, 2), 0)  # NFTA_META_KEY, SREG


def _verdict(data: _Data) -> tuple[int | None, str]:
    """The verdict of an immediate and the chain it names; no verdict where it loads a register."""
    held = data.get(2, b"")  # NFTA_IMMEDIATE_DATA
    value = dict(attributes(held, 0, len(held)))
    if 2 not in value:  # NFTA_DATA_VERDICT
        return None, ""
    verdict = dict(attributes(value[2], 0, len(value[2])))
    code = int.from_bytes(verdict.get(1, b""), "big", signed=True)  # NFTA_VERDICT_CODE
    return code, verdict.get(2, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")  # NFTA_VERDICT_CHAIN
