"""The CLUSTERIP target: one address on several hosts (iptables-extensions(8), CLUSTERIP; gone since Linux 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, number
from meshfw.extensions.extension import Codec, Extension, Fields, Option, ParseContext
from meshfw.extensions.mac import octets
from meshfw.model import Family, Network, Rule, Target

NODES_MAX: Final = 16  # linux/netfilter_ipv4/ipt_CLUSTERIP.h, CLUSTERIP_MAX_NODES
HASH_MODES: Final = ("sourceip", "sourceip-sourceport", "sourceip-sourceport-destport")


class ClusterIp(Target, frozen=True, kw_only=True):
    """CLUSTERIP: as node ``local`` of ``total`` this host shares an address; without a mode, as set before.

    ``mac`` is the multicast Ethernet address of the cluster, in lower case.
    """

    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    final: ClassVar[bool] = False
    mode: str | None = None
    mac: str = ""
    total: int = 0
    local: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode is None:
            return
        if self.mode not in HASH_MODES:
            raise ModelError(f"{self.mode!r} is not one of {', '.join(HASH_MODES)}")
        if octets(self.mac) != self.mac or not int(self.mac[:2], 16) & 1:
            raise ModelError(f"CLUSTERIP --clustermac {self.mac}: a multicast Ethernet address is wanted")
        if not 1 <= self.local <= NODES_MAX or not 0 <= self.total <= NODES_MAX:
            raise ModelError(f"CLUSTERIP --local-node {self.local}: a cluster has nodes from 1 to {NODES_MAX}")

    def problem(self, rule: Rule, family: Family) -> str | None:
        """A rule for more than the one address."""
        held = rule.destination
        if not isinstance(held, Network) or held.prefix != family.bits or not held.address:
            return "CLUSTERIP needs the rule to state the cluster's address with -d"
        return None


def _build(fields: Fields, context: ParseContext) -> ClusterIp:
    new = fields.pop("new", False)
    wanted = {"mode", "mac", "total", "local"}
    if fields and not new:
        raise ModelError("options of CLUSTERIP need --new")
    if new and not wanted <= set(fields):
        raise ModelError("CLUSTERIP --new needs --hashmode, --clustermac, --total-nodes and --local-node")
    return ClusterIp(**fields)


def _save(value: ClusterIp, family: Family) -> Iterable[str]:
    if value.mode is not None:
        yield from ("--new", "--hashmode", value.mode, "--clustermac", value.mac.upper())
        yield from ("--total-nodes", str(value.total), "--local-node", str(value.local))
        yield from ("--hash-init", str(value.seed))


def _to_nft(value: ClusterIp, family: Family, rule: Rule) -> Iterable[str]:
    raise InexpressibleError("CLUSTERIP: nft has no such statement; jhash and a multicast address are other rules")


_MODE: Final = Codec(parse=lambda text, context: text, format=str, expected=f"one of {', '.join(HASH_MODES)}")
_MAC: Final = Codec(
    parse=lambda text, context: octets(text), format=str.upper, expected="six octets in hex joined by colons"
)
_NODE: Final = integer(f"a node's number up to {NODES_MAX}", high=NODES_MAX)

EXTENSIONS: Final = (
    Extension(
        name="CLUSTERIP",
        value=ClusterIp,
        options=(
            Option("--new", "new", words=0),
            Option("--hashmode", "mode", _MODE),
            Option("--clustermac", "mac", _MAC),
            Option("--total-nodes", "total", _NODE),
            Option("--local-node", "local", _NODE),
            Option("--hash-init", "seed", Codec(lambda text, context: number(text), str, "a number of 32 bits")),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
    ),
)
