"""A fleet of simulated nodes on one etcd: how fast a release comes to all, its costs, and what no trouble changes.

    python -m benchmarks.fleet [--agents 1000] [--workers 2] [--smoke]

All of it is in a network namespace of its own. The times are of this machine, where store and nodes share the cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

from meshfw_etcd.beginning import Wish, begin
from meshfw_etcd.client import Client
from meshfw_etcd.fleet import read_acks, read_fleet
from meshfw_etcd.keys import Keys
from meshfw_etcd.pushing import Outcome, Pusher
from meshfw_etcd.stages import Canaries, stages_of
from meshfw_etcd.testing import Server

from benchmarks.fleet_worker import BAD
from meshfw.kernel.command import run
from meshfw.testing.netns import Netns, available

TARGETS: Final = {"have it": 3.0, "acknowledged": 10.0}
"""Seconds within which 1,000 nodes are to have 20 kB of rules, and to have acknowledged them."""
SIZE: Final = 20_000
_PATIENCE: Final = 120.0


def rules(release: int, *, chain: str = "fleet", size: int = SIZE) -> str:
    """Rules of about so many bytes, others for each release."""
    head = f'[[chain]]\nname = "{chain}"\nfamilies = "ipv4"\nattach = {{ hook = "input" }}\nrules = [\n'
    lines: list[str] = []
    length = len(head)
    while length < size:
        number = len(lines)
        line = (
            f'  "-s 10.{release % 250}.{number // 250}.{number % 250} -p tcp --dport {1024 + number} '
            '-m conntrack --ctstate NEW -j ACCEPT",\n'
        )
        lines.append(line)
        length += len(line)
    return f"{head}{''.join(lines)}]\n"


class Bench:
    """The store, the workers, and what is asked of them."""

    def __init__(self, agents: int, workers: int, *, directory: Path, sync: bool, size: int, pause: float) -> None:
        self.agents = agents
        self.size = size
        self.pause = pause
        self.directory = directory
        self.keys = Keys()
        self.server = Server(directory, options=() if sync else ("--unsafe-no-fsync",))
        self._counts = [agents // workers + (number < agents % workers) for number in range(workers)]
        self._workers: list[subprocess.Popen[str]] = []

    @contextmanager
    def running(self) -> Iterator[Bench]:
        """The store and all nodes, until the block ends."""
        with self.server:
            first = 0
            try:
                for count in self._counts:
                    command = [sys.executable, "-m", "benchmarks.fleet_worker", self.server.endpoint]
                    command += [str(first), str(count), str(self.directory)]
                    self._workers.append(
                        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                    )
                    first += count
                yield self
            finally:
                for worker in self._workers:
                    worker.kill()
                    worker.communicate()

    def told(self, release: int) -> dict[str, Any]:
        """What all workers tell of a release, as one."""
        for worker in self._workers:
            if worker.stdin is not None:
                worker.stdin.write(f"{release}\n")
                worker.stdin.flush()
        found = [json.loads(worker.stdout.readline()) for worker in self._workers if worker.stdout is not None]
        return {name: [part[name] for part in found] for name in found[0]}

    def push(self, text: str, *, at_once: bool = True) -> Outcome:
        """Roll a release out as ``meshfw fleet push`` does."""
        with Client(self.server.access) as client:
            wish = Wish(
                rules=text,
                canaries=Canaries(),
                stages=stages_of("1,10%,100%"),
                timeout=_PATIENCE,
                soak=0.5,
                at_once=at_once,
            )
            fleet = read_fleet(client, self.keys)
            hold, release = begin(client, self.keys, fleet, wish, patience=_PATIENCE)
            return Pusher(
                client, self.keys, hold, text=release, patience=_PATIENCE, tell=lambda line: print(f"  {line}")
            ).run()

    def settled(self, release: int) -> float:
        """The seconds until all nodes have acknowledged a release."""
        began = time.monotonic()
        with Client(self.server.access) as client:
            while time.monotonic() - began < _PATIENCE:
                acks = read_acks(client, self.keys).values()
                if sum(ack.release == release for ack in acks) == self.agents:
                    return time.monotonic() - began
                if any(worker.poll() is not None for worker in self._workers):
                    break
                time.sleep(0.1)
        raise AssertionError(f"not all acknowledged release {release}")

    def store_memory(self) -> float:
        """The megabytes of the store (proc(5), VmRSS)."""
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdecimal() and str(self.directory).encode() in (process / "cmdline").read_bytes():
                    status = (process / "status").read_text(encoding="utf-8")
                    if status.startswith("Name:\tetcd\n"):
                        return int(status.partition("VmRSS:")[2].split()[0]) / 1000
        return 0.0


def measured(bench: Bench, *, pushes: int) -> Iterator[tuple[str, str, bool | None]]:
    """What was measured, each with its figure, and whether that is as it should be; None where there's no target."""
    empty = bench.store_memory()
    yield "store, empty", f"{empty:.0f} MB", None
    yield f"{bench.agents} nodes connected and waiting", f"{bench.settled(0):.1f} s", None
    have, taken, acked = [], [], []
    for release in range(1, pushes + 1):
        began = time.monotonic()
        outcome = bench.push(rules(release, size=bench.size))
        acked.append(time.monotonic() - began)
        told = bench.told(release)
        have.append(max(max(part) for part in told["rung"]) - began)
        taken.append(max(max(part) for part in told["taken"]) - began)
        yield f"push {release}: all nodes hold it", f"{sum(told['holds'])} of {bench.agents}", outcome.complete
    full = bench.agents >= 1000
    for what, times in (("have it", have), ("parsed it", taken), ("acknowledged", acked)):
        met = max(times) < TARGETS[what] if full and what in TARGETS else None
        yield f"until all {what}, {bench.size // 1000} kB", f"{median(times):.2f} s (most {max(times):.2f} s)", met
    told = bench.told(pushes)
    kilobytes = sum(told["memory"]) - sum(told["bare"])
    yield "memory of a node, with its rules, beyond a bare process", f"{kilobytes / bench.agents:.0f} kB", None
    yield "store, with all nodes", f"{bench.store_memory():.0f} MB", None
    yield from _troubles(bench, pushes)


