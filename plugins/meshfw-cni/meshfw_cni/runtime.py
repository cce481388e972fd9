"""A small container runtime: chains of CNI plugins, run as libcni runs them, for trials and measurements.

It keeps in memory what libcni caches: the result of each addition.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import msgspec

PLUGINS: Final = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins are."""


class Answer(msgspec.Struct, frozen=True):
    """What a plugin answered: its exit code, the object on standard output (None where it printed none), its log."""

    code: int
    value: Any
    log: str

    @property
    def problem(self) -> int:
        """The number of the error; 0 where there was none."""
        return int(self.value["code"]) if self.code else 0


def call(
    command: str, plugin: Sequence[str], config: Mapping[str, Any], *, variables: Mapping[str, str] | None = None
) -> Answer:
    """Run one plugin, a command line, in the network namespace of the calling thread."""
    environment = {**os.environ, "CNI_COMMAND": command, "CNI_PATH": PLUGINS, **(variables or {})}
    done = subprocess.run(  # noqa: S603 - a list, of a program that whoever calls has named
        plugin, input=json.dumps(config), capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    return Answer(done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr)


class Place(msgspec.Struct, frozen=True):
    """Where a plugin is to work: the container, its network namespace's path, and the interface in it."""

    container: str = ""
    netns: str = ""
    interface: str = "eth0"


NOWHERE: Final = Place()
"""For commands that are about no container."""


class RefusedError(Exception):
    """A plugin of a chain failed: which one, and its answer."""

    def __init__(self, plugin: str, answer: Answer) -> None:
        super().__init__(plugin, answer)
        self.plugin = plugin
        self.answer = answer


class Chain:
    """One network of a host: its name, its chain of plugins, and the results of what was added.

    ``programs`` says which command line runs a type of plugin, where it isn't a file of ``PLUGINS``; ``host`` enters
    the host's network namespace.
    """

    def __init__(
        self,
        name: str,
        plugins: Sequence[Mapping[str, Any]],
        *,
        version: str = "1.0.0",
        programs: Mapping[str, Sequence[str]] | None = None,
        host: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.name = name
        self.plugins = tuple(plugins)
        self.version = version
        self.results: dict[tuple[str, str], Any] = {}
        self._programs = programs or {}
        self._host = host

    def add(self, container: str, netns: str, *, interface: str = "eth0", **runtime: Any) -> Any:
        """Add a container: the chain's result. ``runtime`` is what is passed on to plugins that have the capability.

        Raises:
            RefusedError: a plugin failed.
        """
        result = None
        place = Place(container, netns, interface)
        for plugin in self.plugins:
            result = self._run("ADD", plugin, self.config(plugin, result=result, **runtime), place).value
        self.results[container, interface] = result
        return result

    def delete(self, container: str, netns: str = "", *, interface: str = "eth0", **runtime: Any) -> None:
        """Delete a container, by the chain in reverse with the result of its addition; errors as for :meth:`add`."""
        result = self.results.get((container, interface))
        place = Place(container, netns, interface)
        for plugin in reversed(self.plugins):
            self._run("DEL", plugin, self.config(plugin, result=result, **runtime), place)
        self.results.pop((container, interface), None)

    def one(self, command: str, kind: str, place: Place = NOWHERE, *, result: bool = True, **keys: Any) -> Answer:
        """The answer of one plugin of the chain, whatever it is; ``keys`` come on top of its configuration."""
        plugin = next(entry for entry in self.plugins if entry["type"] == kind)
        known = self.results.get((place.container, place.interface)) if result else None
        return self._call(command, plugin, {**self.config(plugin, result=known), **keys}, place)

    def config(self, plugin: Mapping[str, Any], *, result: Any = None, **runtime: Any) -> dict[str, Any]:
        """The configuration that a plugin gets."""
        known = {key: value for key, value in runtime.items() if plugin.get("capabilities", {}).get(key)}
        config = {**plugin, "cniVersion": self.version, "name": self.name}
        if known:
            config["runtimeConfig"] = known
        if result is not None:
            config["prevResult"] = result
        return config

    def _run(self, command: str, plugin: Mapping[str, Any], config: Mapping[str, Any], place: Place) -> Answer:
        answer = self._call(command, plugin, config, place)
        if answer.code:
            raise RefusedError(plugin["type"], answer)
        return answer

    def _call(self, command: str, plugin: Mapping[str, Any], config: Mapping[str, Any], place: Place) -> Answer:
        names = {"CNI_CONTAINERID": place.container, "CNI_NETNS": place.netns, "CNI_IFNAME": place.interface}
        program = self._programs.get(plugin["type"], (os.path.join(PLUGINS, plugin["type"]),))
        with self._host():
            return call(command, program, config, variables=names)
