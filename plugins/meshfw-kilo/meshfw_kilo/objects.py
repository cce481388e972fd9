"""Kubernetes objects as Kilo reads them: Nodes with its annotations, and Peers, out of plain mappings.

The mappings are what JSON or YAML gives, so a file and the API share this room. What Kilo passes over in silence is
passed over here too, and told of in :attr:`Cluster.warnings`. What isn't an object of Kubernetes at all is an error.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from meshfw import ConfigError, Family, ModelError
from meshfw.model import parse_address
from meshfw_kilo.cidr import Cidr

TOPOLOGY_LABEL: Final = "topology.kubernetes.io/region"
"""The label of a Node that gives its location where no annotation does (Kilo's --topology-label)."""
ANNOTATION: Final = "kilo.squat.ai/"
"""What the names of Kilo's annotations begin with."""
PEER_GROUP: Final = "kilo.squat.ai"
"""The API group of Kilo's Peers."""

_ONE_EACH: Final = "one object for each name"
_NO_INTERNAL_IP: Final = ("", "-")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")  # RFC 1123, as Kubernetes has it
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}\Z")
_NUMBERS: Final = (f"{ANNOTATION}last-seen", f"{ANNOTATION}persistent-keepalive")
"""Annotations of which YAML without quotes makes numbers, and no other text can have been meant."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A Node of the cluster, as far as its firewall depends on it; what is missing or unreadable is None or empty."""

    name: str
    location: str = ""
    endpoint: str = ""
    """Host and port, readable; empty where there is none."""
    public: bool = False
    """The endpoint is an address that isn't private (RFC 1918, fd00::/16)."""
    key: str = ""
    """The WireGuard key in base64; empty where there is none, or only zeros."""
    pod_cidr: Cidr | None = None
    """``spec.podCIDR``, which is all that Kilo reads."""
    pod_cidrs: tuple[Cidr, ...] = ()
    """``spec.podCIDRs``, which has one of each family on a dual-stack cluster; ``pod_cidr`` comes first."""
    internal_ip: Cidr | None = None
    found_private_ip: bool = False
    """The node's agent has found a private address, whether or not Kilo is told to use it."""
    last_seen: int = 0
    """Unix seconds."""
    leader: bool = False
    allowed_location_ips: tuple[Cidr, ...] = ()


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A Peer that is fit to be used: it has a key and at least one allowed IP."""

    name: str
    public_key: str
    allowed_ips: tuple[Cidr, ...]


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The Nodes and Peers of a cluster, each sorted by name, and what was passed over."""

    nodes: tuple[Node, ...] = ()
    peers: tuple[Peer, ...] = ()
    warnings: tuple[str, ...] = ()


def listed_objects(document: object, *, where: str = "", depth: int = 4) -> Iterator[Mapping[str, Any]]:
    """The objects of a document: itself, or what a plain list, List, NodeList or PeerList holds, each with its kind.

    Lists may hold lists, up to ``depth`` of them (an alias of YAML may lead a list into itself).

    Raises:
        ConfigError: it is no object of Kubernetes; ``where`` begins the key that the error names.
    """
    if isinstance(document, list) and depth:
        for index, item in enumerate(document, 1):
            yield from listed_objects(item, where=f"{where or 'document'}[{index}]", depth=depth - 1)
        return
    found = _mapping(document, where or "document")
    kind = found.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ConfigError("it has no kind", key=where or "document", expected="kind: Node, Peer or List")
    if not kind.endswith("List"):
        yield found
        return
    items = found.get("items")
    key = f"{where}.items" if where else "items"
    if not isinstance(items, list) or not depth:
        reason = f"a {kind} without a list of items" if depth else "lists in lists in lists"
        raise ConfigError(reason, key=key, expected="a list of objects")
    shared = {"kind": kind.removesuffix("List"), "apiVersion": found.get("apiVersion")} if kind != "List" else {}
    for index, item in enumerate(items, 1):
        place = f"{key}[{index}]"
        yield from listed_objects({**shared, **_mapping(item, place)}, where=place, depth=depth - 1)


