"""What a backend over iptables' tables builds on, beside the protocol: a public room, like ``model`` and ``reconcile``.

Several ways lead to the same tables (the tools, a library, netlink), and who takes one of them must find what another
left. So the layout is one: how chains and dispatchers are called and marked, whose a chain is, where a jump stands, and
which edits lead from what stands to what is wanted. A backend brings the rest: it fills a :class:`RawTable` from
whatever it reads, gives texts to the bytes of rules (:class:`Lexicon`), and carries out the lines that
:func:`table_lines` and :func:`undo_lines` say.

Such a backend names ``iptables-legacy`` or ``iptables-nft`` as the ``place`` of its plugin.
"""

from __future__ import annotations

from meshfw.backends.instance import HeldNamespace, XtablesLock, has_net_admin, xtables_lock
from meshfw.backends.iptables_lexicon import Lexicon
from meshfw.backends.iptables_listing import Reading, observed_lists
from meshfw.backends.iptables_options import Options, options_of
from meshfw.backends.iptables_raw import Meaning, RawRule, RawTable, same_owned
from meshfw.backends.iptables_text import Standing, chain_of, changes_of, table_lines, tables_of, undo_lines
from meshfw.backends.layout import CHAIN_MAX, TableKey, iptables_chain, owned_iptables_chain
from meshfw.backends.presence import iptables_legacy_presence, iptables_nft_presence
from meshfw.errors import PartialCommitError

__all__ = [
    "CHAIN_MAX",
    "HeldNamespace",
    "Lexicon",
    "Meaning",
    "Options",
    "PartialCommitError",
    "RawRule",
    "RawTable",
    "Reading",
    "Standing",
    "TableKey",
    "XtablesLock",
    "chain_of",
    "changes_of",
    "has_net_admin",
    "iptables_chain",
    "iptables_legacy_presence",
    "iptables_nft_presence",
    "observed_lists",
    "options_of",
    "owned_iptables_chain",
    "same_owned",
    "table_lines",
    "tables_of",
    "undo_lines",
    "xtables_lock",
]
