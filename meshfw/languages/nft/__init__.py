"""The nft language: a rule as nft text, in the very form nft itself lists it, and nft's JSON back to a rule.

Because the text is the listed form, a commit can be proven by listing the chain and comparing lines; what
somebody else may have written is always read through the JSON, by meaning. Every rule holds a counter, as every
iptables rule does. Numbers stand where names would depend on the host's files (protocols, services).
"""

from __future__ import annotations

from meshfw.languages.nft.foreign import ForeignRuleset, Unread, read_tables
from meshfw.languages.nft.names import FAMILIES, PLAIN_NAMES, SPOKEN_NAMES, Names, spoken_name
from meshfw.languages.nft.read import UnreadableError, read_rule, reads_whole
from meshfw.languages.nft.render import APPROXIMATED, ONE_METER, NftText, render_on_hooks, render_rule, told_by_hook
from meshfw.languages.nft.tables import PRIORITIES, NftHook, NftTables, Untold, nft_hook, render_tables

__all__ = [
    "APPROXIMATED",
    "FAMILIES",
    "ONE_METER",
    "PLAIN_NAMES",
    "PRIORITIES",
    "SPOKEN_NAMES",
    "ForeignRuleset",
    "Names",
    "NftHook",
    "NftTables",
    "NftText",
    "Unread",
    "UnreadableError",
    "Untold",
    "nft_hook",
    "read_rule",
    "read_tables",
    "reads_whole",
    "render_on_hooks",
    "render_rule",
    "render_tables",
    "spoken_name",
    "told_by_hook",
]
