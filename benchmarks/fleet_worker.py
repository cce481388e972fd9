"""A part of a simulated fleet in a process of its own: a line on standard input asks, and a line of JSON answers.

The nodes are the source's real ones: client, watch, parser, cache and acknowledgements. What a kernel would do is left
out: a node takes a release at once, unless its rules are those made to fail.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, Final

from meshfw_etcd.client import Access
from meshfw_etcd.keys import Keys
from meshfw_etcd.simulation import Crew

from meshfw import Language, Ruleset, builtin_extensions, host_tables

BAD: Final = "bad"
"""The name of a chain that no node takes."""
_STACK: Final = 256 * 1024


def opinion(_name: str, _release: int, rules: Ruleset) -> str:
    """What a node makes of its rules."""
    return "simulated failure" if any(chain.key.name == BAD for chain in rules.chains) else ""


def memory() -> int:
    """The resident kilobytes of this process (proc(5), VmRSS)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def told(crew: Crew, release: int) -> dict[str, Any]:
    """What there is to know of a release: when nodes heard of it and took it, who was ever given it, who holds it."""
    nodes = crew.nodes.values()
    return {
        "taken": [node.times[release] for node in nodes if release in node.times],
        "seen": [node.name for node in nodes if release in node.seen],
        "holds": sum(node.holds == release for node in nodes),
        "empty": sum(node.rules is None or not node.rules.chains for node in nodes),
        "rung": [node.rung for node in nodes],
        "memory": memory(),
        "cpu": time.process_time(),
    }


def main() -> None:
    """Run the nodes that the command line names until standard input ends."""
    endpoint, first, count, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    threading.stack_size(_STACK)
    language = Language.of(builtin_extensions(), hosts=host_tables())
    bare = memory()
    names = [f"node-{number:05d}" for number in range(first, first + count)]
    options = {"heartbeat": 30}
    crew = Crew(
        Access(endpoints=(endpoint,)),
        Keys(),
        names,
        language=language,
        directory=directory,
        opinion=opinion,
        options=options,
    )
    with crew:
        for line in sys.stdin:
            release = int(line)
            print(json.dumps({**told(crew, release), "bare": bare}), flush=True)
        os._exit(0)  # a thousand threads that wait for the network end with the process


if __name__ == "__main__":
    main()
