"""The topology of a mesh as one of its nodes sees it: segments, their leaders and addresses. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from meshfw import MeshfwError, Network
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.objects import Cluster, Node, Peer
from meshfw_kilo.options import Granularity, Mesh, PodCidrs


class NotReadyError(MeshfwError):
    """A node for which nothing can be said yet: it isn't there, or isn't ready, so Kilo would leave all as it is."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(node, reason)
        self.node = node
        self.reason = reason

    def __str__(self) -> str:
        return f"node {self.node} {self.reason}"


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes that share one leader, and with it one WireGuard address."""

    key: str
    """``location:`` and the location, or ``node:`` and the name of a node that stands for itself."""
    nodes: tuple[str, ...]
    leader: str
    wireguard_ip: Cidr
    pod_cidrs: tuple[Cidr, ...]
    private_ips: tuple[Cidr, ...]
    """Each as one address."""
    location_ips: tuple[Cidr, ...] = ()
    """Networks behind it that are no part of the mesh; disputed ones are left out."""

    @property
    def allowed_ips(self) -> tuple[Cidr, ...]:
        """What is reached through its leader: pods, nodes and the leader's WireGuard address."""
        return (*self.pod_cidrs, *self.private_ips, self.wireguard_ip)


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A mesh as one node sees it.

    ``expires`` is the Unix second in which the next node counts no longer unless it checks in; None: never. It is no
    part of what makes two topologies equal: see :meth:`same`.
    """

    node: str
    segment: Segment
    """The node's own."""
    segments: tuple[Segment, ...]
    pod_cidrs: tuple[Cidr, ...]
    """The node's own."""
    found_private_ip: bool
    neighbours: tuple[Cidr, ...]
    """The private addresses of the segment of the node's location, its own included, if that location has one."""
    peers: tuple[Peer, ...]
    warnings: tuple[str, ...] = ()
    expires: int | None = None

    @property
    def leads(self) -> bool:
        """Whether the node is its segment's leader."""
        return self.segment.leader == self.node

    def same(self, other: Topology | None) -> bool:
        """Whether another one says the same, whatever its hour."""
        return other is not None and msgspec.structs.replace(other, expires=self.expires) == self


def why_not_ready(node: Node, now: int, *, stale_after: int) -> str | None:
    """Why a Node doesn't count at a Unix second; None where it does."""
    if not node.endpoint:
        return "has no endpoint"
    if not node.key:
        return "has no WireGuard key"
    if node.pod_cidr is None:
        return "has no pod network (spec.podCIDR)"
    if now - node.last_seen >= stale_after:
        return f"hasn't checked in since {_moment(node)}" if node.last_seen else "has never checked in"
    return None


def topology_of(cluster: Cluster, name: str, mesh: Mesh, *, now: int) -> Topology:
    """The topology of a cluster's ready Nodes at a Unix second, as the Node of that name sees it.

    Raises:
        NotReadyError: that Node isn't there, or isn't ready.
        MeshfwError: the mesh's subnet has fewer addresses than there are segments.
    """
    own = next((node for node in cluster.nodes if node.name == name), None)
    if own is None:
        known = ", ".join(node.name for node in cluster.nodes[:5]) or "none"
        raise NotReadyError(name, f"isn't there; there {'are' if cluster.nodes else 'is'} {known}")
    reason = why_not_ready(own, now, stale_after=mesh.stale_after)
    if reason is not None:
        raise NotReadyError(name, f"isn't ready: it {reason}")
    ready = [node for node in cluster.nodes if why_not_ready(node, now, stale_after=mesh.stale_after) is None]
    peers = _without_repeats(cluster.peers)
    warnings = [
        f"Node {node.name} is left out: it hasn't checked in since {_moment(node)}" for node in _gone(cluster, ready)
    ]
    segments = _settled(_segments(ready, mesh), peers, warnings)
    at = {segment.key: segment for segment in segments}
    home = at.get(f"location:{own.location}")
    return Topology(
        node=name,
        segment=at[_key(own, mesh.granularity)],
        segments=segments,
        pod_cidrs=_pods(own, mesh.pod_cidrs),
        found_private_ip=own.found_private_ip,
        neighbours=home.private_ips if home is not None else (),
        peers=peers,
        warnings=tuple(warnings),
        expires=min(node.last_seen + mesh.stale_after for node in ready),
    )


def _gone(cluster: Cluster, ready: Iterable[Node]) -> list[Node]:
    """The Nodes that would count if they hadn't stopped to check in."""
    here = {node.name for node in ready}
    return [n for n in cluster.nodes if n.last_seen and n.endpoint and n.key and n.pod_cidr and n.name not in here]


