"""Of iptables' tables in nf_tables whatever may matter to an owner, as one digest: half the time of a reading."""

from __future__ import annotations

import errno
import hashlib
from typing import Final

from meshfw.backends.layout import owned_iptables_chain
from meshfw.errors import KernelError
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.nfdigest import chain_heads, rules_digest
from meshfw.languages.nft import FAMILIES
from meshfw.model import Table

_TABLES: Final = frozenset(table.value for table in Table)
_FAMILIES: Final = frozenset(FAMILIES.values())


def tables_digest(netlink: Nfnetlink, owner: str) -> bytes:
    """The digest of the owner's chains, and of all that stands in base chains; empty where others never pause."""
    digest = hashlib.sha256()
    try:
        for table in netlink.tables():
            if table.name in _TABLES and table.family in _FAMILIES:
                digest.update(f"{table.family} {table.name} {table.flags}".encode())
                for name, head in chain_heads(netlink, table.family, table.name).items():
                    if head.is_base or owned_iptables_chain(owner, name):
                        rules = rules_digest(netlink, table.family, table.name, chain=name)
                        digest.update(name.encode("utf-8", "surrogateescape") + head.digest + rules)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.EINTR):
            raise
        return b""
    return digest.digest()
