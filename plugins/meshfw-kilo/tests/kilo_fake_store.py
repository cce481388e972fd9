"""What a fake API server stores: objects with versions, and the history that a watch is told from."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

Object = dict[str, Any]

NODE_STATUS: Final = {
    "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    "nodeInfo": dict.fromkeys(
        "machineID systemUUID bootID kernelVersion osImage containerRuntimeVersion kubeletVersion kubeProxyVersion "
        "operatingSystem architecture".split(),
        "",
    ),
}
PEER_SCHEMA: Final[Object] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["allowedIPs", "publicKey"],
            "properties": {
                "allowedIPs": {"type": "array", "items": {"type": "string"}},
                "endpoint": {
                    "type": "object",
                    "required": ["dnsOrIP", "port"],
                    "properties": {"dnsOrIP": {"type": "object"}, "port": {"type": "integer"}},
                },
                "persistentKeepalive": {"type": "integer"},
                "presharedKey": {"type": "string"},
                "publicKey": {"type": "string"},
            },
        }
    },
}
PEERS_CRD: Final[Object] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "peers.kilo.squat.ai"},
    "spec": {
        "group": "kilo.squat.ai",
        "names": {"kind": "Peer", "listKind": "PeerList", "plural": "peers", "singular": "peer"},
        "scope": "Cluster",
        "versions": [
            {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": PEER_SCHEMA}},
        ],
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of object that the server knows."""

    kind: str
    version: str
    plural: str
    custom: bool = False

    @property
    def group(self) -> str:
        """Its API group; empty for the core's."""
        return self.version.rpartition("/")[0]

    @property
    def title(self) -> str:
        """As messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def path(self) -> str:
        """Where its objects are."""
        return f"/{'apis' if self.group else 'api'}/{self.version}/{self.plural}"


NODES: Final = Kind("Node", "v1", "nodes")
PEERS: Final = Kind("Peer", "kilo.squat.ai/v1alpha1", "peers", custom=True)
CRDS: Final = Kind("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions")
KINDS: Final = (NODES, PEERS, CRDS)


class Refusal(Exception):  # noqa: N818 - the server's answer, not an error of its own
    """A Status that isn't Success."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": details} if details is not None else {}),
            "code": code,
        }


def details(kind: Kind, name: str, **more: Any) -> Object:
    """What a Status says of the object it's about."""
    return {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural, **more}


@dataclass
class Event:
    """Something that happened to an object, at a version."""

    version: int
    kind: Kind
    type: str
    item: Object


