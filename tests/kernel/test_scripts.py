"""Laws of scripts and of commands in dumps: what they leave is what iptables leaves, and they fail where it fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshfw.errors import ParseError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.languages.dump import format_dump, parse_dump
from meshfw.languages.script import parse_script
from meshfw.model import Family
from meshfw.sources.hosts import host_tables
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

LANGUAGE: Final = Language.of(builtin_extensions(), hosts=host_tables())
TOOLS: Final = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}
EMPTY: Final = "".join(f"*{table}\nCOMMIT\n" for table in ("filter", "nat", "mangle", "raw")).encode()


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[Netns]:
    """A namespace for all examples: each begins with empty tables and ACCEPT as every policy."""
    requires("iptables-legacy-restore", "ip6tables-legacy-restore")
    with kernel_room() as made:
        yield made


def emptied() -> None:
    for tool in TOOLS.values():
        run((f"{tool}-restore",), timeout=10, input=EMPTY)
        for chain in ("INPUT", "FORWARD", "OUTPUT"):
            run((tool, "-P", chain, "ACCEPT"), timeout=10)


def saved(family: Family) -> dict[str, list[str]]:
    """The lines of each table that holds anything, in the order of iptables-save, counters of policies left out."""
    return by_table(run((f"{TOOLS[family]}-save",), timeout=10).stdout)


def by_table(text: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            lines = tables[line] = []
        elif not line.startswith("#") and line != "COMMIT":
            lines.append(re.sub(r" \[\d+:\d+\]$", "", line))
    return {
        name: lines for name, lines in tables.items() if any(" ACCEPT" not in line or "-A" in line for line in lines)
    }


def folded(script: str) -> tuple[dict[Family, dict[str, list[str]]], int]:
    """What a script leaves by our account, or the line where it fails."""
    try:
        dumps = parse_script(script, language=LANGUAGE)
    except ParseError as error:
        return {}, error.line
    return {family: by_table(format_dump(dump, language=LANGUAGE)) for family, dump in dumps.items()}, 0


def done(script: str) -> tuple[dict[Family, dict[str, list[str]]], int]:
    """What a shell and the kernel make of it: what is saved afterwards, or the line where it failed."""
    emptied()
    told = ["exec 3>&1 >/dev/null"]
    before = ""
    for number, line in enumerate(script.splitlines(), 1):
        told += [line] if before.endswith("\\") else [f"echo {number} >&3", line]
        before = line
    ended = run(("sh", "-e", "-c", "\n".join(told)), timeout=30, check=False)
    if ended.returncode:
        return {}, int(ended.stdout.split()[-1])
    return {family: saved(family) for family in Family}, 0


def agreed(script: str) -> None:
    """The law itself; ``v4`` and ``v6`` in a script stand for the two tools."""
    script = re.sub(r"\bv4 ", "iptables-legacy ", re.sub(r"\bv6 ", "ip6tables-legacy ", script))
    ours, failed = folded(script)
    theirs, failed_there = done(script)
    assert failed == failed_there, script
    for family in Family:
        assert ours.get(family, {}) == theirs.get(family, {}), script


SCRIPTS: Final = [
    "v4 -A INPUT -j DROP -t mangle\nv4 -t nat -I PREROUTING -p tcp --dport 80 -j REDIRECT --to-port 8080",
    "v4 --append=INPUT --source 10.0.0.1,10.0.0.2 --dest 10.1,10/8 --jum ACCEPT",
    "v4 -I FORWARD -s 1.1.1.1,2.2.2.2 -j ACCEPT\nv4 -I FORWARD 2 -s 3.3.3.3/31,4.4.4.4",
    "v4 -A FORWARD -s 10.0.0.1/24,10.0.0.2/24\nv4 -D FORWARD -s 10.0.0.9/24,10.0.0.1/24",
    "v4 -A FORWARD -s 0 -d 0/0\nv4 -A FORWARD -s 010.1.1.1 -d 0x0a000001",
    "v4 -A FORWARD -s 10.256 -d 10.1.256\nv4 -A FORWARD -s 10.0.0.1/255.0.255.0 -d 10.1/0x10",
    "v4 -A FORWARD -s any/0 -d 10.1.2/010\nv6 -A FORWARD -s any/0 -d 2001:db8::1/ffff::",
    "v4 -A FORWARD ! -s 0/0\nv6 -A FORWARD ! -d ::/0 -s 2001:db8::/16,::1",
    "v4 -N a\nv4 -N b\nv4 -A a -g b\nv4 -E b c\nv4 -A INPUT -j a",
    "v4 -N a\nv4 -A a\nv4 -X a",
    "v4 -N a\nv4 -A INPUT -j a\nv4 -F a\nv4 -X a",
    "v4 -N a\nv4 -N b\nv4 -A b -j a\nv4 -X",
    "v4 -N a\nv4 -N b\nv4 -X\nv4 -X a || true",
    "v4 -N a\nv4 -N a",
    "v4 -N LOG",
    "v4 -N abcdefghijklmnopqrstuvwxyzab\nv4 -N abcdefghijklmnopqrstuvwxyzabc",
    "v4 -A INPUT -j nosuch",
    "v4 -A INPUT -g nosuch",
    "v4 -A INPUT -o lo",
    "v4 -A OUTPUT ! -i lo",
    "v4 -P INPUT DROP\nv4 -P OUTPUT REJECT",
    "v4 -t nat -P OUTPUT DROP",
    "v4 -t nat -A OUTPUT -j DROP",
    "v4 -t nat -A FORWARD -j ACCEPT",
    "v4 -A INPUT\nv4 -D INPUT 2",
    "v4 -A INPUT\nv4 -R INPUT 1 -s 1.1.1.1 -j DROP\nv4 -R INPUT 1 -s 1.1.1.1,2.2.2.2",
    "v4 -A INPUT -p tcp --dport 22 -j ACCEPT\nv4 -C INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
    "v4 -A INPUT -p tcp -m tcp\nv4 -D INPUT -p tcp",
    "v4 -C INPUT -j DROP 2>/dev/null || v4 -A INPUT -j DROP\nv4 -nvL >/dev/null 2>&1",
    "v4 -C INPUT -j DROP && v4 -D INPUT -j DROP\nv4 -A INPUT",
    "v4 -A INPUT -m comment --comment 'it'\\''s \"$so\"' -j DROP; v4 -A INPUT \\\n -s 1.1.1.1 # here",
    "v4 -w 5 -t raw -A OUTPUT -p udp --dport domain -v -j ACCEPT\nv4 -wA INPUT -w -j DROP",
    "v4 -A INPUT -n -j ACCEPT",
    "v4 -F nosuch",
    "v4 -L nosuch",
    "v4 -tmangle -F\nv4 -AINPUT -4 -p IPV6-ICMP\nv4 -A INPUT -p mh\nv4 -A INPUT ! -p 0x6",
    "v4 -A INPUT -6 -j ACCEPT",
    "v4 -A INPUT ! -s 1.1.1.1 -d 2.2.2.2,3.3.3.3",
    "v4 -A INPUT -s 1.1.1.1 -s 2.2.2.2",
    "v4 -A INPUT -i ''",
    "v4 -A INPUT 1 -j ACCEPT",
    "v4 -A INPUT -A INPUT",
    "v4 -D INPUT -c 1 2",
    "v4 -F INPUT -j DROP",
    "v4 -Z && v4 -L -Z && v4 -A INPUT",
    "v4 -I INPUT 0",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_leaves_what_iptables_leaves_and_fails_where_it_fails(room: Netns, script: str) -> None:
    with room.entered():
        agreed(script)


CHAINS: Final = ("one", "two", "three")
RULES: Final = st.sampled_from(
    (
        "-s 10.0.0.1",
        "-p tcp --dport 80",
        "-s 10.0.0.1,10.0.0.2 -d 10.1",
        "-i lo -m limit",
        "-p udp -m mark --mark 1",
        "",
    )
)


@st.composite
def commands(draw: st.DrawFn) -> str:
    """One command that may well fail: chains and rules are few, so that they meet."""
    chain = draw(st.sampled_from(("INPUT", "FORWARD", *CHAINS)))
    own = draw(st.sampled_from(CHAINS))
    # A chain leads to a later one only: the kernel refuses circles, and not at the command that closes them.
    later = CHAINS[CHAINS.index(chain) + 1 :] if chain in CHAINS else CHAINS
    target = draw(st.sampled_from(("-j ACCEPT", "-j RETURN", "", *(f"-j {name}" for name in later))))
    rule = f"{draw(RULES)} {target}"
    number = draw(st.integers(1, 4))
    command = draw(
        st.sampled_from(
            [f"-N {name}" for name in CHAINS]
            + [f"-A {chain} {rule}"] * 6
            + [f"-I {chain} {rule}", f"-I {chain} {number} {rule}", f"-D {chain} {rule}", f"-D {chain} {number}"]
            + [f"-R {chain} {number} {rule}", f"-C {chain} {rule}", f"-F {chain}", f"-X {own}", "-X", "-F"]
            + [f"-P {chain} DROP", f"-Z {chain}", "-S"]
        )
    )
    return f"v4 {command}"


@given(st.lists(commands(), min_size=1, max_size=14), st.lists(st.booleans(), min_size=14, max_size=14))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_commands_leave_what_iptables_leaves(room: Netns, lines: list[str], forgiving: list[bool]) -> None:
    started = [f"v4 -N {name}" for name in CHAINS]
    script = "\n".join(
        started + [f"{line} || true" if forgive else line for line, forgive in zip(lines, forgiving, strict=False)]
    )
    with room.entered():
        agreed(script)


DUMPS: Final = [
    ":INPUT DROP\n:a - [0:0]\n-A INPUT -j a\n-I a 1 -s 1.1.1.1\n-R a 1 -s 2.2.2.2\n-P FORWARD DROP\n-N b\n-X b",
    "-A INPUT -4 -s 1.1.1.1\n-6 -A INPUT -s ::1\n-A FORWARD -v -j DROP\n--ipv4 -A INPUT -j DROP",
    "-A INPUT -s 1.1.1.1,2.2.2.2\n-D INPUT -s 2.2.2.2\n-I INPUT 1 -d 3.3.3.3\n-D INPUT 2\n-A INPUT -p 0",
    ":a - [0:0]\n-A a\n-X a",
    "-t nat -A INPUT",
    "-w -A INPUT",
    "-A INPUT -n",
    '"-A" INPUT "!" -s 1.1.1.1 "-j" ACCEPT',
    ":INPUT - [0:0]\n-A INPUT -j DROP",
    ":a ACCEPT [0:0]",
    ":a",
    "-D INPUT -j ACCEPT",
    "-A a -j ACCEPT",
    "-C INPUT",
    "-E a b",
    "-A INPUT --bogus -6",
    "-6 -A INPUT --bogus",
    "-A INPUT -s 1.1.1.1 stray",
    '-A INPUT -m comment --comment "a \\"b\\" \'" -j ACCEPT',
    "-Z\n-L\n-A INPUT -s 10.1",
]


@pytest.mark.parametrize("lines", DUMPS)
def test_a_dump_with_commands_leaves_what_iptables_restore_leaves(room: Netns, lines: str) -> None:
    dump = f"*filter\n{lines}\nCOMMIT\n"
    with room.entered():
        emptied()
        there = run(("iptables-legacy-restore",), timeout=10, input=dump.encode(), check=False)
        theirs = saved(Family.IPV4)
    if there.returncode:
        with pytest.raises(ParseError):
            parse_dump(dump, family=Family.IPV4, language=LANGUAGE)
        return
    ours = by_table(format_dump(parse_dump(dump, family=Family.IPV4, language=LANGUAGE), language=LANGUAGE))
    assert {name: sorted(held(lines)) for name, lines in ours.items()} == {
        name: sorted(held(lines)) for name, lines in theirs.items()
    }
    assert [line for lines in ours.values() for line in lines if line.startswith("-A")] == [
        line for lines in theirs.values() for line in lines if line.startswith("-A")
    ] or len(ours) > 1


def held(lines: list[str]) -> list[str]:
    """Lines without those of built-in chains that state nothing."""
    return [line for line in lines if not re.match(r":[A-Z]+ ACCEPT", line)]
