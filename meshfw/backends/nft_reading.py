"""What stands in our own tables, in the model's terms: read by meaning as JSON, or proven as the text that we wrote.

A few lists are listed one by one, many by the table that they stand in, unless it's so large that this takes longer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from meshfw.backend import Site
from meshfw.backends.layout import is_marked, nft_set
from meshfw.backends.nft_listing import Expected, JsonReader, Listing, chain_bodies, chain_state, prove
from meshfw.backends.nft_text import chain_name
from meshfw.errors import KernelError
from meshfw.kernel.libnftables import Libnftables, Numeric
from meshfw.kernel.netlink import TABLE_DORMANT, Nfnetlink
from meshfw.kernel.nfdigest import sets_count
from meshfw.languages.nft import FAMILIES
from meshfw.model import Family, Policy, SetKey
from meshfw.snapshot import ListKey, ObservedList, ObservedRule, Snapshot

_NUMERIC: Final = Numeric.PROTOCOL | Numeric.PRIORITY
_FEW: Final = 32
"""Up to so many changed chains of a family are listed one by one, unless they are all there are."""
_CALL_SQUARE: Final = 800_000
"""The square of the rules of a table over which the kernel's dump of it, which is quadratic, takes one call longer."""
_FAMILIES: Final = {name: family for family, name in FAMILIES.items()}


class Reading:
    """The reader of one owner's tables, over the sockets and the cache of its backend."""

    def __init__(self, site: Site, *, netlink: Nfnetlink, nft: Libnftables) -> None:
        self._owner = site.owner
        self._language = site.language
        self._netlink = netlink
        self._nft = nft

    def read(
        self, keys: Collection[ListKey | SetKey] | None, *, expected: Mapping[ListKey, Expected] = MappingProxyType({})
    ) -> Snapshot:
        """What stands, or the lists and sets named; ``expected`` are lists of which our own last commit left the text.

        KernelError with ENOENT where a chain went meanwhile.
        """
        listing = Listing()
        present = self._present(listing)
        unlistable = frozenset(listing.broken)  # by now the tables with flags
        policies, sizes = self._chains(listing, present)
        reader = JsonReader(listing, language=self._language)
        rules: dict[ListKey, tuple[ObservedRule, ...]] = {}
        if keys is None:
            for family in present:
                if family in unlistable:
                    continue
                mine = [key for key in policies if key.family is family]
                rules.update(self._read_family(family, mine, reader, size=sizes[family]))
                held = any(key.family is family for key in policies) or any(key[0] is family for key in listing.sets)
                if not held:
                    listing.broken.setdefault(family, "an empty table was left behind")
        else:
            wanted = [
                key for key in keys if not isinstance(key, tuple) and key in policies and key.family not in unlistable
            ]
            rules.update(self._prove(wanted, policies, expected, sizes=sizes))
            for key in wanted:
                if key not in rules:
                    table = f"{FAMILIES[key.family]} {self._owner}"
                    rules.update(reader.rules(self._list(f"list chain {table} {chain_name(key)}")))
            self._read_sets(keys, present, reader)
            policies = {key: policies[key] for key in wanted}
        for key, allowed in policies.items():
            listing.lists[key] = ObservedList(key, rules.get(key, ()), allowed)
        return Snapshot(listing.lists, listing.sets, listing.broken)

    def _read_family(
        self, family: Family, mine: Collection[ListKey], reader: JsonReader, *, size: int
    ) -> dict[ListKey, tuple[ObservedRule, ...]]:
        """All that stands in a family's table: at once, or chain by chain where that is quicker."""
        table = f"{FAMILIES[family]} {self._owner}"
        if not mine or self._at_once(mine, size=size) or not self._holds_no_more(family, mine):
            return reader.rules(self._list(f"list table {table}"))
        reader.rules(self._list(f"list sets table {table}"))
        return dict(
            item for key in mine for item in reader.rules(self._list(f"list chain {table} {chain_name(key)}")).items()
        )

    def _holds_no_more(self, family: Family, mine: Collection[ListKey]) -> bool:
        """Whether a family's table holds but these lists and sets: else it has to be listed whole to say what."""
        word = FAMILIES[family]
        used = sum(table.use for table in self._netlink.tables(word) if table.name == self._owner)
        return used == len(mine) + sets_count(self._netlink, word, self._owner)

    def _present(self, listing: Listing) -> tuple[Family, ...]:
        """The families whose table of ours stands."""
        present = []
        for table in self._netlink.tables():
            family = _FAMILIES.get(table.family)
            if table.name == self._owner and family is not None:
                present.append(family)
                if not is_marked(table.userdata):
                    listing.broken[family] = "the table was made by somebody else"
                if table.flags:  # and nft 1.0.6 reads out of bounds when it lists such a table as JSON
                    what = "dormant" if table.flags & TABLE_DORMANT else f"special (flags {table.flags:#x})"
                    listing.broken[family] = f"the table was made {what}"
        return tuple(present)

    def _chains(
        self, listing: Listing, present: Collection[Family]
    ) -> tuple[dict[ListKey, frozenset[Policy]], dict[Family, int]]:
        """The lists that stand, with their policies; and about how many rules do in each family."""
        policies = {}
        sizes = dict.fromkeys(present, 0)
        for family in present:
            for chain in self._netlink.chains(FAMILIES[family]):
                if chain.table != self._owner:
                    continue
                sizes[family] += chain.use
                state = chain_state(chain, family)
                if isinstance(state, str):
                    listing.broken.setdefault(family, state)
                else:
                    policies[state[0]] = state[1]
        return policies, sizes

    def _list(self, command: str) -> str:
        return self._nft.run(command, json_output=True, numeric=_NUMERIC)

    @staticmethod
    def _at_once(mine: Collection[ListKey], *, size: int) -> bool:
        """Whether to list a whole table, of so many rules, is quicker than to list these lists of it one by one."""
        return len(mine) > 1 and size**2 <= len(mine) * _CALL_SQUARE

    def _prove(
        self,
        keys: Iterable[ListKey],
        standing: Collection[ListKey],
        expected: Mapping[ListKey, Expected],
        *,
        sizes: Mapping[Family, int],
    ) -> dict[ListKey, tuple[ObservedRule, ...]]:
        """The lists whose text is what our own last commit left; the others are left to be read by meaning."""
        found: dict[ListKey, tuple[ObservedRule, ...]] = {}
        for family in Family:
            mine = [key for key in keys if key.family is family and key in expected]
            table = f"{FAMILIES[family]} {self._owner}"
            bodies: dict[str, str] = {}
            many = len(mine) > _FEW or sum(key.family is family for key in standing) == len(mine)
            if many and self._at_once(mine, size=sizes.get(family, 0)):
                bodies = chain_bodies(self._nft.run(f"list table {table}", numeric=_NUMERIC))
            for key in mine:
                name = chain_name(key)
                body = bodies.get(name)
                if body is None:
                    body = chain_bodies(self._nft.run(f"list chain {table} {name}", numeric=_NUMERIC)).get(name, "")
                rules = prove(body, expected[key])
                if rules is not None:
                    found[key] = rules
        return found

    def _read_sets(self, keys: Collection[ListKey | SetKey], present: Collection[Family], reader: JsonReader) -> None:
        for key in keys:
            if isinstance(key, tuple) and key[0] in present:
                try:
                    text = self._list(f"list set {FAMILIES[key[0]]} {self._owner} {nft_set(key[1])}")
                except KernelError:  # ENOENT: it is gone, which is what the caller learns
                    continue
                reader.rules(text)