def _moment(node: Node) -> str:
    """When a Node was last seen; as a number where no calendar has it."""
    try:
        return datetime.fromtimestamp(node.last_seen, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {node.last_seen}"


def _without_repeats(peers: Iterable[Peer]) -> tuple[Peer, ...]:
    """The Peers by name, without allowed IPs that an earlier one has; as networks, for host bits make no difference."""
    owners: dict[Network, str] = {}
    found = []
    for peer in sorted(peers, key=lambda peer: peer.name):
        own = {cidr.network: cidr for cidr in peer.allowed_ips if cidr.network not in owners}
        owners.update(dict.fromkeys(own, peer.name))
        found.append(msgspec.structs.replace(peer, allowed_ips=tuple(own.values())))
    return tuple(found)


# --- segments ----------------------------------------------------------------------------------------------


def _key(node: Node, granularity: Granularity) -> str:
    alone = granularity is Granularity.FULL or node.internal_ip is None
    return f"node:{node.name}" if alone else f"location:{node.location}"


def _pods(node: Node, which: PodCidrs) -> tuple[Cidr, ...]:
    return node.pod_cidrs if which is PodCidrs.ALL else node.pod_cidrs[:1]


def _segments(ready: Iterable[Node], mesh: Mesh) -> list[Segment]:
    """The segments by key, each with the next address of the subnet, and all that its Nodes claim."""
    groups: dict[str, list[Node]] = {}
    for node in sorted(ready, key=lambda node: node.name):
        groups.setdefault(_key(node, mesh.granularity), []).append(node)
    return [
        Segment(
            key=key,
            nodes=tuple(node.name for node in groups[key]),
            leader=_leader(groups[key]),
            wireguard_ip=_wireguard_ip(mesh.subnet, number),
            pod_cidrs=tuple(cidr for node in groups[key] for cidr in _pods(node, mesh.pod_cidrs)),
            private_ips=tuple(node.internal_ip.one for node in groups[key] if node.internal_ip is not None),
            location_ips=_claimed(groups[key]),
        )
        for number, key in enumerate(sorted(groups), 1)
    ]


def _leader(nodes: Sequence[Node]) -> str:
    """The first of those that come first: volunteers before others, and public endpoints before private ones."""
    return min(nodes, key=lambda node: (not node.leader, not node.public)).name


def _wireguard_ip(subnet: Cidr, number: int) -> Cidr:
    """The address of the segment of that number, from 1, in the subnet."""
    network = subnet.network
    if network.address + number > network.last:
        raise MeshfwError(f"subnet {network} has no address for segment {number}; a wider one is needed")
    return Cidr(subnet.family, network.address + number, subnet.family.bits)


def _claimed(nodes: Iterable[Node]) -> tuple[Cidr, ...]:
    """The allowed location IPs of some Nodes, each once, in the order of their texts."""
    return tuple(sorted({cidr for node in nodes for cidr in node.allowed_location_ips}, key=str))


def _settled(segments: Iterable[Segment], peers: Sequence[Peer], warnings: list[str]) -> tuple[Segment, ...]:
    """The segments without the allowed location IPs that are disputed.

    Each is heard in turn, against what the earlier ones kept and the later ones claim: so the last keeps what several
    claim. An address of the mesh is refused, but not a network around one, and the WireGuard addresses of later
    segments aren't known yet. All of this is Kilo's way, and the routes that it makes follow it.
    """
    held = list(segments)
    for index, segment in enumerate(held):
        kept = []
        for cidr in segment.location_ips:
            rival = next(_rivals(cidr, held, index, peers), None)
            if rival is None:
                kept.append(cidr)
            else:
                warnings.append(f"{segment.key}: allowed location IP {cidr} is left out: {rival}")
        held[index] = msgspec.structs.replace(segment, location_ips=tuple(kept))
    return tuple(held)


def _rivals(cidr: Cidr, segments: Sequence[Segment], index: int, peers: Iterable[Peer]) -> Iterator[str]:
    """What stands against an allowed location IP of the segment of that index, in words."""
    for number, other in enumerate(segments):
        if number != index:
            yield from (f"{other.key} claims {held}" for held in other.location_ips if cidr.overlaps(held))
        known = other.allowed_ips if number <= index else (*other.pod_cidrs, *other.private_ips)
        yield from (f"it is an address of {other.key} ({held})" for held in known if held.holds(cidr))
    for peer in peers:
        yield from (f"Peer {peer.name} has {held}" for held in peer.allowed_ips if cidr.overlaps(held))
