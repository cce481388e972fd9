"""The cluster as the Kubernetes API tells of it, live: Nodes and Peers, kept up to date by two threads that only read.

Nothing is ever written: Kilo's annotations are its own agent's.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from meshfw import Changes, Declaration, Settings
from meshfw_kilo.kubernetes_access import Access, KubernetesError, find_access
from meshfw_kilo.kubernetes_clock import ContactClock, Living, what_matters, without_heartbeat
from meshfw_kilo.kubernetes_http import Client
from meshfw_kilo.kubernetes_reflector import IDLE, Reflector, Resource

FIRST_ANSWER: Final = 10.0
"""Seconds that the first reading waits for both lists."""
LISTENED: Final = 1.0
"""Seconds that it waits for them where somebody listens for changes: he hears of the lists when they come."""
PATIENCE: Final = 60.0
"""Seconds without contact after which a reading is an error, so that somebody hears of it; the rules stay."""
STALE_AFTER: Final = 60.0
"""Seconds after which a Node that doesn't check in counts no longer, as Kilo has it."""
_ANNOTATIONS: Final = "kilo.squat.ai/"
_ENDING: Final = 2.0
"""Seconds to wait for a thread's end: a name that is being looked up can't be interrupted."""

_log = logging.getLogger("meshfw.kilo")


def kept_node(item: Mapping[str, Any]) -> dict[str, Any]:
    """What of a Node says something about the mesh; a status, with its images, is most of a Node and changes often."""
    about = item["metadata"]
    labels, annotations, spec = (
        _mapping(found) for found in (about.get("labels"), about.get("annotations"), item.get("spec"))
    )
    return {
        "metadata": {
            "name": about["name"],
            "labels": dict(labels),
            "annotations": {name: value for name, value in annotations.items() if name.startswith(_ANNOTATIONS)},
        },
        "spec": {name: spec[name] for name in ("podCIDR", "podCIDRs") if name in spec},
    }


def kept_peer(item: Mapping[str, Any]) -> dict[str, Any]:
    """What of a Peer says something about the mesh."""
    return {"metadata": {"name": item["metadata"]["name"]}, "spec": item.get("spec")}


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


NODES: Final = Resource(kind="Node", version="v1", path="api/v1/nodes", keep=kept_node)
PEERS: Final = Resource(
    kind="Peer",
    version="kilo.squat.ai/v1alpha1",
    path="apis/kilo.squat.ai/v1alpha1/peers",
    optional=True,
    keep=kept_peer,
)
RESOURCES: Final = (NODES, PEERS)


def open_cluster(settings: Settings | None = None, declaration: Declaration | None = None) -> LiveCluster:
    """The cluster of a source's table, being read from now on; of an empty table, a pod's own or $KUBECONFIG's.

    Raises:
        ConfigError: keys or files that can't be used. KubernetesError: there is no way in.
    """
    return LiveCluster(find_access(settings, declaration))


