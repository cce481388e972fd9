"""Pods come and go: meshfw-cni beside the reference plugin firewall, ``python -m benchmarks.cni``.

Both are given the results of a bridge for pods of both families, in turns, each in a network namespace of its own where
so many pods stand already. The start of Python and the imports of that very call are measured apart, by a program that
does nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, Final

import msgspec
from meshfw_cni.runtime import PLUGINS, call

from meshfw.testing.netns import Netns, available

BACKENDS: Final = ("nft", "iptables-nft", "iptables-legacy")
FIREWALL: Final = (f"{PLUGINS}/firewall",)
OURS: Final = (sys.executable, "-c", "import sys; from meshfw_cni.main import main; sys.exit(main())")
SIZES: Final = (1, 10, 100)
TURNS: Final = 15
_FIRST: Final = 9_999  # the number of a pod that the others don't reach
TARGET: Final = 2.0
"""Times of the plugin firewall that an addition may take, without Python's start."""
_TELL_IMPORTS: Final = (
    "import sys; from meshfw_cni.main import main; main(); print('', *sys.modules, sep=',', file=sys.stderr)"
)


class Row(msgspec.Struct, frozen=True):
    """The medians of one backend and size, in milliseconds: the reference's, ours, and what Python takes of that.

    ``python`` is the bare interpreter, ``imports`` what importing adds to it.
    """

    backend: str
    pods: int
    command: str
    firewall: float
    whole: float
    python: float
    imports: float

    @property
    def work(self) -> float:
        """What is left of the whole without Python's start."""
        return self.whole - self.python - self.imports

    def __str__(self) -> str:
        parts = f"{self.python:5.0f} + {self.imports:3.0f} + {self.work:5.0f}"
        ratios = f"{self.work / self.firewall:5.2f} {self.whole / self.firewall:7.2f}"
        head = f"{self.backend:16} {self.pods:4} {self.command:4}"
        return f"{head} {self.firewall:8.1f} {self.whole:8.1f} = {parts} {ratios}"


class Side:
    """A plugin in a namespace of its own."""

    def __init__(self, plugin: Sequence[str], config: Mapping[str, Any], room: Netns, path: str) -> None:
        self._plugin, self._config, self._room, self._path = plugin, config, room, path

    def __call__(self, command: str, number: int) -> float:
        """Run a command for a pod: how long it took, in milliseconds."""
        return self._run(command, number)[0]

    def imports(self) -> str:
        """The modules that an addition imports, in order, with commas; the pod stays."""
        return self._run("ADD", _FIRST, (sys.executable, "-c", _TELL_IMPORTS))[1].strip().strip(",")

    def _run(self, command: str, number: int, plugin: Sequence[str] = ()) -> tuple[float, str]:
        third, fourth = divmod(number, 250)
        ips = [{"address": f"10.42.{third}.{fourth + 2}/16"}, {"address": f"fd00:42::{number + 2:x}/64"}]
        interfaces = [{"name": "cni0"}, {"name": "eth0", "sandbox": self._room.path}]
        result = {"cniVersion": "1.0.0", "interfaces": interfaces, "ips": [{**ip, "interface": 1} for ip in ips]}
        config = {**self._config, "cniVersion": "1.0.0", "name": "blue", "prevResult": result}
        names = {"CNI_CONTAINERID": f"{number:064x}", "CNI_NETNS": self._room.path, "CNI_IFNAME": "eth0"}
        with self._room.entered():
            start = time.perf_counter()
            answer = call(command, plugin or self._plugin, config, variables={**names, "PATH": self._path})
            took = time.perf_counter() - start
        if answer.code:
            raise RuntimeError(f"{self._plugin[0]} {command}: {answer.value or answer.log}")
        return took * 1000, answer.log


def started(program: str) -> float:
    """How long a program of Python's takes, in milliseconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


@contextmanager
def sides(backend: str, directory: str) -> Iterator[tuple[Side, Side]]:
    """The reference and ours, whose ``iptables`` are the backend's; to nft the reference goes by iptables-nft."""
    variant = "legacy" if backend == "iptables-legacy" else "nft"
    tools = os.path.join(directory, variant)
    os.makedirs(tools, exist_ok=True)
    for stem in ("iptables", "ip6tables"):
        for end in ("", "-save", "-restore"):
            link = os.path.join(tools, f"{stem}{end}")
            if not os.path.lexists(link):
                os.symlink(f"/usr/sbin/{stem}-{variant}{end}", link)
    path = f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"
    state = {"type": "meshfw-cni", "backend": backend, "dataDir": os.path.join(directory, backend)}
    with Netns() as theirs, Netns() as ours:
        yield (
            Side(FIREWALL, {"type": "firewall", "backend": "iptables"}, theirs, path),
            Side(OURS, state, ours, path),
        )


def measure(backend: str, sizes: Sequence[int], turns: int) -> Iterator[Row]:
    """The rows of one backend."""
    with tempfile.TemporaryDirectory() as directory, sides(backend, directory) as (reference, ours):
        loads = f"import {ours.imports()}"
        pods = 0
        for size in sizes:
            for number in range(pods, size - 1):
                reference("ADD", number)
                ours("ADD", number)
            pods = size - 1
            took: dict[str, list[float]] = {}
            for turn in range(turns):
                works: list[tuple[str, Callable[[], float]]] = [
                    ("python", lambda: started("pass")),
                    ("imports", lambda: started(loads)),
                ]
                for name, side in (("firewall", reference), ("ours", ours)):
                    works += [(f"{name} {command}", _once(side, command, 10_000 + turn)) for command in ("ADD", "DEL")]
                for name, work in works:
                    took.setdefault(name, []).append(work())
            found = {name: median(values) for name, values in took.items()}
            for command in ("ADD", "DEL"):
                yield Row(
                    backend=backend,
                    pods=size,
                    command=command,
                    firewall=found[f"firewall {command}"],
                    whole=found[f"ours {command}"],
                    python=found["python"],
                    imports=found["imports"] - found["python"],
                )


def _once(side: Side, command: str, number: int) -> Callable[[], float]:
    return lambda: side(command, number)


def main() -> int:
    """Measure and print; 1 where an addition misses the target."""
    options = argparse.ArgumentParser("python -m benchmarks.cni", description=__doc__)
    options.add_argument("--turns", type=int, default=TURNS)
    options.add_argument(
        "--pods", type=int, nargs="+", default=SIZES, help="pods that stand when one more comes or goes"
    )
    given = options.parse_args()
    reason = available()
    if reason is not None or not os.path.exists(FIREWALL[0]):
        print(f"nothing can be measured: {reason or 'containernetworking-plugins is missing'}", file=sys.stderr)
        return 1
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs have theirs
    print("medians in ms                 firewall meshfw-cni = python + imports + work   ratio: work, all")
    rows = []
    for backend in BACKENDS:
        for row in measure(backend, sorted(given.pods), given.turns):
            rows.append(row)
            print(row, flush=True)
    return int(any(row.command == "ADD" and row.work > TARGET * row.firewall for row in rows))


if __name__ == "__main__":
    sys.exit(main())
