"""Laws of legacy tables read in process: what iptables-save prints is what is read, and a tick misses nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshfw.errors import BackendError, KernelError
from meshfw.kernel import xtables as module
from meshfw.kernel.command import run
from meshfw.kernel.xtables import Blob, Xtables, XtChain, XtRule, parse
from meshfw.model import Family, Table
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.loopback import delivers
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

ROOT = Path(module.__file__).parents[2]
WORDS = {
    Family.IPV4: {"host": "10.4.0.7", "other": "10.4.0.8", "net": "10.4.0.0/16", "icmp": "icmp", "rst": "icmp-port"},
    Family.IPV6: {"host": "fd00::7", "other": "fd00::8", "net": "fd00::/64", "icmp": "ipv6-icmp", "rst": "icmp6-port"},
}


class Legacy:
    """The legacy tools of one family at work in a namespace: the writers and the independent witness."""

    def __init__(self, family: Family, netns: Netns, lock: Path) -> None:
        self.family = family
        self.namespace = netns
        self.words = WORDS[family]
        self._tool = "iptables-legacy" if family is Family.IPV4 else "ip6tables-legacy"
        self._env = {"XTABLES_LOCKFILE": str(lock)}

    def __call__(self, text: str) -> None:
        """Run the command lines of ``text``, each on a line of its own."""
        for line in text.format(**self.words).strip().splitlines():
            with self.namespace.entered():
                run((self._tool, "-w", "10", *line.split()), timeout=30, env=self._env)

    def restore(self, text: str) -> None:
        """Put tables into effect, in place of what was there."""
        data = text.format(**self.words).encode()
        with self.namespace.entered():
            run((f"{self._tool}-restore", "-w", "10"), timeout=30, input=data, env=self._env)

    def saved(self, table: Table) -> str:
        """What iptables-save prints of a table, with counters."""
        with self.namespace.entered():
            return run((f"{self._tool}-save", "-c", "-t", table), timeout=30, env=self._env).stdout


@pytest.fixture(params=list(Family))
def legacy(request: pytest.FixtureRequest, netns: Netns, requires: Callable[..., None], tmp_path: Path) -> Legacy:
    requires("iptables-legacy-restore", "ip6tables-legacy-restore")
    return Legacy(request.param, netns, tmp_path / "lock")


@pytest.fixture
def xtables(legacy: Legacy) -> Iterator[Xtables]:
    with Xtables(legacy.family, legacy.namespace.path) as opened:
        yield opened


def chain(xtables: Xtables, name: str, table: Table = Table.FILTER) -> XtChain:
    return xtables.parse(xtables.read(table))[name]


def rules(xtables: Xtables, name: str) -> tuple[XtRule, ...]:
    return chain(xtables, name).rules


# --- what is read ---

TABLES = """
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT DROP [11:22]
[3:4] -A PREROUTING -s {net} -j CT --notrack
-A OUTPUT -j ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:marks -
-A PREROUTING -j marks
-A marks -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xff
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
-A POSTROUTING -s {net} ! -d {net} -m comment --comment "leaves the mesh" -j MASQUERADE
-A PREROUTING -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353
COMMIT
*filter
:INPUT DROP [1:2]
:FORWARD DROP
:OUTPUT ACCEPT
:zone - [0:0]
:Apple -
:twenty-eight-characters-long -
:empty -
[5:6] -A INPUT -i lo -j ACCEPT
[18446744073709551615:9223372036854775808] -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -j zone
-A INPUT -g zone
-A INPUT -p {icmp} -j zone
-A INPUT -i eth+ -j zone
-A INPUT ! -i eth0 -j zone
-A INPUT -s {host} -j zone
-A INPUT -d {net} -m limit --limit 5/min -j LOG --log-prefix "in: "
-A INPUT -m multiport -p tcp --dports 22,80:90 -j twenty-eight-characters-long
-A INPUT -m comment --comment "no target at all"
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -j REJECT --reject-with {rst}-unreachable
-A FORWARD -m mark --mark 0x1/0xff -j Apple
-A OUTPUT -j zone
-A OUTPUT -o lo -j Apple
[7:8] -A zone -m statistic --mode nth --every 3 --packet 0 -j RETURN
-A zone -g Apple
-A Apple -m comment --comment marker
-A Apple -j twenty-eight-characters-long
-A twenty-eight-characters-long -j RETURN
COMMIT
*security
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A FORWARD -p tcp -j DROP
COMMIT
"""

Printed = tuple[str, str, int, int, list[tuple[int, int, str]]]


def printed(text: str) -> list[Printed]:
    """The chains that a dump prints: name, policy, counters and rules, each with counters and text."""
    chains: dict[str, Printed] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            name, policy, packets, octets = re.fullmatch(r":(\S+) (\S+) \[(\d+):(\d+)\]", line).groups()  # type: ignore[union-attr]  # no match is a failure
            chains[name] = (name, policy, int(packets), int(octets), [])
        elif line.startswith("["):
            packets, octets, name, rule = re.fullmatch(r"\[(\d+):(\d+)\] -A (\S+)( .*)?", line).groups()  # type: ignore[union-attr]  # no match is a failure
            chains[name][4].append((int(packets), int(octets), rule or ""))
    return list(chains.values())


def described(chain: XtChain) -> Printed:
    """A chain that was read as ``printed`` gives it, the texts of the rules left out."""
    policy = "-" if chain.policy is None else chain.policy.upper()
    return chain.name, policy, chain.packets, chain.bytes, [(rule.packets, rule.bytes, "") for rule in chain.rules]


def test_chains_policies_counters_and_numbers_of_rules_are_those_that_save_prints(
    legacy: Legacy, xtables: Xtables
) -> None:
    legacy.restore(TABLES)
    delivers(legacy.namespace.path, legacy.family)
    assert xtables.tables() == tuple(Table)
    read = 0
    for table in Table:
        chains = xtables.parse(xtables.read(table))
        expected = printed(legacy.saved(table))
        assert [described(chain) for chain in chains.values()] == [
            (*head, [(packets, octets, "") for packets, octets, _ in rules]) for *head, rules in expected
        ]
        assert list(chains) == [chain.name for chain in chains.values()]
        for chain in chains.values():
            assert chain.hook == (None if chain.policy is None else chain.name.lower())
        read += sum(len(chain.rules) for chain in chains.values())
    assert read == 29


def test_jumps_plain_jumps_and_equal_rules_are_those_of_the_text(legacy: Legacy, xtables: Xtables) -> None:
    legacy.restore(TABLES)
    bodies: dict[str, bytes] = {}
    plain = 0
    for table in Table:
        chains = xtables.parse(xtables.read(table))
        for name, _policy, _p, _o, texts in printed(legacy.saved(table)):
            for rule, (_packets, _octets, text) in zip(chains[name].rules, texts, strict=True):
                target = re.search(r" -[jg] (\S+)$", text)
                jump = target.group(1) if target and target.group(1) in chains else ""
                assert (rule.jump, rule.plain) == (jump, text == f" -j {jump}"), text
                assert bodies.setdefault(text, rule.body) == rule.body, text
                plain += rule.plain
    assert plain == 4
    assert len(set(bodies.values())) == len(bodies) == 28


def test_a_name_that_is_no_utf_8_is_read(legacy: Legacy, xtables: Xtables) -> None:
    name = os.fsdecode(b"caf\xe9")
    legacy(f"-N {name}\n-A INPUT -j {name}")
    assert (chain(xtables, name).rules, rules(xtables, "INPUT")[0].jump) == ((), name)


def test_a_large_table_is_read_whole(legacy: Legacy, xtables: Xtables) -> None:
    # more rules than readv takes at once, their counters moving
    lines = [f"-A BIG -p udp -m udp --dport {port}:65535" for port in range(1, 3001)]
    legacy.restore("\n".join(["*filter", ":BIG -", "-A OUTPUT -j BIG", *lines, "COMMIT\n"]))
    kept = xtables.read(Table.FILTER)
    assert len(xtables.parse(kept)["BIG"].rules) == 3000
    assert delivers(legacy.namespace.path, legacy.family)
    assert xtables.changed(Table.FILTER, kept) is None
    legacy("-R BIG 2999 -p tcp -m tcp --dport 4000")
    fresh = xtables.changed(Table.FILTER, kept)
    assert fresh is not None
    assert sum(rule.packets for rule in xtables.parse(fresh)["BIG"].rules) == 2999
    assert fresh.masked == xtables.read(Table.FILTER).masked


# --- looking makes nothing ---


def names(netns: Netns, family: Family) -> str:
    file = "ip_tables_names" if family is Family.IPV4 else "ip6_tables_names"
    with netns.entered():
        return Path("/proc/thread-self/net", file).read_text(encoding="ascii")


def test_looking_makes_no_table(legacy: Legacy, xtables: Xtables) -> None:
    assert xtables.tables() == ()
    for table in Table:
        for look in (xtables.info, xtables.read):
            with pytest.raises(KernelError, match="there is no such") as caught:
                look(table)
            assert caught.value.errno == errno.ENOENT
    assert [names(legacy.namespace, family) for family in Family] == ["", ""]


def test_a_table_is_seen_when_it_comes_and_brings_no_other(legacy: Legacy, xtables: Xtables) -> None:
    assert xtables.tables() == ()
    legacy("-t mangle -N A")
    assert xtables.tables() == (Table.MANGLE,)
    xtables.read(Table.MANGLE)
    with pytest.raises(KernelError):
        xtables.read(Table.FILTER)
    assert names(legacy.namespace, legacy.family) == "mangle\n"


def test_a_kernel_without_legacy_tables_has_none(netns: Netns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(module._NAMES, Family.IPV6, str(tmp_path / "ip6_tables_names"))
    with Xtables(Family.IPV6, netns.path) as xtables:
        assert xtables.tables() == ()
        assert xtables._socket is None  # even a socket might load a module
        (tmp_path / "ip6_tables_names").write_text("raw\nsomebody's own\n")
        assert xtables.tables() == (Table.RAW,)


def test_without_proc_nothing_is_claimed(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NET", "/proc/nosuch")
    monkeypatch.setitem(module._NAMES, Family.IPV4, "/proc/nosuch/ip_tables_names")
    with Xtables(Family.IPV4, netns.path) as xtables, pytest.raises(KernelError, match="mount /proc") as caught:
        xtables.tables()
    assert caught.value.errno == errno.ENOENT


def test_a_list_of_names_that_died_is_opened_again(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A")
    assert xtables.tables() == (Table.FILTER,)
    reader, writer = os.pipe()
    os.close(writer)
    os.dup2(reader, xtables._names)  # as good as the file of an unloaded module: it can't be read at an offset
    os.close(reader)
    assert xtables.tables() == (Table.FILTER,)


def test_looking_spawns_nothing(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A")
    with ProcessCounter() as counter:
        kept = xtables.read(Table.FILTER)
        found = xtables.tables(), xtables.info(Table.FILTER) == kept.info, xtables.changed(Table.FILTER, kept)
        xtables.parse(kept)
    assert found == ((Table.FILTER,), True, None)
    assert (counter.count.forks, counter.count.execs) == (0, 0)


# --- what a tick notices ---

BEFORE = """*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:A -
:B -
-A INPUT -j A
-A INPUT -s {host} -m comment --comment one -j ACCEPT
-A INPUT -p tcp -j DROP
-A INPUT -m comment --comment none
-A INPUT -p udp -m limit --limit 5/min -m quota --quota 1000000
-A FORWARD -g A
-A A -p udp -j B
-A A -j B
-A OUTPUT -j ACCEPT
COMMIT
"""

SAME_SIZE = {
    "another address": "-R INPUT 2 -s {other} -m comment --comment one -j ACCEPT",
    "another comment": "-R INPUT 2 -s {host} -m comment --comment two -j ACCEPT",
    "another verdict": "-R INPUT 3 -p tcp -j ACCEPT",
    "another limit": "-R INPUT 5 -p udp -m limit --limit 6/min -m quota --quota 1000000",
    "another interface": "-R A 1 -i lo -j B",
    "another jump": "-R INPUT 1 -j B",
    "a goto": "-R INPUT 1 -g A",
    "a jump": "-R FORWARD 1 -j A",
    "a jump to nowhere": "-R INPUT 1",
    "a policy": "-P FORWARD DROP",
    "another name": "-E B C",
    "swapped rules of one size": "-D A 1\n-A A -p udp -j B",
    "swapped rules of different size": "-D INPUT 2\n-I INPUT 3 -s {host} -m comment --comment one -j ACCEPT",
    "a rule in another chain": "-D OUTPUT 1\n-A FORWARD -j ACCEPT",
    "a rule over the border of chains": "-D OUTPUT 1\n-I OUTPUT -j ACCEPT -s {host}",
}
OTHER_SIZE = {
    "one more": "-A B -j RETURN",
    "one less": "-D A 1",
    "a new chain": "-N C",
    "a chain less": "-F A\n-D INPUT 1\n-D FORWARD 1\n-X A",
    "nothing left": "-F\n-X",
}


@pytest.mark.parametrize("edit", [*SAME_SIZE, *OTHER_SIZE])
def test_an_edit_is_noticed(legacy: Legacy, xtables: Xtables, edit: str) -> None:
    legacy.restore(BEFORE)
    kept = xtables.read(Table.FILTER)
    assert xtables.changed(Table.FILTER, kept) is None
    legacy((SAME_SIZE | OTHER_SIZE)[edit])
    delivers(legacy.namespace.path, legacy.family)  # counters move too
    fresh = xtables.changed(Table.FILTER, kept)
    assert fresh is not None
    assert fresh == xtables.read(Table.FILTER) != kept
    assert [described(c) for c in parse(fresh).values()] == [
        (*head, [(packets, octets, "") for packets, octets, _ in rules])
        for *head, rules in printed(legacy.saved(Table.FILTER))
    ]
    assert xtables.changed(Table.FILTER, fresh) is None
    assert (fresh.info.size == kept.info.size) is (edit in SAME_SIZE)
    legacy.restore(BEFORE)
    assert xtables.changed(Table.FILTER, kept) is None
    assert xtables.changed(Table.FILTER, fresh) is not None


def test_what_changes_nothing_is_not_noticed(legacy: Legacy, xtables: Xtables) -> None:
    legacy.restore(BEFORE)
    kept = xtables.read(Table.FILTER)
    counters = {kept.counters}
    for _ in range(3):
        assert delivers(legacy.namespace.path, legacy.family)
        assert xtables.changed(Table.FILTER, kept) is None
        counters.add(xtables.read(Table.FILTER).counters)
    assert len(counters) == 4
    for line in ("-R INPUT 3 -p tcp -j DROP", "-Z", "-S", "-C INPUT -j A", "-t nat -N A", "-I INPUT -j A\n-D INPUT 1"):
        legacy(line)
        assert xtables.changed(Table.FILTER, kept) is None, line
    assert xtables.changed(Table.FILTER, kept) is None
    legacy.restore(legacy.saved(Table.FILTER))
    assert xtables.changed(Table.FILTER, kept) is None


def test_an_accept_that_moves_over_the_border_of_two_chains_is_noticed(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-A INPUT -j ACCEPT")
    kept = xtables.read(Table.FILTER)
    legacy("-D INPUT 1\n-A FORWARD -j ACCEPT")
    fresh = xtables.changed(Table.FILTER, kept)
    assert fresh is not None
    assert (fresh.info.size, fresh.info.num_entries) == (kept.info.size, kept.info.num_entries)
    assert [len(chain.rules) for chain in parse(fresh).values()] == [0, 1, 0]


def test_the_shape_tells_of_rules_that_come_and_go_alone(legacy: Legacy, xtables: Xtables) -> None:
    legacy.restore(BEFORE)
    shape = xtables.info(Table.FILTER)
    assert len({shape, xtables.read(Table.FILTER).info}) == 1
    legacy("-P INPUT DROP")
    assert xtables.info(Table.FILTER) == shape
    legacy("-A INPUT")
    assert xtables.info(Table.FILTER) != shape


def test_a_blob_of_another_table_is_no_witness(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A\n-t security -N A")
    kept = xtables.read(Table.FILTER)
    assert kept.masked == xtables.read(Table.SECURITY).masked  # the hooks are the same
    fresh = xtables.changed(Table.SECURITY, kept)
    assert fresh is not None
    assert fresh.table is Table.SECURITY


def test_several_tables_and_blobs_are_watched_side_by_side(legacy: Legacy, xtables: Xtables) -> None:
    legacy.restore(TABLES)
    kept = {table: xtables.read(table) for table in Table}
    older = {table: xtables.read(table) for table in Table}
    for blobs in (kept, older, kept):
        assert [xtables.changed(table, blob) for table, blob in blobs.items()] == [None] * 5
    legacy("-t mangle -A marks")
    assert [table for table, blob in older.items() if xtables.changed(table, blob)] == [Table.MANGLE]


# --- rules ---


def test_a_body_stays_when_rules_and_chains_come_before_it(legacy: Legacy, xtables: Xtables) -> None:
    legacy.restore(BEFORE)
    before = {name: [rule.body for rule in rules(xtables, name)] for name in ("INPUT", "FORWARD", "A")}
    legacy("-N 0\n-A 0 -j A\n-I INPUT -j 0\n-I A -p tcp\n-I FORWARD -j B\n-A OUTPUT -j A")
    for name, bodies in before.items():
        assert [rule.body for rule in rules(xtables, name)[1:]] == bodies
    legacy("-E A Z")
    assert rules(xtables, "INPUT")[1].body != before["INPUT"][0]
    assert [rule.body for rule in rules(xtables, "INPUT")[2:]] == before["INPUT"][1:]


def test_jump_goto_and_name_tell_bodies_apart(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A\n-N B\n-A INPUT -j A\n-A INPUT -g A\n-A INPUT -j B\n-A INPUT\n-A INPUT -j RETURN\n-A INPUT -j A")
    found = rules(xtables, "INPUT")
    assert [(rule.jump, rule.plain) for rule in found] == [
        ("A", True),
        ("A", False),
        ("B", True),
        ("", False),
        ("", False),
        ("A", True),
    ]
    assert len({rule.body for rule in found}) == 5
    assert found[0].body == found[-1].body


# --- writers at work ---


def read_beside(legacy: Legacy, texts: tuple[str, str], look: Callable[[], Blob]) -> set[Blob]:
    """The different blobs that are found while a thread puts two tables into effect in turn."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            while not stop.is_set():
                for text in texts:
                    legacy.restore(text)
        except BaseException as error:  # noqa: BLE001 - looked at below, whatever it is
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    found: set[Blob] = set()
    try:
        for number in range(100_000):
            found.add(look())
            if number > 1000 and len(found) > 1:
                break
    finally:
        stop.set()
        thread.join()
    assert failed == []
    return found