def _troubles(bench: Bench, pushes: int) -> Iterator[tuple[str, str, bool | None]]:
    """The laws: nobody loses rules whatever the store does, all converge, and a bad release goes no further."""
    steps: Sequence[tuple[str, Callable[[], None], Callable[[], None]]] = (
        ("killed", bench.server.kill, bench.server.start),
        ("frozen", bench.server.freeze, bench.server.thaw),
        ("cut off", lambda: cut(bench.server.endpoint), mend),
    )
    release = pushes
    for what, hurt, heal in steps:
        hurt()
        time.sleep(bench.pause)
        told = bench.told(release)
        kept = sum(told["holds"]) == bench.agents and not sum(told["empty"])
        yield f"store {what}: nodes that keep their rules", f"{sum(told['holds'])} of {bench.agents}", kept
        began = time.monotonic()
        heal()
        release += 1
        outcome = bench.push(rules(release, size=bench.size))
        yield f"store {what}, and back: a new release is acknowledged by all after", _since(began), outcome.complete
    outcome = bench.push(rules(release + 1, chain=BAD, size=bench.size), at_once=False)
    seen = [name for part in bench.told(release + 1)["seen"] for name in part]
    well = outcome.phase == "halted" and sorted(seen) == sorted(outcome.tried) and len(seen) == 1
    yield "a release that fails on the canary is seen by", f"{len(seen)} of {bench.agents}", well
    bench.settled(release)
    held = sum(bench.told(release)["holds"])
    yield "afterwards the former one is held by", f"{held} of {bench.agents}", held == bench.agents


def cut(endpoint: str) -> None:
    """Have this namespace lose all packets from and to the store."""
    port = endpoint.rpartition(":")[2]
    script = "".join(f"add rule inet cut packets tcp {side} {port} drop\n" for side in ("dport", "sport"))
    chain = "add table inet cut\nadd chain inet cut packets { type filter hook input priority 0; }\n"
    run(("nft", "-f", "-"), timeout=10, input=f"{chain}{script}".encode())


def mend() -> None:
    """Have them pass again."""
    run(("nft", "delete", "table", "inet", "cut"), timeout=10)


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a law or a target isn't met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="processes that the nodes share")
    parser.add_argument("--pushes", type=int, default=3)
    parser.add_argument("--sync", action="store_true", help="let the store wait for the disk")
    parser.add_argument("--smoke", action="store_true", help="50 nodes and few rules, for the laws alone")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.agents, options.workers, options.pushes = 50, 1, 1
    size, pause = (SIZE // 10, 0.3) if options.smoke else (SIZE, 3.0)
    reason = available()
    if reason is not None:
        print(f"nothing can be measured: {reason}; run as root", file=sys.stderr)
        return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missed = False
    with Netns() as room, room.entered(), tempfile.TemporaryDirectory() as directory:
        bench = Bench(
            options.agents, options.workers, directory=Path(directory), sync=options.sync, size=size, pause=pause
        )
        with bench.running():
            for what, figure, met in measured(bench, pushes=options.pushes):
                verdict = {True: "  as it should be", False: "  NOT as it should be", None: ""}[met]
                print(f"{what}: {figure}{verdict}", flush=True)
                missed = missed or met is False
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
