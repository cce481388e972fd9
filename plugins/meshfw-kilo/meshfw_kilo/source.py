"""The rule source ``kilo``: a mesh node's firewall, as long as the mesh and the hour say the same."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from math import isfinite
from typing import Final

from meshfw import Changes, ConfigError, Declaration, MeshfwError, Ruleset, Settings
from meshfw.model import Place
from meshfw_kilo.cidr import Cidr
from meshfw_kilo.clock import Clock
from meshfw_kilo.objects import TOPOLOGY_LABEL, Cluster, Parser
from meshfw_kilo.options import (
    STALE_AFTER,
    Compatibility,
    Encapsulation,
    Firewall,
    Granularity,
    Mesh,
    PodCidrs,
)
from meshfw_kilo.reader import FileReader, LiveReader, Objects, Reader, in_file
from meshfw_kilo.rules import ruleset_of
from meshfw_kilo.topology import NotReadyError, Topology, topology_of

_NOT_IN_THE_RULES: Final = ("interface", "internal-cidr", "resync-period", "clean-up")
"""Options of Kilo that are taken, whatever they say, so that its flags can be copied: no rule depends on them."""
_CIDR: Final = "a network such as 10.4.0.0/16"


class KiloSource:
    """The firewall of one node of a Kilo mesh."""

    def __init__(self, declaration: Declaration) -> None:
        settings = declaration.settings()
        self._declaration = declaration
        self._node = settings.required("node", expected="the name of this host's Node")
        self._mesh = mesh_of(settings)
        self._firewall = firewall_of(settings)
        self._parser = Parser(topology_label=settings.take("topology-label", str, TOPOLOGY_LABEL))
        self._now = _fixed_clock(settings)
        for name in _NOT_IN_THE_RULES:
            settings.any(name)
        self._reader = open_reader(settings, declaration)
        self._live = self._reader if isinstance(self._reader, LiveReader) else None
        if self._live is not None:
            self._live.stale_after = self._mesh.stale_after
        self._clock: Clock | None = None
        self._told: _Told | None = None
        self._objects: Objects | None = None
        self._cluster = Cluster()
        self._topology: Topology | None = None
        self._ruleset = Ruleset()
        self._given: Ruleset | None = None
        try:
            settings.finish()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The node, and where its cluster's objects come from."""
        return f"node {self._node} of {self._reader.name}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the last load passed over: unreadable values, disputed addresses, nodes that no longer check in."""
        return (*self._cluster.warnings, *(self._topology.warnings if self._topology is not None else ()))

    def load(self) -> Ruleset:
        """The node's rules as of now; the very same ruleset as long as the mesh is the same.

        Raises:
            ConfigError: the node isn't there or isn't ready, in which case Kilo too would leave the rules as they are;
                or its objects can't be read. ParseError: they are no YAML or JSON.
        """
        self._given = self._current()
        return self._given

    def _current(self) -> Ruleset:
        objects = self._reader.read()
        if objects is not self._objects:
            try:
                self._cluster = self._parser.parse(objects)
            except ConfigError as error:
                raise in_file(error, self._reader.name) from error
            self._objects = objects
        topology = self._seen()
        if self._clock is not None:
            self._clock.tell_at(topology.expires)
        if not topology.same(self._topology):
            self._ruleset = ruleset_of(topology, self._firewall, language=self._declaration.language)
        self._topology = topology
        return self._ruleset

    def _seen(self) -> Topology:
        now = self._hour()
        settings = self._declaration.settings()
        try:
            return topology_of(self._cluster, self._node, self._mesh, now=now)
        except NotReadyError as error:
            passed_over = [told for told in self._cluster.warnings if told.startswith(f"Node {self._node}: ")]
            raise settings.error(
                f"{error} (in {'; '.join((self._reader.name, *passed_over))}), so nothing is known of its rules",
                key="node",
                expected="a Node with endpoint, key and pod network that checks in",
            ) from error

    def _hour(self) -> int:
        """The Unix second by which Nodes are judged."""
        if self._now is not None:
            return self._now
        return int(time.time() if self._live is None else self._live.now())

    def changes(self) -> Changes | None:
        """Word of changes of the objects, and of the hour: nodes that don't check in count no longer after a while."""
        if self._told is None:
            told = self._reader.changes()
            if told is None:
                return None
            if self._now is None and self._live is None:
                with suppress(OSError):
                    self._clock = Clock()
                if self._clock is None:
                    return None
            self._told = _Told(told, self._clock, self._differs)
        return self._told

    def _differs(self) -> bool:
        """Whether the next load may give something else: a node that checks in again changes nothing."""
        try:
            return self._current() is not self._given
        except MeshfwError:
            return True  # which the load will raise

    def close(self) -> None:
        """Give back what reader, clock and listening hold."""
        if self._told is not None:
            self._told.close()
            self._told = None
        if self._clock is not None:
            self._clock.close()
            self._clock = None
        self._reader.close()