def worded(count: int, word: str) -> str:
    lines = [f"-A W -p tcp -m comment --comment {word} -j ACCEPT" for _ in range(count)]
    return "\n".join(["*filter", ":W -", *lines, "COMMIT\n"])


@pytest.mark.parametrize("texts", [(worded(300, "odd"), worded(301, "odd")), (worded(300, "odd"), worded(300, "two"))])
def test_every_reading_beside_a_writer_is_one_state(legacy: Legacy, xtables: Xtables, texts: tuple[str, str]) -> None:
    expected = set()
    for text in texts:
        legacy.restore(text)
        expected.add(xtables.read(Table.FILTER))
    kept = xtables.read(Table.FILTER)

    def look() -> Blob:
        nonlocal kept
        kept = xtables.changed(Table.FILTER, kept) or kept
        return kept

    assert len(expected) == 2
    assert read_beside(legacy, texts, lambda: xtables.read(Table.FILTER)) == expected
    assert read_beside(legacy, texts, look) == expected


class Kernel:
    """The C library with some of its answers made up: the kernel's on a bad day."""

    def __init__(self, real: ctypes.CDLL) -> None:
        self._real = real
        self.memcmp = real.memcmp
        self.asked: list[int] = []
        self.grows = 0  # how often the table changes between two questions
        self.refuses = 0  # with which errno entries are refused
        self.zeroes = 1024  # how many counters readv zeroes at once
        self.interrupts = 0  # how often it's interrupted before it has zeroed any

    def getsockopt(self, descriptor: int, level: int, option: int, buffer: Any, length: Any) -> int:
        self.asked.append(option)
        if option == module._GET_ENTRIES and self.refuses:
            ctypes.set_errno(self.refuses)
            return -1
        result: int = self._real.getsockopt(descriptor, level, option, buffer, length)
        if option == module._GET_INFO and self.grows:
            self.grows -= 1
            buffer[36] = bytes([self.grows])  # an offset of a hook
        return result

    def readv(self, descriptor: int, vector: int, count: int) -> int:
        if self.interrupts:
            self.interrupts -= 1
            return -1
        zeroed: int = self._real.readv(descriptor, vector, min(count, self.zeroes))
        return zeroed