def parse_objects(items: Iterable[Mapping[str, Any]], *, topology_label: str = TOPOLOGY_LABEL) -> Cluster:
    """The cluster of some objects, in whatever order they come; each says its kind, and other kinds are left out.

    Raises:
        ConfigError: an object can't be one of Kubernetes (no name, an annotation that is no string), or two Nodes or
            two Peers have one name. The key names the object.
    """
    return Parser(topology_label=topology_label).parse(items)


class _Read(msgspec.Struct, frozen=True):
    """An object, what was read of it, and what was passed over."""

    item: Mapping[str, Any]
    kind: str
    name: str = ""
    found: Node | Peer | None = None
    warnings: tuple[str, ...] = ()


class Parser:
    """A reader of objects that reads again only what it hasn't read the last time, the very same mapping.

    Nodes check in every half minute, and each time the others have stayed as they were.
    """

    def __init__(self, *, topology_label: str = TOPOLOGY_LABEL) -> None:
        self._topology_label = topology_label
        self._known: dict[int, _Read] = {}

    def parse(self, items: Iterable[Mapping[str, Any]]) -> Cluster:
        """The cluster of some objects; as :func:`parse_objects`, and its errors."""
        before, self._known = self._known, {}
        named: dict[tuple[str, str], _Read] = {}
        warnings: list[str] = []
        others: dict[str, int] = {}
        for index, item in enumerate(items, 1):
            read = before.get(id(item)) or self._read(item, index)
            self._known[id(item)] = read  # which holds the mapping, so that no other one has its id
            if not read.name:
                others[read.kind] = others.get(read.kind, 0) + 1
            elif (read.kind, read.name) in named:
                raise ConfigError(
                    f"two {read.kind}s are called {read.name}", key=f"{read.kind} {read.name}", expected=_ONE_EACH
                )
            named[read.kind, read.name] = read
            warnings += read.warnings
        warnings += [f"{count} of kind {kind} left out: Kilo knows Node and Peer" for kind, count in others.items()]
        found = [named[key].found for key in sorted(named)]
        peers = _one_for_each_key((thing for thing in found if isinstance(thing, Peer)), warnings)
        nodes = tuple(thing for thing in found if isinstance(thing, Node))
        return Cluster(nodes=nodes, peers=peers, warnings=tuple(sorted(warnings)))

    def _read(self, item: Mapping[str, Any], index: int) -> _Read:
        kind = str(item.get("kind"))
        foreign = kind == "Peer" and str(item.get("apiVersion") or PEER_GROUP).partition("/")[0] != PEER_GROUP
        if kind not in ("Node", "Peer") or foreign:
            return _Read(item, kind)
        warnings: list[str] = []
        thing = _Object(item, f"{kind} {index}", warnings)
        found = _node(thing, self._topology_label) if kind == "Node" else _peer(thing)
        return _Read(item, kind, thing.name, found, tuple(warnings))


def _one_for_each_key(peers: Iterable[Peer], warnings: list[str]) -> tuple[Peer, ...]:
    """The Peers with one for each public key: of several the last by name, as Kilo has it once it has listed them."""
    held: dict[str, Peer] = {}
    for peer in peers:
        other = held.pop(peer.public_key, None)
        if other is not None:
            warnings.append(f"Peer {other.name} is left out: Peer {peer.name} has the same public key")
        held[peer.public_key] = peer
    return tuple(sorted(held.values(), key=lambda peer: peer.name))


