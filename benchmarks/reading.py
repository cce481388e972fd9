"""Rules read and printed a second: meshfw's language beside iptables' own tools, on the same rules."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.languages.dump import format_dump, parse_dump
from meshfw.languages.iptables import format_rule, parse_rules
from meshfw.languages.script import parse_script
from meshfw.model import Family
from meshfw.testing.netns import Netns, available

FORMS: Final = (
    "-p tcp -m tcp --dport {port} -m conntrack --ctstate NEW -m comment --comment x -j ACCEPT",
    "-s 10.4.{high}.0/24 -d 10.5.{high}.{low} -i eth0 -p tcp --dport {port} -j ACCEPT",
    '-m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "known, {port}" -j ACCEPT',
    "-s 10.6.{high}.{low} -j DROP",
    "-p udp -m multiport --dports 53,{port} -j RETURN",
    "-p tcp --tcp-flags SYN,RST SYN -d 10.7.{high}.{low}/32 -j REJECT",
)
"""Rules as people write them; each counts on its numbers."""
_PATIENCE: Final = 300.0
_PROCESSES: Final = 50


def rules(count: int) -> list[str]:
    """So many rules, no two alike."""
    return [
        FORMS[index % len(FORMS)].format(port=index % 60000 + 1, high=index // 200 % 250, low=index % 200 + 1)
        for index in range(count)
    ]


def rate(count: int, work: Callable[[], object], *, repeats: int = 3) -> float:
    """Rules a second of the best of a few times; a clock of this process and its children would miss waiting."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return count / best


def contests(count: int) -> dict[str, float]:
    """Rules a second of each contestant."""
    language = Language.of(builtin_extensions())
    listed = rules(count)
    dump = "".join(("*filter\n", *(f"-A FORWARD {rule}\n" for rule in listed), "COMMIT\n"))
    script = "".join(f"iptables -A FORWARD {rule}\n" for rule in listed)

    def canonical() -> None:
        for rule in listed:
            for made in parse_rules(rule, family=Family.IPV4, language=language):
                format_rule(made, family=Family.IPV4, language=language)

    def whole() -> None:
        format_dump(parse_dump(dump, family=Family.IPV4, language=language), language=language)

    found = {
        "meshfw: rules read and printed": rate(count, canonical),
        "meshfw: a dump read and printed": rate(count, whole),
        "meshfw: a script folded": rate(count, lambda: parse_script(script, language=language)),
    }
    with Netns() as room, room.entered():
        restore = ("iptables-legacy-restore", "--test")
        found["iptables-legacy-restore --test, one process"] = rate(
            count, lambda: run(restore, timeout=_PATIENCE, input=dump.encode())
        )

        def each(tool: str, some: Sequence[Sequence[str]]) -> None:
            for words in some:
                run((tool, "-A", "FORWARD", *words), timeout=_PATIENCE)

        some = [rule.replace('"', "").replace(", ", "-").split() for rule in listed[:_PROCESSES]]
        for tool in ("iptables-translate", "iptables-legacy"):
            found[f"{tool}, a process for each rule"] = rate(len(some), partial(each, tool, some))
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the table; the one argument is how many rules."""
    reason = available()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    count = int(arguments[0]) if arguments else 10_000
    for name, speed in contests(count).items():
        print(f"{name:<50} {speed:>10,.0f} rules/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