@pytest.fixture
def kernel(legacy: Legacy, xtables: Xtables) -> Kernel:
    legacy.restore(BEFORE)
    played = Kernel(xtables._libc)
    xtables._libc = played  # type: ignore[assignment]  # plays the part of it
    return played


def test_a_table_that_changes_between_the_questions_is_asked_again(xtables: Xtables, kernel: Kernel) -> None:
    kernel.grows = 4
    blob = xtables.read(Table.FILTER)
    assert blob.info == xtables.info(Table.FILTER)
    assert kernel.asked.count(module._GET_ENTRIES) == 5
    kernel.grows = 1
    assert xtables.changed(Table.FILTER, blob) is None


def test_asking_again_has_an_end(xtables: Xtables, kernel: Kernel) -> None:
    kernel.refuses = errno.EAGAIN
    with pytest.raises(KernelError, match="other writers") as caught:
        xtables.read(Table.FILTER)
    assert caught.value.errno == errno.EAGAIN
    assert 1 < kernel.asked.count(module._GET_ENTRIES) < 100


def test_another_refusal_is_an_error_at_once(xtables: Xtables, kernel: Kernel) -> None:
    kernel.refuses = errno.ENOMEM
    with pytest.raises(KernelError, match="read table filter") as caught:
        xtables.read(Table.FILTER)
    assert caught.value.errno == errno.ENOMEM
    assert kernel.asked.count(module._GET_ENTRIES) == 1


