"""What a case is: a rule as a person writes it, as iptables-save prints it and as nft lists it."""

from __future__ import annotations

from typing import NamedTuple

from meshfw.extensions import HostTables, Language, builtin_extensions
from meshfw.languages.iptables import parse_rule
from meshfw.model import Family, Hook, Rule

LANGUAGE = Language.of(
    builtin_extensions(),
    hosts=HostTables(
        services={("ssh", "tcp"): 22, ("domain", "tcp"): 53, ("domain", "udp"): 53},
        users={"alice": 1000},
        groups={"adm-in": 4},
    ),
)
FAMILIES = {"4": Family.IPV4, "6": Family.IPV6}


class Case(NamedTuple):
    """One rule; ``families`` are the digits 4 and 6, ``table`` may name a built-in chain behind a slash.

    ``saved`` is empty where it is what was written; ``nft`` is None where nft has no way to say it. It is not the
    ``same`` where nft lists other words than it reads.
    """

    families: str
    table: str
    written: str
    saved: str
    nft: str | None
    same: bool = True

    @property
    def canonical(self) -> str:
        """What iptables-save prints behind ``-A CHAIN``."""
        return self.saved or self.written

    @property
    def in_ipset(self) -> bool:
        """Whether it names a set of ipset(8), which must be there."""
        return "-m set " in self.canonical or "-j SET " in self.canonical

    @property
    def hook(self) -> Hook | None:
        """The hook of the built-in chain that it names."""
        chain = self.table.partition("/")[2]
        return Hook(chain.lower()) if chain else None

    def rules(self) -> list[tuple[Family, Rule]]:
        """The rule of each family."""
        return [
            (FAMILIES[digit], parse_rule(self.written, family=FAMILIES[digit], language=LANGUAGE))
            for digit in self.families
        ]