class _Object:
    """One object being read: its name, its parts, and the warnings about it."""

    def __init__(self, item: Mapping[str, Any], place: str, warnings: list[str]) -> None:
        self._warnings = warnings
        self._metadata = _mapping(item.get("metadata"), f"{place}.metadata")
        name = self._metadata.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError("the object has no name", key=f"{place}.metadata.name", expected="a string")
        self.name = name
        self.title = f"{item.get('kind')} {name}"
        spec = item.get("spec")
        self.spec = _mapping(spec, f"{self.title}.spec") if spec is not None else {}

    def texts(self, part: str) -> Mapping[str, str]:
        """Its annotations or labels."""
        held = self._metadata.get(part)
        texts: Mapping[Any, Any] = {} if held is None else _mapping(held, f"{self.title}.metadata.{part}")
        texts = {**texts, **{name: str(texts[name]) for name in _NUMBERS if type(texts.get(name)) is int}}
        for name, value in texts.items():
            if not isinstance(value, str) or not isinstance(name, str):
                raise ConfigError(
                    f"{(value if isinstance(name, str) else name)!r} is no string, and Kubernetes takes nothing else",
                    key=f"{self.title}.metadata.{part}[{name}]",
                    expected="a string; YAML wants quotes around numbers, true, false and null",
                )
        return texts

    def warn(self, key: str, value: object, expected: str) -> None:
        """Say that Kilo passes over a value."""
        self._warnings.append(f"{self.title}: {key}: {value!r} is passed over; expected {expected}")


