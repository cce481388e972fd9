"""A room of our own in which libnftables compiles rules: a network namespace that holds nothing of the host's.

What libnftables writes there the kernel gives back as the bytes of expressions, which say the same in any table of
that family that has the same sets and chains. So a rule for a host with thousands of foreign chains is compiled
without a look at any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshfw.errors import BackendError
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.kernel.netns import fresh_namespace
from meshfw.kernel.nfbody import Body, body_of

_TABLE, _CHAIN = "scratch", "scratch"


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
    ) -> tuple[Body | None, ...]:
        """The bodies of rules of a family, given as nft text (about 0.2 ms, and 30 µs for each).

        ``chains`` and ``sets`` are what the rules name: regular chains, and the body of each set's declaration, such
        as its type. None stands for a rule that can't be written again. BackendError where libnftables or the kernel
        refuses one.
        """
        table = f"table {family} {_TABLE}"
        declared = [f"set {name} {{ {body} }}" for name, body in sets.items()]
        declared += [f"chain {name} {{ }}" for name in chains]
        lines = (f"{table} {{ }}", f"delete {table}", f"{table} {{", *declared, f"chain {_CHAIN} {{", *rules, "}", "}")
        self._nft.run("\n".join(lines) + "\n", handles=False)
        found = self._netlink.rules(family, _TABLE, _CHAIN)
        if len(found) != len(rules):
            raise BackendError(f"of {len(rules)} rules libnftables made {len(found)}")
        return tuple(body_of(self._netlink, family, _TABLE, rule) for rule in found)
