"""The cluster match: the share of connections that is this node's (iptables-extensions(8), cluster)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, number, sign
from meshfw.extensions.extension import Codec, Extension, Option, ParseContext
from meshfw.model import Family, Loss, Match, Not, Rule

NODES_MAX: Final = 32  # linux/netfilter/xt_cluster.h, XT_CLUSTER_NODES_MAX


class Cluster(Match, frozen=True):
    """Connections whose source address hashes to one of the ``nodes`` (bits from 0) of ``total``."""

    nodes: int | Not[int]
    total: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.total <= NODES_MAX:
            raise ModelError(f"a cluster has 1 to {NODES_MAX} nodes")
        if not 1 <= sign(self.nodes)[1] < 1 << self.total:
            raise ModelError(f"a node that is none of {self.total}")

    def losses(self) -> Iterator[Loss]:
        """A mask of nodes that iptables prints and doesn't read."""
        if sign(self.nodes)[1] > NODES_MAX:
            text = f"--cluster-local-nodemask: iptables reads none above {NODES_MAX}, not even its own"
            yield Loss(frozenset({"legacy", "nft"}), text)


def _build(fields: dict[str, Any], context: ParseContext) -> Cluster:
    node, nodes = fields.pop("node", None), fields.pop("nodes", None)
    if (node is None) == (nodes is None) or set(fields) != {"total", "seed"}:
        raise ModelError(
            "cluster needs --cluster-total-nodes, --cluster-hash-seed and one of --cluster-local-node and "
            "--cluster-local-nodemask"
        )
    if node is not None:
        negated, index = sign(node)
        nodes = Not(1 << index - 1) if negated else 1 << index - 1
    return Cluster(nodes, **fields)


def _save(value: Cluster, family: Family) -> Iterable[str]:
    negated, nodes = sign(value.nodes)
    return (
        *(("!",) if negated else ()),
        *("--cluster-local-nodemask", f"{nodes:#010x}", "--cluster-total-nodes", str(value.total)),
        *("--cluster-hash-seed", f"{value.seed:#010x}"),
    )


def _to_nft(value: Cluster, family: Family, rule: Rule) -> NoReturn:
    raise InexpressibleError(
        "cluster: iptables hashes an expected connection by the address of the one that expects it, which nft can't "
        "see, and takes frames to a group's Ethernet address for its own"
    )


_NODES: Final = integer("a number of nodes", low=1, high=NODES_MAX)
_MASK: Final = Codec(parse=lambda text, context: number(text), format=hex, expected="a mask of nodes")

EXTENSIONS: Final = (
    Extension(
        name="cluster",
        value=Cluster,
        options=(
            Option("--cluster-total-nodes", "total", _NODES),
            Option("--cluster-local-node", "node", _NODES, invertible=True),
            Option("--cluster-local-nodemask", "nodes", _MASK, invertible=True),
            Option("--cluster-hash-seed", "seed", integer("a number of 32 bits")),
        ),
        build=_build,
        save=_save,
        to_nft=_to_nft,
    ),
)
