"""The nft backend's fingerprint: the generation while it stands, and once others have moved it, our own tables' bytes.

Every commit of anybody's moves the generation, our rules or not. So there are two stages, as with iptables: while the
generation stands, nothing is read (4 µs); when it has moved, what stands under our name is read as digests (4 ms for
1,000 rules, without libnftables or a process), and if it's what was known, the fingerprint is the one of before. A
number, the epoch, moves whenever it's something else.

Digests aren't taken where nobody may ever ask for them: after a commit or a reading of ours the chains are known to be
as they are at that generation, and their digests follow when the generation is found standing for the second time, so
that one change after another pays nothing. Should others write before that, our rules are read once more.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from meshfw.backend import Fingerprint
from meshfw.backends.nft_listing import list_key
from meshfw.backends.nft_text import chain_name
from meshfw.errors import KernelError
from meshfw.kernel.netlink import Nfnetlink, NfTable
from meshfw.kernel.netns import Namespace
from meshfw.kernel.nfdigest import chain_heads, rules_digest, sets_digest
from meshfw.languages.nft import FAMILIES
from meshfw.plan import Plan
from meshfw.snapshot import ListKey

_READS: Final = 5
_LOOKS: Final = 3
_UNKNOWN: Final = -1
_NAMES: Final = frozenset(FAMILIES.values())

_UNREAD: Final = b""
"""What stands for the digest of a chain that a commit of ours has touched: it equals none."""
_KEPT: Final = 3
"""Fingerprints of which the digests of single chains are known."""
REST: Final = ""
"""What stands for all of a table but its chains where a chain's name does: none is empty."""

_Chain = tuple[str, str]