class LiveCluster:
    """The current Nodes and Peers, and word of their changes: itself a :class:`meshfw.Changes`."""

    def __init__(
        self,
        access: Access,
        *,
        stale_after: float = STALE_AFTER,
        first_answer: float = FIRST_ANSWER,
        patience: float = PATIENCE,
        idle: float = IDLE,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = access.server
        self._first_answer = first_answer
        self._patience = patience
        self._monotonic = monotonic
        self._clock = ContactClock(stale_after, wall=wall, monotonic=monotonic)
        self._living = Living(self._clock)
        self._state = threading.Condition()
        self._objects: dict[str, dict[str, dict[str, Any]]] = {}
        self._all: tuple[Mapping[str, Any], ...] | None = None
        self._problems: dict[str, tuple[KubernetesError, bool]] = {}
        self._failing: dict[str, float] = {}
        self._contacts: dict[str, float] = {}
        self._told: set[str] = set()
        self._asked = self._silent = self._changed = False
        self._read_at = wall()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ending = threading.Event()
        self._clients = [Client(access) for _ in RESOURCES]
        self._threads = [
            threading.Thread(
                target=Reflector(client, resource, self, pause=self._ending.wait, idle=idle, chance=chance).run,
                name=f"meshfw-kilo {resource.plural}",
                daemon=True,  # for the one wait that can't be ended, of a name being looked up
            )
            for client, resource in zip(self._clients, RESOURCES, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    # --- for the one who reads ---

    @property
    def stale_after(self) -> float:
        """Seconds after which a Node that doesn't check in counts no longer."""
        return self._clock.stale_after

    @stale_after.setter
    def stale_after(self, seconds: float) -> None:
        with self._state:
            self._clock.stale_after = seconds
            self._living.doubt()

    @property
    def silence(self) -> float:
        """Seconds since the server was last heard on the resource that is silent longest; inf before the first word."""
        with self._state:
            return max(self._silence(resource) for resource in RESOURCES)

    def read(self) -> Sequence[Mapping[str, Any]]:
        """All Nodes and Peers of now, each by name; what didn't change is the same object as before.

        The first reading waits for the first lists, a bounded time.

        Raises:
            KubernetesError: there was no answer yet, or none any more for longer than :data:`PATIENCE`.
        """
        with self._state:
            if not self._asked:
                self._asked = True
                self._state.wait_for(self._answered, timeout=self._first_answer)
            self._refuse_to_guess()
            self._read_at = self._clock.at
            self._living.tell()
            self._hush()
            if self._all is None:
                self._all = tuple(found[name] for found in map(self._of, RESOURCES) for name in sorted(found))
            return self._all

    def now(self) -> float:
        """The moment that the last reading is true for, in seconds since 1970: when the server was last heard.

        Whether a Node is alive is judged by this clock, and not by one that runs on while nobody hears the Nodes.
        """
        return self._read_at

    def changes(self) -> Changes | None:
        """Word of changes: itself. From now on the first reading keeps nobody waiting for long."""
        self._first_answer = min(self._first_answer, LISTENED)
        return self

    def fileno(self) -> int:
        """The descriptor that becomes readable when a reading may give something else; -1 once it is closed."""
        return self._bell

    def drain(self) -> bool:
        """Take note of what there is; False where no more than heartbeats came that leave the living Nodes the same."""
        with self._state:
            return self._hush()

    def close(self) -> None:
        """End the threads and give the descriptors back; a second call does nothing."""
        self._ending.set()
        for client in self._clients:
            client.close()
        for thread in self._threads:
            thread.join(_ENDING)
        with self._state:
            descriptor, self._bell = self._bell, -1
            self._state.notify_all()
        if descriptor >= 0:
            os.close(descriptor)

    def _of(self, resource: Resource) -> dict[str, dict[str, Any]]:
        return self._objects[resource.kind]

    def _answered(self) -> bool:
        final = any(final for _, final in self._problems.values())
        return len(self._objects) == len(RESOURCES) or final or self._ending.is_set()

    def _refuse_to_guess(self) -> None:
        missing = [resource for resource in RESOURCES if resource.kind not in self._objects]
        refused = [resource for resource in missing if resource.kind in self._problems]
        if refused:
            # What somebody has to mend goes first: the other list may fail for the moment only, or still be on its way.
            resource = max(refused, key=lambda each: self._problems[each.kind][1])
            raise self._told_of(resource, "")
        if missing:
            reason = f"{missing[0].plural}: no answer in {self._first_answer:g} s"
            raise KubernetesError(reason, server=self.name)
        for resource in RESOURCES:
            if self._overdue(resource):
                raise self._told_of(resource, f"not heard for {self._silence(resource):.0f} s: ")

    def _told_of(self, resource: Resource, what: str) -> KubernetesError:
        error, _ = self._problems[resource.kind]
        return KubernetesError(f"{resource.plural}: {what}{error.reason}", server=self.name, remedy=error.remedy)

    def _silence(self, resource: Resource) -> float:
        return self._monotonic() - self._contacts.get(resource.kind, float("-inf"))

    def _overdue(self, resource: Resource) -> bool:
        since = self._failing.get(resource.kind)
        return since is not None and self._monotonic() - since >= self._patience

    # --- for the reflectors ---

    def replaced(self, resource: Resource, objects: dict[str, dict[str, Any]]) -> None:
        """These are all objects of now, by name."""
        with self._state:
            before = self._objects.get(resource.kind)
            known = before if before is not None else {}
            found = {name: known[name] if known.get(name) == kept else kept for name, kept in objects.items()}
            self._objects[resource.kind] = found
            self._all = self._all if before == found else None
            if resource is NODES:
                self._living.replace(found)
            if before is None or what_matters(before) != what_matters(found):
                self._ring()
            self._state.notify_all()

    def changed(self, resource: Resource, name: str, kept: dict[str, Any] | None) -> None:
        """An object is new or another; None: it is gone."""
        with self._state:
            found = self._of(resource)
            before = found.get(name)
            if before == kept:
                return
            self._all = None
            if kept is None:
                del found[name]
            else:
                found[name] = kept
            if resource is NODES:
                self._living.put(name, kept)
            if before is None or kept is None or without_heartbeat(before) != without_heartbeat(kept):
                self._ring()

    def opened(self, resource: Resource) -> None:
        """The server has agreed to tell of changes: it's there, though it hasn't told of any yet."""
        with self._state:
            self._contacts[resource.kind] = self._monotonic()
            self._recovered(resource)

    def alive(self, resource: Resource) -> None:
        """The server has just told what there is, and all of it is taken."""
        with self._state:
            self._contacts[resource.kind] = self._monotonic()
            self._recovered(resource)
            if resource.kind in self._told:
                self._told.discard(resource.kind)
                _log.info("%s are heard again from %s", resource.plural, self.name)
            if resource is NODES:
                self._clock.contact()
                if self._living.differ():
                    self._ring()

    def _recovered(self, resource: Resource) -> None:
        self._failing.pop(resource.kind, None)
        self._problems.pop(resource.kind, None)
        if self._silent and not any(map(self._overdue, RESOURCES)):
            self._silent = False
            self._ring()

    def failed(self, resource: Resource, error: KubernetesError, *, times: int, final: bool) -> None:
        """It didn't work, so often in a row; ``final``: nor will it before somebody mends something."""
        with self._state:
            self._problems[resource.kind] = (error, final)
            self._failing.setdefault(resource.kind, self._monotonic())
            if resource is NODES:
                self._clock.lost()
            if (times > 1 or final) and resource.kind in self._objects and resource.kind not in self._told:
                self._told.add(resource.kind)  # before the first lists it's the reading's error that tells
                _log.warning("%s aren't heard, and what was last heard stays: %s", resource.plural, error)
            if self._overdue(resource) and not self._silent:
                self._silent = True
                self._ring()
            self._state.notify_all()

    def _hush(self) -> bool:
        if self._bell >= 0:
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        changed, self._changed = self._changed, False
        return changed

    def _ring(self) -> None:
        self._changed = True
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)