def _mapping(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{type(value).__name__} in place of an object", key=key, expected="a mapping")
    return value


# --- nodes -------------------------------------------------------------------------------------------------


def _node(thing: _Object, topology_label: str) -> Node:
    annotations = {
        name.removeprefix(ANNOTATION): value
        for name, value in thing.texts("annotations").items()
        if name.startswith(ANNOTATION)
    }
    endpoint, public = _endpoint(thing, annotations)
    internal, found = _internal_ip(thing, annotations)
    pod_cidr, pod_cidrs = _pod_cidrs(thing)
    return Node(
        name=thing.name,
        location=annotations.get("location", thing.texts("labels").get(topology_label, "")),
        endpoint=endpoint,
        public=public,
        key=_key(thing, "key", annotations.get("key", "")),
        pod_cidr=pod_cidr,
        pod_cidrs=pod_cidrs,
        internal_ip=internal,
        found_private_ip=found,
        last_seen=_number(thing, "last-seen", annotations.get("last-seen", "")),
        leader="leader" in annotations,
        allowed_location_ips=_location_ips(thing, annotations.get("allowed-location-ips", "")),
    )


def _endpoint(thing: _Object, annotations: Mapping[str, str]) -> tuple[str, bool]:
    """The endpoint, the forced one before the found one, and whether it is a public address."""
    for name in ("force-endpoint", "endpoint"):
        text = annotations.get(name, "")
        if not text:
            continue
        public = _is_public_endpoint(text)
        if public is not None:
            return text, public
        thing.warn(name, text, "host:port, with an IPv6 address in brackets")
    return "", False


def _is_public_endpoint(text: str) -> bool | None:
    """Whether the host of an endpoint is a public address, False for a name; None where it is no endpoint."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not (port.isascii() and port.isdigit() and len(port) < 20 and 1 <= int(port) <= 0xFFFF):
        return None
    if not bracketed and ":" in host:
        return None
    try:
        return _is_public(*parse_address(host))
    except ModelError:
        return False if len(host) <= 253 and _DNS_NAME.match(host) else None


def _is_public(family: Family, address: int) -> bool:
    """Whether Kilo holds an address public: neither of RFC 1918 nor of fd00::/16."""
    if family is Family.IPV6 and address >> 32 != 0xFFFF:
        return address >> 112 != 0xFD00
    address &= 0xFFFFFFFF
    return address >> 24 != 10 and address >> 20 != 0xAC1 and address >> 16 != 0xC0A8


def _internal_ip(thing: _Object, annotations: Mapping[str, str]) -> tuple[Cidr | None, bool]:
    """The internal address to use, and whether the agent found one."""
    found = _cidr(thing, "internal-ip", annotations.get("internal-ip", ""))
    forced = annotations.get("force-internal-ip")
    if forced is None:
        return found, found is not None
    if forced in _NO_INTERNAL_IP:
        return None, True  # the agent then publishes none, and nobody writes this where there is none to hide
    address = _cidr(thing, "force-internal-ip", forced)
    return (found, found is not None) if address is None else (address, True)


def _pod_cidrs(thing: _Object) -> tuple[Cidr | None, tuple[Cidr, ...]]:
    first = _spec_cidr(thing, "podCIDR", thing.spec.get("podCIDR"))
    listed = thing.spec.get("podCIDRs")
    if listed is not None and not isinstance(listed, list):
        raise ConfigError(f"{listed!r} is no list", key=f"{thing.title}.spec.podCIDRs", expected="a list of CIDRs")
    several = [_spec_cidr(thing, "podCIDRs", text) for text in listed or ()]
    return first, tuple(dict.fromkeys(cidr for cidr in (first, *several) if cidr is not None))


def _spec_cidr(thing: _Object, key: str, text: object) -> Cidr | None:
    """A network of the spec; None where there is none yet."""
    if text is None or text == "":
        return None
    cidr = Cidr.parse(text) if isinstance(text, str) else None
    if cidr is None:
        thing.warn(f"spec.{key}", text, "a CIDR such as 10.42.0.0/24")
        return None
    network = cidr.network
    return Cidr(cidr.family, network.address, cidr.length)


def _cidr(thing: _Object, key: str, text: str) -> Cidr | None:
    cidr = Cidr.parse(text)
    if cidr is None and text:
        thing.warn(key, text, "a CIDR such as 10.0.1.11/24")
    return cidr


def _location_ips(thing: _Object, text: str) -> tuple[Cidr, ...]:
    found = [_cidr(thing, "allowed-location-ips", item) for item in text.split(",")] if text else []
    return tuple(cidr for cidr in found if cidr is not None)


def _number(thing: _Object, key: str, text: str) -> int:
    if _NUMBER.match(text):
        return int(text)
    if text:
        thing.warn(key, text, "a whole number")
    return 0


def _key(thing: _Object, name: str, text: str) -> str:
    """A WireGuard key; empty where it is none, or nothing but zeros."""
    if not text:
        return ""
    try:
        raw = b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) == 32:
        return text if any(raw) else ""
    thing.warn(name, text, "32 bytes in base64")
    return ""


# --- peers -------------------------------------------------------------------------------------------------


def _peer(thing: _Object) -> Peer | None:
    """The Peer; None, with a warning, where Kilo would ignore it."""
    spec = thing.spec
    addresses = spec.get("allowedIPs")
    cidrs = [Cidr.parse(text) if isinstance(text, str) else None for text in _listed(addresses)]
    key = spec.get("publicKey")
    keepalive = spec.get("persistentKeepalive", 0)
    wrong = (
        ("allowedIPs", addresses, "a list of CIDRs, at least one", not cidrs or None in cidrs),
        ("publicKey", key, "32 bytes in base64", not isinstance(key, str) or not key),
        ("persistentKeepalive", keepalive, "seconds, 0 or more", type(keepalive) is not int or keepalive < 0),
        ("endpoint", spec.get("endpoint"), "dnsOrIP and port", not _is_peer_endpoint(spec.get("endpoint"))),
    )
    for name, value, expected, bad in wrong:
        if bad:
            thing.warn(f"spec.{name}", value, f"{expected}; the Peer is ignored")
            return None
    public_key = _key(thing, "spec.publicKey", str(key))
    if not public_key:
        return None
    return Peer(name=thing.name, public_key=public_key, allowed_ips=tuple(cidr for cidr in cidrs if cidr is not None))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _is_peer_endpoint(endpoint: object) -> bool:
    if endpoint is None:
        return True
    if not isinstance(endpoint, Mapping) or not isinstance(endpoint.get("dnsOrIP"), Mapping):
        return False
    host, port = endpoint["dnsOrIP"], endpoint.get("port")
    name, address = host.get("dns") or "", host.get("ip") or ""
    if type(port) is not int or not 1 <= port <= 0xFFFF or not (name or address):
        return False
    if name and not (isinstance(name, str) and len(name) <= 253 and _DNS_NAME.match(name)):
        return False
    return not address or (
        isinstance(address, str) and Cidr.parse(f"{address}/128" if ":" in address else f"{address}/32") is not None
    )