class OwnTables:
    """What is known of the tables ``ip OWNER`` and ``ip6 OWNER``: at which generation, and what their bytes were.

    ``fingerprint`` is for the next question; ``at`` and ``committed`` tie it to a generation that the caller knows to
    be settled (:meth:`Nfnetlink.settled`).
    """

    def __init__(self, netlink: Nfnetlink, owner: str, namespace: Namespace) -> None:
        self._netlink = netlink
        self._owner = owner
        self._namespace = namespace
        self._epoch = 0
        self._print = Fingerprint((0, namespace))
        self._generation = _UNKNOWN
        self._rested = False
        self._whole = b""
        self._rules: dict[_Chain, bytes] = {}
        self._heads: dict[_Chain, bytes] = {}
        self._before: dict[Fingerprint, Mapping[_Chain, bytes]] = {}

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of now.

        Who reads while others write may meet parts of several moments, so that is done again. Where they never pause
        it's believed at last: to deceive it somebody must undo and do again in every reading what he did to ours.
        """
        generation = self._netlink.generation()
        if generation == self._generation:
            if not self._whole:
                self._rest()
            return self._print
        for _ in range(_LOOKS):
            self.at(generation := self._netlink.settled())
            if self._netlink.settled() == generation:
                break
        return self._print

    def at(self, generation: int) -> Fingerprint:
        """The fingerprint for a generation.

        Somebody may have written since, while this reads. Then it isn't that of one moment; but the generation that is
        kept with it is too old, so the next question reads again, and whoever goes by it asks for the generation once
        more.
        """
        if generation != self._generation:
            known, self._rules, self._rested = self._whole, {}, False
            self._whole = self._read() if self._generation != _UNKNOWN else b""
            if not known or self._whole != known:
                self._move()
            self._generation = generation
            self._note()
        return self._print

    def moved(self, since: Fingerprint) -> tuple[ListKey, ...] | None:
        """The lists whose bytes, handles among them, aren't known to be those of an earlier fingerprint.

        None where more than lists may differ: sets, what others put into our tables, and chains that came or went,
        since the table counts what stands in it and no more: something else may have come for one that went.
        """
        before, now = self._before.get(since), self._before.get(self._print)
        if not before or not now or before.keys() != now.keys():
            return None
        if any(before[key] != now[key] for key in now if key[1] == REST):
            return None
        families = {name: family for family, name in FAMILIES.items()}
        found = [
            list_key(families[table], chain)
            for table, chain in sorted(now)
            if before[table, chain] != now[table, chain]
        ]
        return None if None in found else tuple(key for key in found if key is not None)

    def _note(self, unread: Iterable[_Chain] = ()) -> None:
        """Keep what is known of the chains at this fingerprint, and at a few before it; of those unread their names."""
        self._before.pop(self._print, None)
        while len(self._before) >= _KEPT:
            del self._before[next(iter(self._before))]
        known = {key: self._heads[key] + digest for key, digest in self._rules.items()}
        self._before[self._print] = {**dict.fromkeys(unread, _UNREAD), **known}

    def committed(self, generation: int | None, plan: Plan) -> Fingerprint:
        """The fingerprint after a commit of ours; a generation where nobody else wrote since it was planned."""
        self._move()
        self._whole, self._rested = b"", False
        if generation is None:
            self._generation, self._rules = _UNKNOWN, {}
            return self._print
        self._generation = generation
        touched = {(FAMILIES[change.key.family], chain_name(change.key)) for change in plan.lists}
        touched |= {(FAMILIES[change.key[0]], REST) for change in plan.sets}
        touched |= {(FAMILIES[it.key.family], REST) for it in plan.lists if it.old is None or it.new is None}
        rebuilt = {FAMILIES[family] for family in plan.rebuilt}
        self._rules = {
            chain: digest for chain, digest in self._rules.items() if chain not in touched and chain[0] not in rebuilt
        }
        self._note(touched)
        return self._print

    def digest(self) -> str | None:
        """The digest of all that stands in them, the same in any process; None where others keep writing."""
        for _ in range(_READS):
            before = self._netlink.settled()
            self.at(before)
            self._whole = self._whole or self._read()
            digest = hashlib.sha256(self._whole)
            try:
                for table in self._tables():
                    digest.update(sets_digest(self._netlink, table.family, table.name, constant=True))
            except KernelError as error:
                _check_passing(error)
                continue
            if self._whole and self._netlink.settled() == before:
                return digest.hexdigest()
            self._whole, self._rules = b"", {}  # some of it may be of another moment
        return None

    def _move(self) -> None:
        self._epoch += 1
        self._print = Fingerprint((self._epoch, self._namespace))

    def _rest(self) -> None:
        """Take the digests that are missing, if the generation stands for the second time."""
        if not self._rested:
            self._rested = True
            return
        whole = self._read()
        if self._netlink.settled() == self._generation:
            self._whole = whole
            self._note()
        else:  # some of it may be of another moment
            self._rules = {}

    def _read(self) -> bytes:
        """The digest of the tables as they are; chains whose rules are known aren't asked for theirs.

        Empty where others never let a whole reading happen.
        """
        digest = hashlib.sha256()
        known, self._rules = self._rules, {}
        rules: dict[_Chain, bytes] = {}
        heads: dict[_Chain, bytes] = {}
        try:
            for table in self._tables():
                for name, head in chain_heads(self._netlink, table.family, table.name).items():
                    key = (table.family, name)
                    heads[key] = head.digest
                    rules[key] = known.get(key) or rules_digest(self._netlink, table.family, table.name, chain=name)
                    digest.update(name.encode("utf-8", "surrogateescape") + head.digest + rules[key])
                # The table's own record counts all that stands in it, named counters and the like among it.
                heads[table.family, REST] = repr(table).encode()
                rules[table.family, REST] = sets_digest(self._netlink, table.family, table.name)
                digest.update(heads[table.family, REST] + rules[table.family, REST])
        except KernelError as error:
            _check_passing(error)
            return b""
        self._rules, self._heads = rules, heads
        return digest.digest()

    def _tables(self) -> Iterable[NfTable]:
        return [table for table in self._netlink.tables() if table.name == self._owner and table.family in _NAMES]


def _check_passing(error: KernelError) -> None:
    """Raise again what isn't the work of others: a chain or set that went while it was read, or no pause at all."""
    if error.errno not in (errno.ENOENT, errno.EINTR):
        raise error