@dataclass
class Store:
    """Objects, one counter of versions for all of them, and the events that aren't forgotten yet."""

    version: int = 1
    oldest: int = 0
    """A watch from a version below this is too old."""
    objects: dict[Kind, dict[str, Object]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    events: list[Event] = field(default_factory=list)
    moved: threading.Condition = field(default_factory=threading.Condition)

    def create(self, kind: Kind, body: Object, *, manager: str = "unknown") -> Object:
        """A new object."""
        item = copy.deepcopy(body)
        name = item["metadata"]["name"]
        with self.moved:
            self.validate(kind, item)
            if name in self.objects[kind]:
                message = f'{kind.title} "{name}" already exists'
                raise Refusal(409, "AlreadyExists", message, details(kind, name))
            about = item["metadata"]
            about["uid"] = str(uuid.uuid4())
            about["creationTimestamp"] = stamp()
            item.setdefault("kind", kind.kind)
            item.setdefault("apiVersion", kind.version)
            if kind is NODES:
                taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
                item.setdefault("spec", {}).setdefault("taints", [taint])
                item.setdefault("status", copy.deepcopy(NODE_STATUS))
            else:
                about["generation"] = 1
            if kind is CRDS:
                _establish(item)
            about["managedFields"] = managed(kind, item, manager)
            return self._store(kind, "ADDED", item)

    def update(self, kind: Kind, name: str, change: Callable[[Object], Object]) -> Object:
        """An object changed; refused where the change carries a version that isn't the latest."""
        with self.moved:
            before = self.get(kind, name)
            item = change(copy.deepcopy(before))
            about, was = item["metadata"], before["metadata"]
            if about.get("resourceVersion", was["resourceVersion"]) != was["resourceVersion"]:
                message = (
                    f'Operation cannot be fulfilled on {kind.title} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again"
                )
                raise Refusal(409, "Conflict", message, details(kind, name))
            self.validate(kind, item)
            for key in ("uid", "creationTimestamp", "generation", "resourceVersion"):
                if key in was:
                    about[key] = was[key]
            manager = was["managedFields"][0]["manager"]
            about["managedFields"] = was["managedFields"]
            if item == before:
                return before
            if "generation" in was and item.get("spec") != before.get("spec"):
                about["generation"] = was["generation"] + 1
            about["managedFields"] = managed(kind, item, manager)
            return self._store(kind, "MODIFIED", item)

    def delete(self, kind: Kind, name: str) -> Object:
        """An object gone; with its definition, all objects of a kind."""
        with self.moved:
            item = copy.deepcopy(self.get(kind, name))
            if kind is CRDS:
                for other in list(self.objects[PEERS]):
                    self.delete(PEERS, other)
            del self.objects[kind][name]
            return self._store(kind, "DELETED", item)

    def get(self, kind: Kind, name: str) -> Object:
        """An object as it is."""
        found = self.objects[kind].get(name)
        if found is None:
            raise Refusal(404, "NotFound", f'{kind.title} "{name}" not found', details(kind, name))
        return found

    def known(self, kind: Kind) -> bool:
        """Whether the server has such objects: Peers need their definition."""
        return kind is not PEERS or "peers.kilo.squat.ai" in self.objects[CRDS]

    def last_of(self, kind: Kind) -> int:
        """The version of the last event of a kind; 0 where there is none, or none is remembered."""
        return max((event.version for event in self.events if event.kind == kind), default=0)

    def forget(self) -> None:
        """Forget all that happened up to now, as a compaction of the store does."""
        with self.moved:
            self.oldest = self.version
            self.events.clear()

    def validate(self, kind: Kind, item: Object) -> None:
        """Refuse what the definition of a custom resource doesn't allow (422)."""
        if kind is not PEERS:
            return
        schema = PEER_SCHEMA
        for crd in self.objects[CRDS].values():
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        causes = list(_violations(schema, item, ""))
        if causes:
            name = item["metadata"]["name"]
            said = [f"{cause['field']}: {cause['message']}" for cause in causes]
            text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
            about = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
            raise Refusal(422, "Invalid", f'{kind.kind}.{kind.group} "{name}" is invalid: {text}', about)

    def _store(self, kind: Kind, event: str, item: Object) -> Object:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if event != "DELETED":
            self.objects[kind][item["metadata"]["name"]] = item
        self.events.append(Event(self.version, kind, event, copy.deepcopy(item)))
        self.moved.notify_all()
        return copy.deepcopy(item)


def stamp() -> str:
    """The time of now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}


def _violations(schema: Object, value: Any, path: str) -> Iterator[Object]:
    wanted, found = schema.get("type"), _TYPES.get(type(value), "null")
    if wanted and wanted != found:
        message = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
        yield {"reason": "FieldValueInvalid", "message": message, "field": path}
        return
    if isinstance(value, list) and "items" in schema:
        for index, entry in enumerate(value):
            yield from _violations(schema["items"], entry, f"{path}[{index}]")
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from _violations(inner, value[name], f"{path}.{name}" if path else name)
        for name in schema.get("required", ()):
            if name not in value:
                where = f"{path}.{name}" if path else name
                yield {"reason": "FieldValueRequired", "message": "Required value", "field": where}


def _establish(crd: Object) -> None:
    """What the server adds to a definition once it serves it."""
    crd["spec"].setdefault("conversion", {"strategy": "None"})
    crd["status"] = {
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": stamp(), "reason": reason, "message": message}
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ],
        "acceptedNames": copy.deepcopy(crd["spec"]["names"]),
        "storedVersions": [version["name"] for version in crd["spec"]["versions"]],
    }


def managed(kind: Kind, item: Object, manager: str) -> list[Object]:
    """metadata.managedFields after one writer's work: which fields are his."""

    def entry(who: str, fields: Object) -> Object:
        about = {"manager": who, "operation": "Update", "apiVersion": kind.version, "time": stamp()}
        return {**about, "fieldsType": "FieldsV1", "fieldsV1": fields}

    fields: Object = {}
    for name in ("annotations", "labels"):
        if item["metadata"].get(name):
            owned: Object = {f"f:{key}": {} for key in item["metadata"][name]}
            fields.setdefault("f:metadata", {})[f"f:{name}"] = {".": {}, **owned}
    spec = {name: value for name, value in item.get("spec", {}).items() if name != "taints"}
    fields["f:spec"] = _fields(spec, dotted=kind.custom)
    for name in ("podCIDRs",):
        if name in spec:
            fields["f:spec"][f"f:{name}"] = {".": {}, **{f'v:"{value}"': {} for value in spec[name]}}
    entries = [entry(manager, fields)]
    if kind is CRDS:
        entries[0]["fieldsV1"]["f:spec"]["f:conversion"]["."] = {}  # a pointer in Go, unlike the rest of it
        status: Object = {"f:acceptedNames": {"f:kind": {}, "f:listKind": {}, "f:plural": {}, "f:singular": {}}}
        entries[0]["fieldsV1"]["f:status"] = {"f:storedVersions": {}}
        entries.append(entry("kube-apiserver", {"f:status": {**status, "f:conditions": {}}}))
    return entries


def _fields(value: Object, *, dotted: bool) -> Object:
    inner = {f"f:{name}": _fields(v, dotted=dotted) if isinstance(v, dict) else {} for name, v in value.items()}
    return {".": {}, **inner} if dotted else inner


def merged(item: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386), applied."""
    if not isinstance(patch, dict):
        return patch
    found = dict(item) if isinstance(item, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def patched(item: Object, patch: list[Object]) -> Object:
    """A JSON patch (RFC 6902), applied: add, replace, remove and test, of members of objects."""
    for step in patch:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        inner: Any = item
        for part in way:
            inner = inner.get(part) if isinstance(inner, dict) else None
        known = isinstance(inner, dict) and last in inner
        if not isinstance(inner, dict) or (step["op"] != "add" and not known):
            raise Refusal(422, "Invalid", "the server rejected our request due to an error in our request")
        if step["op"] == "remove":
            del inner[last]
        elif step["op"] == "test":
            if inner[last] != step["value"]:
                raise Refusal(422, "Invalid", "the server rejected our request due to an error in our request")
        else:
            inner[last] = step["value"]
    return item


def bookmark(kind: Kind, version: int) -> Object:
    """What a bookmark of a kind looks like."""
    item: Object = {"kind": kind.kind, "apiVersion": kind.version, "metadata": {"resourceVersion": str(version)}}
    if kind is NODES:
        item["metadata"]["creationTimestamp"] = None
        item |= {"spec": {}, "status": copy.deepcopy(NODE_STATUS)}
    return item


@dataclass
class Watch:
    """A watch that is going on: where it is in the history, and what to do with it next."""

    kind: Kind
    seen: int
    orders: list[str] = field(default_factory=list)


@dataclass
class Faults:
    """What goes wrong; lists are used up, one entry for each request."""

    tokens: set[str] | None = None
    """The tokens that are good; None: nobody is asked."""
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Verbs and plurals that nobody may."""
    answers: list[tuple[int, Mapping[str, str], bytes]] = field(default_factory=list)
    """Status, headers and body to be given in place of the right answer."""
    expire_pages: int = 0
    """So many continuations are too old."""
    hangs: bool = False
    """Requests are taken and never answered."""
    mute: bool = False
    """Watches tell nothing more, and stay open."""
