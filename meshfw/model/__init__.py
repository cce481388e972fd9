"""The model: frozen values for what an owner wants of a firewall, validated when they are built.

A :class:`Ruleset` holds chains of rules, sets, and attachments of chains to hooks, for one or both
address families. Nothing here knows how a backend lays it out in a kernel. Two rules are equal when a
kernel would behave the same under both: :meth:`Rule.key` is that meaning, and text is never compared.
"""

from __future__ import annotations

from meshfw.model.address import (
    Addresses,
    Elements,
    Interface,
    Interfaces,
    Network,
    SetRef,
    byte_length,
    format_address,
    matches_any,
    matches_none,
    parse_address,
    within,
)
from meshfw.model.chain import (
    NAME_MAX,
    Attachment,
    Chain,
    ChainKey,
    Dispatcher,
    DispatcherKey,
    name_problem,
)
from meshfw.model.comment import COMMENT_BYTES, stored_comment
from meshfw.model.effect import (
    ACCEPTED,
    DROPPED,
    Fate,
    Translation,
    Verdict,
)
from meshfw.model.kinds import (
    HOOKS,
    Family,
    Hook,
    Not,
    Place,
    Policy,
    Table,
)
from meshfw.model.loss import Loss
from meshfw.model.packet import Ends, Packet, every, some, turned
from meshfw.model.placement import hook_problem, interface_problem, table_problem
from meshfw.model.rule import (
    ACCEPT,
    DROP,
    RETURN,
    Accept,
    Comment,
    Drop,
    Goto,
    Jump,
    Match,
    OpaqueMatch,
    OpaqueTarget,
    Return,
    Rule,
    Target,
)
from meshfw.model.ruleset import (
    Ruleset,
    set_references,
)
from meshfw.model.sets import (
    SET_NAME_MAX,
    ElementType,
    Set,
    SetKey,
    merge_ranges,
)
from meshfw.model.twice import Twice

__all__ = [
    "ACCEPT",
    "ACCEPTED",
    "COMMENT_BYTES",
    "DROP",
    "DROPPED",
    "HOOKS",
    "NAME_MAX",
    "RETURN",
    "SET_NAME_MAX",
    "Accept",
    "Addresses",
    "Attachment",
    "Chain",
    "ChainKey",
    "Comment",
    "Dispatcher",
    "DispatcherKey",
    "Drop",
    "ElementType",
    "Elements",
    "Ends",
    "Family",
    "Fate",
    "Goto",
    "Hook",
    "Interface",
    "Interfaces",
    "Jump",
    "Loss",
    "Match",
    "Network",
    "Not",
    "OpaqueMatch",
    "OpaqueTarget",
    "Packet",
    "Place",
    "Policy",
    "Return",
    "Rule",
    "Ruleset",
    "Set",
    "SetKey",
    "SetRef",
    "Table",
    "Target",
    "Translation",
    "Twice",
    "Verdict",
    "byte_length",
    "every",
    "format_address",
    "hook_problem",
    "interface_problem",
    "matches_any",
    "matches_none",
    "merge_ranges",
    "name_problem",
    "parse_address",
    "set_references",
    "some",
    "stored_comment",
    "table_problem",
    "turned",
    "within",
]