@pytest.mark.parametrize(("zeroes", "interrupts"), [(1, 0), (3, 0), (1024, 1), (0, 0)])
def test_counters_are_zeroed_whatever_readv_manages(
    legacy: Legacy, xtables: Xtables, kernel: Kernel, zeroes: int, interrupts: int
) -> None:
    kept = xtables.read(Table.FILTER)
    assert delivers(legacy.namespace.path, legacy.family)
    kernel.zeroes, kernel.interrupts = zeroes, interrupts
    kernel.asked.clear()
    assert xtables.changed(Table.FILTER, kept) is None
    assert kernel.asked == [module._GET_INFO, module._GET_ENTRIES]  # it wasn't found out by reading again


def test_without_dev_zero_counters_are_zeroed_one_by_one(legacy: Legacy, xtables: Xtables, kernel: Kernel) -> None:
    kept = xtables.read(Table.FILTER)
    xtables._zeros = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    assert delivers(legacy.namespace.path, legacy.family)
    kernel.asked.clear()
    assert xtables.changed(Table.FILTER, kept) is None
    assert kernel.asked == [module._GET_INFO, module._GET_ENTRIES]


def test_nothing_is_asked_twice_while_nothing_changes(legacy: Legacy, xtables: Xtables, kernel: Kernel) -> None:
    kept = xtables.read(Table.FILTER)
    kernel.asked.clear()
    for _ in range(10):
        delivers(legacy.namespace.path, legacy.family)
        assert xtables.changed(Table.FILTER, kept) is None
    assert kernel.asked == [module._GET_INFO, module._GET_ENTRIES] * 10


