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
from collections.abc import Iterable
from typing import Final

from meshfw.backend import Fingerprint
from meshfw.backends.nft_text import chain_name
from meshfw.errors import KernelError
from meshfw.kernel.netlink import Nfnetlink, NfTable
from meshfw.kernel.netns import Namespace
from meshfw.kernel.nfdigest import chain_heads, rules_digest, sets_digest
from meshfw.languages.nft import FAMILIES
from meshfw.plan import Plan

_READS: Final = 5
_UNKNOWN: Final = -1
_NAMES: Final = frozenset(FAMILIES.values())

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

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of now."""
        generation = self._netlink.generation()
        if generation == self._generation:
            if not self._whole:
                self._rest()
            return self._print
        return self.at(self._netlink.settled())

    def at(self, generation: int) -> Fingerprint:
        """The fingerprint for a generation.

        Somebody may have written since, while this reads. Then it isn't that of one moment; but the generation that is
        kept with it is too old, so the next question reads again.
        """
        if generation != self._generation:
            known, self._rules, self._rested = self._whole, {}, False
            self._whole = self._read() if self._generation != _UNKNOWN else b""
            if not known or self._whole != known:
                self._move()
            self._generation = generation
        return self._print

    def committed(self, generation: int | None, plan: Plan) -> Fingerprint:
        """The fingerprint after a commit of ours; a generation where nobody else wrote since it was planned."""
        self._move()
        self._whole, self._rested = b"", False
        if generation is None:
            self._generation, self._rules = _UNKNOWN, {}
            return self._print
        self._generation = generation
        for change in plan.lists:
            self._rules.pop((FAMILIES[change.key.family], chain_name(change.key)), None)
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
        else:  # some of it may be of another moment
            self._rules = {}

    def _read(self) -> bytes:
        """The digest of the tables as they are; chains whose rules are known aren't asked for theirs.

        Empty where others never let a whole reading happen.
        """
        digest = hashlib.sha256()
        known, self._rules = self._rules, {}
        rules: dict[_Chain, bytes] = {}
        try:
            for table in self._tables():
                digest.update(repr(table).encode())
                for name, head in chain_heads(self._netlink, table.family, table.name).items():
                    key = (table.family, name)
                    rules[key] = known.get(key) or rules_digest(self._netlink, table.family, table.name, chain=name)
                    digest.update(name.encode("utf-8", "surrogateescape") + head.digest + rules[key])
                digest.update(sets_digest(self._netlink, table.family, table.name))
        except KernelError as error:
            _check_passing(error)
            return b""
        self._rules = rules
        return digest.digest()

    def _tables(self) -> Iterable[NfTable]:
        return [table for table in self._netlink.tables() if table.name == self._owner and table.family in _NAMES]


def _check_passing(error: KernelError) -> None:
    """Raise again what isn't the work of others: a chain or set that went while it was read, or no pause at all."""
    if error.errno not in (errno.ENOENT, errno.EINTR):
        raise error
