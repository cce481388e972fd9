"""Cases: rules of cluster."""

from __future__ import annotations

from hypothesis import strategies as st

from meshfw.extensions.cluster import Cluster
from meshfw.model import Family, Match, Not
from tests.extensions.case import Case

M = "-m cluster --cluster-total-nodes"
SEED = "--cluster-hash-seed 0xfeedcafe"
CASES = (
    Case(
        "46",
        "mangle/PREROUTING",
        f"{M} 2 --cluster-local-node 2 {SEED}",
        f"-m cluster --cluster-local-nodemask 0x00000002 --cluster-total-nodes 2 {SEED}",
        None,
    ),
    Case(
        "46",
        "filter",
        f"{M} 7 ! --cluster-local-nodemask 9 --cluster-hash-seed 5",
        "-m cluster ! --cluster-local-nodemask 0x00000009 --cluster-total-nodes 7 --cluster-hash-seed 0x00000005",
        None,
    ),
)
REFUSED = (
    ("-m cluster", "--cluster-total-nodes"),
    (f"{M} 3", "--cluster-local-node"),
    (f"{M} 2 --cluster-local-node 2", "--cluster-hash-seed"),
    (f"{M} 2 --cluster-local-node 3 {SEED}", "none of 2"),
    (f"{M} 2 --cluster-local-node 1 --cluster-local-nodemask 1 {SEED}", "one of"),
    (f"{M} 33 --cluster-local-node 1 {SEED}", "33"),
)
EQUAL = ((f"{M} 9 ! --cluster-local-node 4 {SEED}", f"{M} 9 ! --cluster-local-nodemask 8 {SEED}"),)
DIFFERENT = (
    (f"{M} 9 ! --cluster-local-node 4 {SEED}", f"{M} 9 --cluster-local-node 4 {SEED}"),
    (f"{M} 9 --cluster-local-node 4 {SEED}", f"{M} 9 --cluster-local-node 4 --cluster-hash-seed 1"),
)
UNSAYABLE = ((f"{M} 9 --cluster-local-node 4 {SEED}", "expected connection"),)


def matches(family: Family, protocol: int | None) -> list[st.SearchStrategy[Match]]:
    """Shares of a cluster."""
    nodes = st.integers(1, 31)
    return [st.builds(Cluster, nodes | nodes.map(Not), st.integers(5, 32), st.integers(0, 0xFFFFFFFF))]
