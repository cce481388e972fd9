"""A room of our own in which libnftables compiles rules: a network namespace that holds nothing of the host's.

What libnftables writes there the kernel gives back as the bytes of expressions, which say the same in any table of
that family that has the same sets and chains. So a rule for a host with thousands of foreign chains is compiled
without a look at any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from meshfw.errors import BackendError
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.netns import fresh_namespace

_TABLE, _CHAIN = "scratch", "scratch"
_ANONYMOUS: Final = (b"__set", b"__map")  # what nft calls the sets that it makes of braces in a rule


class Body(msgspec.Struct, frozen=True, gc=False):
    """A rule in the kernel: NFTA_RULE_EXPRESSIONS, with its counter, and NFTA_RULE_USERDATA, with its comment."""

    expressions: bytes
    userdata: bytes

    @property
    def standalone(self) -> bool:
        """Whether nothing else is part of it: a list in braces is a set without a name, which belongs to one rule."""
        return not any(name in self.expressions for name in _ANONYMOUS)


class Scratch:
    """The room, opened by being made (some 2 ms) and kept until it's closed.

    Raises KernelError where no network namespace may be made, with EPERM: it takes CAP_SYS_ADMIN.
    """

    def __init__(self) -> None:
        with fresh_namespace() as namespace:  # what is opened in it keeps it
            self._netlink = Nfnetlink(namespace.file)
            try:
                self._nft = Libnftables(namespace.file)
            except BaseException:
                self._netlink.close()
                raise

    def close(self) -> None:
        """Let the room go; a second call does nothing."""
        self._nft.close()
        self._netlink.close()

    def bodies(
        self, family: str, rules: Sequence[str], *, chains: Iterable[str] = (), sets: Mapping[str, str] = {}
    ) -> tuple[Body, ...]:
        """The bodies of rules of a family, given as nft text (about 0.2 ms, and 30 µs for each).

        ``chains`` and ``sets`` are what the rules name: regular chains, and the body of each set's declaration, such
        as its type. BackendError where libnftables or the kernel refuses a rule.
        """
        table = f"table {family} {_TABLE}"
        declared = [f"set {name} {{ {body} }}" for name, body in sets.items()]
        declared += [f"chain {name} {{ }}" for name in chains]
        lines = (f"{table} {{ }}", f"delete {table}", f"{table} {{", *declared, f"chain {_CHAIN} {{", *rules, "}", "}")
        self._nft.run("\n".join(lines) + "\n", handles=False)
        found = self._netlink.rules(family, _TABLE, _CHAIN)
        if len(found) != len(rules):
            raise BackendError(f"of {len(rules)} rules libnftables made {len(found)}")
        return tuple(Body(rule.expressions, rule.userdata) for rule in found)