def test_nothing_is_asked_twice_after_a_change_and_its_way_back(
    legacy: Legacy, xtables: Xtables, kernel: Kernel
) -> None:
    # Two layouts of one size; the comment of one stands where the kernel leaves holes in the other.
    long, short = f"-A INPUT -p udp -m comment --comment {'x' * 250}", "-A INPUT -p udp"
    texts = ["\n".join(("*filter", *lines, "COMMIT\n")) for lines in ((long, short), (short, long))]
    legacy.restore(texts[1])
    other = xtables.read(Table.FILTER)
    legacy.restore(texts[0])
    kept = xtables.read(Table.FILTER)
    assert (kept.info, kept.offsets != other.offsets) == (other.info, True)

    def questions(blob: Blob) -> int:
        kernel.asked.clear()
        assert delivers(legacy.namespace.path, legacy.family)
        assert xtables.changed(Table.FILTER, blob) is None
        return len(kernel.asked)

    assert questions(kept) == 2
    legacy.restore(texts[1])
    assert questions(other) == 2
    assert xtables.changed(Table.FILTER, kept) == other
    legacy.restore(texts[0])
    assert [questions(kept) for _ in range(3)] == [2, 2, 2]


def test_threads_share_one_instance(legacy: Legacy, xtables: Xtables) -> None:
    legacy.restore(TABLES)
    kept = {table: xtables.read(table) for table in Table}
    seen: set[object] = set()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                seen.update((xtables.changed(table, blob), xtables.read(table)) for table, blob in kept.items())
        except BaseException as error:  # noqa: BLE001 - looked at below, whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, seen) == ([], {(None, blob) for blob in kept.values()})