class _Told:
    """Word of several things behind one descriptor, an epoll(7) instance: the reader's changes, and the clock."""

    def __init__(self, reader: Changes, clock: Clock | None, differs: Callable[[], bool]) -> None:
        self._parts: dict[int, Changes] = {part.fileno(): part for part in (reader, clock) if part is not None}
        self._differs = differs
        self._poll = select.epoll()
        for descriptor in self._parts:
            self._poll.register(descriptor, select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return -1 if self._poll.closed else self._poll.fileno()

    def drain(self) -> bool:
        """Take note of what there is, and whether the rules differ by it."""
        told = [self._parts[descriptor].drain() for descriptor, _ in self._poll.poll(0)]
        return any(told) and self._differs()

    def close(self) -> None:
        """Give the descriptor back."""
        self._poll.close()


# --- configuration -----------------------------------------------------------------------------------------


def open_reader(settings: Settings, declaration: Declaration | None = None) -> Reader:
    """The reader that ``objects`` or ``kubernetes`` asks for."""
    path = settings.take("objects", str, "", expected="the path of a file of Kubernetes objects")
    live = settings.take("kubernetes", bool, False)
    if bool(path) == live:
        raise settings.error(
            "objects and kubernetes are both given" if live else "no cluster is named",
            expected='objects = "FILE" or kubernetes = true',
        )
    if not live:
        return FileReader(path if declaration is None else declaration.beside(path))
    from meshfw_kilo.kubernetes import open_cluster

    return open_cluster(settings, declaration)


def mesh_of(settings: Settings) -> Mesh:
    """The options that decide how nodes make a topology."""
    defaults = Mesh()
    text = settings.take("subnet", str, str(defaults.subnet), expected=_CIDR)
    stale_after = settings.take("stale-after", int, STALE_AFTER, expected="whole seconds")
    if stale_after < 1:
        raise settings.error(f"{stale_after} is no time", key="stale-after", expected="seconds, 1 or more")
    return Mesh(
        granularity=settings.choice("mesh-granularity", Granularity, defaults.granularity),
        subnet=_cidr(settings, "subnet", text),
        pod_cidrs=settings.choice("pod-cidrs", PodCidrs, defaults.pod_cidrs),
        stale_after=stale_after,
    )


def firewall_of(settings: Settings) -> Firewall:
    """The options that decide which rules a topology makes."""
    defaults = Firewall()
    forward = settings.take("iptables-forward-rules", bool, defaults.forward_rules)
    return Firewall(
        cni=settings.take("cni", bool, defaults.cni),
        forward_rules=forward,
        encapsulate=settings.choice("encapsulate", Encapsulation, defaults.encapsulate),
        local=settings.take("local", bool, defaults.local),
        compatibility=_compatibility(settings),
        service_cidrs=tuple(_cidr(settings, "service-cidr", text) for text in _listed(settings, "service-cidr")),
        compact=settings.take("compact", bool, defaults.compact),
        input_place=settings.choice("input-place", Place, defaults.input_place),
    )


def _compatibility(settings: Settings) -> Compatibility:
    text = settings.take("compatibility", str, "")
    try:
        return Compatibility(text)
    except ValueError:
        expected = '"flannel", "cilium" or "" for none'
        raise settings.error(f"unknown compatibility {text!r}", key="compatibility", expected=expected) from None


def _listed(settings: Settings, key: str) -> list[str]:
    """The texts of an option that Kilo takes several times, or with commas in between; an empty one stands for none."""
    return [part.strip() for text in settings.strings(key) if text for part in text.split(",")]


def _cidr(settings: Settings, key: str, text: str) -> Cidr:
    cidr = Cidr.parse(text)
    if cidr is None:
        raise settings.error(f"{text!r} is no network", key=key, expected=_CIDR)
    return cidr


def _fixed_clock(settings: Settings) -> int | None:
    """The Unix second that is always now; None: the clock's."""
    value = settings.any("now")
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and isfinite(value):
        return int(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return int(value.timestamp())
    raise settings.error(
        f"{str(value)!r} is no moment",
        key="now",
        expected="whole Unix seconds, or a date and time with offset, such as 2026-01-31T12:00:00Z without quotes",
    )
