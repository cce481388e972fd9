"""The physical layout: under which names the model's objects stand in a kernel. An upgrade contract.

nft (since 0.1.0), for owner ``meshfw``:

* tables ``ip meshfw`` and ``ip6 meshfw``, one for each family that holds anything;
* chain ``a`` of iptables' table filter is the regular chain ``filter-a``;
* the dispatcher of one hook and place is the base chain ``filter.input.first``: type filter (nat for table nat, route
  for mangle's output hook), at the iptables table's priority - 5 (first) or + 5 (last), with the policy;
* set ``a`` is ``set-a``.

Each table bears the comment ``meshfw``: one of that name without it is somebody else's, and is left alone.

A character that nft's identifiers can't hold is written as a dot and two hexadecimal digits.

iptables-legacy and iptables-nft (since 0.1.0), for owner ``meshfw``, in each table that holds anything:

* chain ``a`` is the user chain ``meshfw-a``; a name beyond 28 characters is cut, and ends in a dot and eight
  hexadecimal digits of its hash;
* the dispatcher of one hook and place is the user chain ``meshfw.input.first``; the built-in chain has one jump to it,
  at its head (first) or tail (last), where only jumps to other owners' dispatchers may stand before or behind it;
* every chain begins with its marker, a rule with a comment alone, ``meshfw:OWNER:NAME`` or
  ``meshfw:OWNER:HOOK/PLACE``; then come its rules, and in a dispatcher the policy as a last rule, where it isn't
  ``return``.

A chain of that prefix without a marker is somebody else's, and is left alone, but for an empty one, a dispatcher, and
one to which a marked chain leads: those lost theirs in a flush.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from meshfw.languages.nft import Names, NftHook, nft_hook
from meshfw.model import ChainKey, DispatcherKey, Family, Hook, Place, Table
from meshfw.snapshot import ListKey

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_ESCAPED: Final = re.compile(r"\.([0-9a-f]{2})")
_SET_PREFIX: Final = "set-"

MARK: Final = "meshfw"
"""The comment of a table of ours, whoever the owner."""

_OFFSET: Final = {Place.FIRST: -5, Place.LAST: 5}


def base_chain(key: DispatcherKey) -> NftHook:
    """The base chain of a dispatcher."""
    return nft_hook(key.table, key.hook, offset=_OFFSET[key.place])


def is_marked(userdata: bytes) -> bool:
    """Whether a table's user data (libnftnl/udata.h: type 0, length, text with its NUL) is our comment."""
    return userdata == bytes((0, len(MARK) + 1)) + MARK.encode() + b"\0"


def nft_name(name: str) -> str:
    """A logical name as an nft identifier."""
    if _PLAIN.match(name):
        return name
    return "".join(char if _PLAIN.match(char) else f".{ord(char):02x}" for char in name)


def logical_name(name: str) -> str | None:
    """The logical name of an identifier that :func:`nft_name` made; None for any other."""
    logical = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    return logical if nft_name(logical) == name else None


def nft_chain(table: Table, name: str) -> str:
    """The nft chain of a logical one."""
    return f"{table.value}-{nft_name(name)}"


def nft_dispatcher(key: DispatcherKey) -> str:
    """The nft base chain of a dispatcher."""
    return f"{key.table.value}.{key.hook.value}.{key.place.value}"


def logical_chain(name: str) -> tuple[Table, str] | None:
    """Table and logical name of an nft chain; None for one that isn't ours."""
    table, dash, rest = name.partition("-")
    logical = logical_name(rest) if dash and rest and table in set(Table) else None
    return None if logical is None else (Table(table), logical)


def dispatcher_of(family: Family, name: str) -> DispatcherKey | None:
    """The dispatcher whose base chain has the name; None for any other chain."""
    parts = name.split(".")
    if len(parts) != 3 or parts[0] not in set(Table) or parts[1] not in set(Hook) or parts[2] not in set(Place):
        return None
    return DispatcherKey(family, Table(parts[0]), Hook(parts[1]), Place(parts[2]))


def nft_set(name: str) -> str:
    """The nft set of a logical one."""
    return f"{_SET_PREFIX}{nft_name(name)}"


def logical_set(name: str) -> str | None:
    """The logical name of an nft set; None for one that isn't ours."""
    return logical_name(name[len(_SET_PREFIX) :]) if name.startswith(_SET_PREFIX) else None


def names_in(table: Table) -> Names:
    """How names are written in rules of one iptables table."""

    def chain_of(name: str) -> str | None:
        found = logical_chain(name)
        return found[1] if found is not None and found[0] is table else None

    return Names(chain=lambda name: nft_chain(table, name), set=nft_set, chain_of=chain_of, set_of=logical_set)


# --- iptables ----------------------------------------------------------------------------------------------

TableKey = tuple[Family, Table]
"""What names a table of iptables."""
CHAIN_MAX: Final = 28
"""Characters of a chain's name (linux/netfilter/x_tables.h, XT_EXTENSION_MAXNAMELEN less the final NUL)."""
_DIGITS: Final = 8
LEFT_OVER: Final = " (left over)"
"""What the name of a chain of ours ends in that stands under a name which this layout doesn't give it."""
_DISPATCHER: Final = re.compile(r"([a-z][a-z0-9]{0,9})\.([a-z]+)\.(first|last)\Z")


def table_of(key: ListKey) -> TableKey:
    """The table that a list stands in."""
    return key.family, key.table


def iptables_chain(owner: str, key: ListKey | str) -> str:
    """The user chain of a list, or of a chain by its logical name; a long one ends in a hash."""
    if isinstance(key, DispatcherKey):
        return f"{owner}.{key.hook.value}.{key.place.value}"
    name = key.name if isinstance(key, ChainKey) else key
    whole = f"{owner}-{name}"
    if len(whole) <= CHAIN_MAX:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{whole[: CHAIN_MAX - _DIGITS - 1]}.{digest}"


def iptables_marker(owner: str, key: ListKey) -> str:
    """The comment by which a chain is known as this owner's list."""
    name = f"{key.hook.value}/{key.place.value}" if isinstance(key, DispatcherKey) else key.name
    return f"{MARK}:{owner}:{name}"


def iptables_dispatcher(chain: str) -> tuple[str, Hook, Place] | None:
    """Owner, hook and place of a dispatcher's chain; None for any other name."""
    found = _DISPATCHER.match(chain)
    if found is None or found[2] not in set(Hook):
        return None
    return found[1], Hook(found[2]), Place(found[3])


def owned_iptables_chain(owner: str, chain: str) -> bool:
    """Whether a chain's name is one that the owner's lists may have."""
    return chain.startswith((f"{owner}-", f"{owner}."))