# --- namespaces, rights and ends ---


def test_it_stays_in_its_namespace(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A")
    with Netns() as other:
        with other.entered(), Xtables(legacy.family) as elsewhere:
            assert xtables.tables() == (Table.FILTER,)
            assert "A" in xtables.parse(xtables.read(Table.FILTER))
            assert elsewhere.tables() == ()
            here = elsewhere
            with legacy.namespace.entered():
                assert here.tables() == ()
        assert names(other, legacy.family) == ""


def test_without_net_admin_the_error_says_what_is_missing(legacy: Legacy, requires: Callable[..., None]) -> None:
    requires("unshare")
    legacy("-N A")
    code = f"""
from meshfw.errors import KernelError
from meshfw.kernel.xtables import Xtables
from meshfw.model import Family, Table
with Xtables(Family.{legacy.family.name}) as xtables:
    for look in (xtables.info, xtables.read):
        try:
            look(Table.FILTER)
        except KernelError as error:
            print(error.errno, "CAP_NET_ADMIN" in str(error))
"""
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]  # root, but not of this namespace
    with legacy.namespace.entered():
        said = run(argv, timeout=60, env={"PYTHONPATH": str(ROOT)}).stdout
    assert said == f"{errno.EPERM} True\n" * 2


def test_names_that_root_alone_may_read_are_an_error_that_says_so(
    legacy: Legacy, xtables: Xtables, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy("-N A")
    real = os.open

    def guarded(path: str, *arguments: int) -> int:
        if str(path).endswith("_tables_names"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", guarded)
    with pytest.raises(KernelError, match="CAP_DAC_READ_SEARCH") as caught:
        xtables.tables()
    assert caught.value.errno == errno.EACCES
    assert "A" in xtables.parse(xtables.read(Table.FILTER))  # the caller answers for its being there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody; run the tests as root")
def test_net_admin_alone_does_not_read_the_names(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A")
    found: list[object] = []

    def work() -> None:
        # a thread's own user for files, which loses CAP_DAC_* and keeps CAP_NET_ADMIN (setfsuid(2))
        libc = ctypes.CDLL(None)
        libc.setfsgid(65534)
        libc.setfsuid(65534)
        for look in (xtables.tables, lambda: xtables.read(Table.FILTER).info.num_entries):
            try:
                found.append(look())
            except KernelError as error:
                found.append(error.errno)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if found[0] == (Table.FILTER,):
        pytest.skip("in this user namespace nobody else exists; run the tests as the machine's root")
    assert found == [errno.EACCES, 6]


def test_a_program_of_32_bits_is_refused(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BITS", 32)
    with pytest.raises(BackendError, match="32-bit"):
        Xtables(Family.IPV4, netns.path)


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BackendError, match="no network namespace"):
        Xtables(Family.IPV4, "meshfw-nosuch")


def test_what_is_closed_is_an_error(legacy: Legacy, xtables: Xtables) -> None:
    legacy("-N A")
    kept = xtables.read(Table.FILTER)
    assert xtables.changed(Table.FILTER, kept) is None
    xtables.close()
    xtables.close()
    looks: list[Callable[[], object]] = [
        xtables.tables,
        lambda: xtables.info(Table.FILTER),
        lambda: xtables.read(Table.FILTER),
        lambda: xtables.changed(Table.FILTER, kept),
    ]
    for look in looks:
        with pytest.raises(KernelError) as caught:
            look()
        assert caught.value.errno == errno.EBADF


def test_making_and_closing_leaks_no_descriptor(legacy: Legacy) -> None:
    legacy("-N A")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Xtables(legacy.family, legacy.namespace.path) as xtables:
            kept = xtables.read(Table.FILTER)
            assert xtables.changed(Table.FILTER, kept) is None
    assert len(os.listdir("/proc/self/fd")) == before
