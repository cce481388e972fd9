"""The expressions of a rule as the kernel dumps them: its counter cut out, its jump, and whether iptables can tell it.

iptables-nft lists a rule that nft(8) made by what it understands of it and leaves out the rest, with exit code 0: a
match on a set comes out as no match at all. So its text counts only for rules all of whose expressions are of the kinds
and shapes that iptables-nft makes itself (iptables, iptables/nft-shared.c). Layout: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshfw.kernel.nfmessage import attributes

_NAME, _DATA = 1, 2  # enum nft_expr_attributes
_NESTED: Final = 0x8000


def _header(length: int, kind: int) -> bytes:
    return struct.pack("=HH", length, kind)


_COUNTER: Final = re.compile(
    b"".join(
        (
            re.escape(_header(12, _NAME)) + b"counter\0",
            b"(?:" + re.escape(_header(28, _DATA)) + b"|" + re.escape(_header(28, _DATA | _NESTED)) + b")",
            re.escape(_header(12, 1)) + b"(.{8})",  # NFTA_COUNTER_BYTES
            re.escape(_header(12, 2)) + b"(.{8})",  # NFTA_COUNTER_PACKETS
        )
    ),
    re.DOTALL,
)

_ZEROS: Final = bytes(8) + _header(12, 2) + bytes(8)


class NfBody(msgspec.Struct, frozen=True, gc=False):
    """What a rule does, apart from its counter's numbers.

    ``jump`` is the chain that it jumps or goes to, empty without one; ``plain`` whether it is a jump without a
    condition; ``told`` whether iptables-nft lists all that it does.
    """

    jump: str = ""
    plain: bool = False
    told: bool = False


def without_counter(expressions: bytes) -> tuple[bytes, int, int]:
    """The expressions with the numbers of the first counter made zeros, and these: packets and bytes."""
    found = _COUNTER.search(expressions)
    if found is None:
        return expressions, 0, 0
    octets, packets = found.groups()
    body = expressions[: found.start(1)] + _ZEROS + expressions[found.end(2) :]
    return body, int.from_bytes(packets, "big"), int.from_bytes(octets, "big")


def read_body(expressions: bytes, *, ipv6: bool) -> NfBody:
    """What NFTA_RULE_EXPRESSIONS say; OSError with EPROTO where they are no attributes."""
    names: list[str] = []
    jump, told, load = "", True, _NOTHING
    is_jump = False
    for name, data in _expressions(expressions):
        names.append(name)
        if name == "immediate":
            code, jump = _verdict(data)
            is_jump = code == _JUMP
            names[-1] = name if code is not None else "value"
        elif name in ("payload", "meta"):
            load = _loaded(name, data)
            told = told and load in (_LOADS_IPV6 if ipv6 else _LOADS_IPV4)
        elif name == "cmp":
            told = told and _number(data, 2) in _COMPARISONS.get(load, _EQUALITY)
        elif name in ("range", "bitwise"):
            told = told and load in (_PORTS if name == "range" else _MASKED)
        else:
            told = told and name in _KNOWN and _is_plain(name, data)
    plain = is_jump and bool(jump) and names == ["counter", "immediate"]
    return NfBody(jump, plain, told and _counts_last(names, tracing=load == _TRACE))


def _counts_last(names: Sequence[str], *, tracing: bool) -> bool:
    """Whether it counts what meets all conditions, as every rule of iptables does, and then has one target at most."""
    if names.count("counter") != 1:
        return False
    behind = names[names.index("counter") + 1 :]
    return behind == ["value", "meta"] if tracing else len(behind) <= 1 and set(behind) <= _TARGETS


# --- one expression ----------------------------------------------------------------------------------------

_JUMP: Final = -3  # linux/netfilter/nf_tables.h, enum nft_verdicts: NFT_JUMP
_NOTHING: Final = ("", 0, 0)
_TRACE: Final = ("meta set", 12, 0)  # NFT_META_NFTRACE, as TRACE sets it
_TARGETS: Final = frozenset({"immediate", "target", "log"})
_KNOWN: Final = frozenset({"match", "target", "counter", "limit", "log"})
_EQUALITY: Final = frozenset({0, 1})  # enum nft_cmp_ops: NFT_CMP_EQ, NFT_CMP_NEQ
_NETWORK, _TRANSPORT = 1, 2  # enum nft_payload_bases
_META: Final = frozenset(("meta", key, 0) for key in (3, 6, 7, 16))  # NFT_META_MARK, IIFNAME, OIFNAME, L4PROTO
_PORTS: Final = frozenset((f"payload {_TRANSPORT}", offset, 2) for offset in (0, 2))
_BOTH_PORTS: Final = (f"payload {_TRANSPORT}", 0, 4)
_COMPARISONS: Final = {
    **dict.fromkeys(_PORTS, frozenset(range(6))),
    # Listed as two conditions, whatever the comparison: true for equality alone.
    _BOTH_PORTS: frozenset({0}),
}
_TCP_FLAGS: Final = (f"payload {_TRANSPORT}", 13, 1)


def _addresses(source: int, destination: int, size: int) -> frozenset[tuple[str, int, int]]:
    """The loads of both addresses: of a prefix that ends with an octet only those octets are loaded."""
    return frozenset((f"payload {_NETWORK}", at, count) for at in (source, destination) for count in range(1, size + 1))


_FRAGMENT: Final = (f"payload {_NETWORK}", 6, 2)
_LOADS_IPV4: Final = _addresses(12, 16, 4) | _META | _PORTS | {_BOTH_PORTS, _TCP_FLAGS, _FRAGMENT, _TRACE}
_LOADS_IPV6: Final = _addresses(8, 24, 16) | _META | _PORTS | {_BOTH_PORTS, _TCP_FLAGS, _TRACE}

_MASKED: Final = (_LOADS_IPV4 | _LOADS_IPV6) - _PORTS - {_BOTH_PORTS}


def _expressions(data: bytes) -> Iterator[tuple[str, Mapping[int, bytes]]]:
    """Name and attributes of each expression, in order."""
    for _, element in attributes(data, 0, len(data)):
        held = dict(attributes(element, 0, len(element)))
        inner = held.get(_DATA, b"")
        name = held.get(_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
        # What an xt match or target holds isn't looked into: iptables lists those from the very same bytes.
        yield name, {} if name in ("match", "target") else dict(attributes(inner, 0, len(inner)))


def _number(data: Mapping[int, bytes], kind: int, missing: int = 0) -> int:
    return int.from_bytes(data[kind], "big") if kind in data else missing


def _loaded(name: str, data: Mapping[int, bytes]) -> tuple[str, int, int]:
    """What an expression loads: base, offset and length of a payload, or the key of a meta that isn't set."""
    if name == "payload":
        return f"payload {_number(data, 2)}", _number(data, 3), _number(data, 4)  # NFTA_PAYLOAD_BASE, OFFSET, LEN
    return ("meta", _number(data, 2), 0) if 3 not in data else ("meta set", _number(data, 2), 0)  # NFTA_META_KEY, SREG


def _verdict(data: Mapping[int, bytes]) -> tuple[int | None, str]:
    """The verdict of an immediate and the chain it names; no verdict where it loads a register."""
    held = data.get(2, b"")  # NFTA_IMMEDIATE_DATA
    value = dict(attributes(held, 0, len(held)))
    if 2 not in value:  # NFTA_DATA_VERDICT
        return None, ""
    verdict = dict(attributes(value[2], 0, len(value[2])))
    code = int.from_bytes(verdict.get(1, b""), "big", signed=True)  # NFTA_VERDICT_CODE
    return code, verdict.get(2, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")  # NFTA_VERDICT_CHAIN


def _is_plain(name: str, data: Mapping[int, bytes]) -> bool:
    """Whether iptables has the words for this form of it."""
    if name == "limit":
        return _number(data, 4) == 0 == _number(data, 5)  # NFTA_LIMIT_TYPE packets; NFTA_LIMIT_FLAGS not inverted
    if name == "log":
        return 1 in data and 5 not in data  # NFTA_LOG_GROUP, NFTA_LOG_LEVEL: NFLOG alone is made of it
    return True
