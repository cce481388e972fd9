"""Laws of nf_tables over netlink: the generation, and dumps that agree with what nft lists."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import statistics
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshfw.errors import BackendError, KernelError
from meshfw.kernel import netlink as module
from meshfw.kernel import nfmessage
from meshfw.kernel.command import run
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import TABLE_DORMANT, TABLE_OWNED, Nfnetlink, NfRule
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

ROOT = Path(module.__file__).parents[2]


@pytest.fixture
def netlink(netns: Netns) -> Iterator[Nfnetlink]:
    with Nfnetlink(netns.path) as channel:
        yield channel


@pytest.fixture
def nft(netns: Netns, requires: Callable[..., None]) -> Iterator[Libnftables]:
    requires("nft")
    with Libnftables(netns.path) as library:
        yield library


def listed(nft: Libnftables, command: str, kind: str) -> list[dict[str, Any]]:
    """What nft's JSON says: the independent witness."""
    return [item[kind] for item in json.loads(nft.run(command, json_output=True))["nftables"] if kind in item]


# --- generation ---


def test_the_generation_starts_at_one_and_moves_by_one_per_commit(netlink: Nfnetlink, nft: Libnftables) -> None:
    seen = [netlink.generation()]
    for text in ("add table ip t", "add chain ip t c; add table ip6 t; add rule ip t c accept", "delete table ip t"):
        nft.run(text)
        seen.append(netlink.generation())
    assert seen == [1, 2, 3, 4]


def test_the_generation_stays_when_nothing_changes(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run("add table ip t")
    before = netlink.generation()
    nft.run("add table ip t")
    nft.run("list ruleset")
    nft.run("add chain ip t c", dry_run=True)
    with pytest.raises(KernelError):
        nft.run("add chain ip nosuch c")
    assert netlink.generation() == before


def test_namespaces_count_for_themselves(netlink: Nfnetlink, nft: Libnftables) -> None:
    with Netns() as other, Nfnetlink(other.path) as elsewhere:
        nft.run("add table ip t")
        assert (netlink.generation(), elsewhere.generation()) == (2, 1)


def test_a_generation_costs_microseconds(netlink: Nfnetlink) -> None:
    def once() -> float:
        started = time.perf_counter()
        netlink.generation()
        return time.perf_counter() - started

    assert statistics.median(once() for _ in range(500)) < 100e-6  # about 4 where nothing else runs


def test_the_sequence_number_wraps(netlink: Nfnetlink) -> None:
    netlink._sequence = 0x7FFFFFFE
    assert [netlink.generation() for _ in range(4)] == [1] * 4
    netlink._sequence = 0xFFFFFFFE
    assert [netlink.generation() for _ in range(4)] == [1] * 4
    assert netlink.tables() == ()


def test_an_answer_left_over_is_not_taken_for_ours(netlink: Nfnetlink, nft: Libnftables) -> None:
    netlink._sequence = 1000
    question = nfmessage.REQUEST.pack(nfmessage.REQUEST.size, nfmessage.GETGEN, nfmessage.NLM_F_REQUEST, 77, 0, 0, 0, 0)
    netlink._socket.send(question)  # as a call interrupted before it read its answer
    nft.run("add table ip t")
    assert netlink.generation() == 2
    netlink._socket.send(question)
    assert [table.name for table in netlink.tables()] == ["t"]
    assert netlink.generation() == 2


def test_threads_share_one_socket(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run("add table ip t; add chain ip t a; add chain ip t b")
    seen: set[tuple[int, int]] = set()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(300):
                seen.add((netlink.generation(), len(netlink.chains())))
        except BaseException as error:  # noqa: BLE001 - looked at below, whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, seen) == ([], {(2, 2)})


# --- tables and chains ---

EVERYTHING = """
add table ip filter
add table ip6 meshfw
add table inet fw
add table arp a
add table bridge b
add table netdev n
add table ip asleep { flags dormant; }
add chain ip filter regular
add chain ip filter INPUT { type filter hook input priority 0; policy drop; }
add chain ip filter pre { type nat hook prerouting priority -105; }
add chain ip filter route { type route hook output priority -150; }
add chain ip6 meshfw forwarding { type filter hook forward priority 2147483647; }
add chain ip6 meshfw post { type nat hook postrouting priority 100; }
add chain inet fw in { type filter hook input priority -2147483648; }
add chain arp a in { type filter hook input priority 0; policy drop; }
add chain arp a out { type filter hook output priority 0; }
add chain bridge b forwarding { type filter hook forward priority -200; }
add chain netdev n ing { type filter hook ingress device "lo" priority -500; }
add chain inet fw ing { type filter hook ingress device "lo" priority 5; }
add chain ip asleep out { type filter hook output priority 1; }
add rule ip filter INPUT jump regular
add rule ip filter regular accept
"""


DEVICES = {("netdev", "n", "ing"): ("lo",), ("inet", "fw", "ing"): ("lo",)}  # nft 1.0.6 leaves them out of its JSON


def test_chains_are_those_that_nft_lists(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run(EVERYTHING)
    expected = [
        (where := (c["family"], c["table"], c["name"]))
        + (c["handle"], c.get("type"), c.get("hook"), c.get("prio"), c.get("policy"), DEVICES.get(where, ()))
        for c in listed(nft, "list chains", "chain")
    ]
    found = [
        (c.family, c.table, c.name, c.handle, c.type, c.hook_name, c.priority, c.policy, c.devices)
        for c in netlink.chains()
    ]
    assert len(found) == 13
    assert found == expected


def test_tables_are_those_that_nft_lists(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run(EVERYTHING)
    # as text: in JSON, nft 1.0.6 prints garbage for the flags of a table
    expected = [tuple(line.split()[1:]) for line in nft.run("list tables").splitlines()]
    assert len(expected) == 7
    assert [(t.family, t.name) for t in netlink.tables()] == expected
    assert [t.handle for t in netlink.tables()] == [1, 2, 3, 4, 5, 6, 7]
    assert [t.name for t in netlink.tables() if t.flags & TABLE_DORMANT] == ["asleep"]
    assert [(t.name, t.use) for t in netlink.tables("ip6")] == [("meshfw", 2)]


def test_one_family_is_read_alone(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run(EVERYTHING)
    assert {chain.family for chain in netlink.chains("ip6")} == {"ip6"}
    assert [chain.name for chain in netlink.chains("ip6")] == ["forwarding", "post"]


def test_a_chain_counts_its_rules_and_what_refers_to_it(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run(EVERYTHING)
    use = {chain.name: chain.use for chain in netlink.chains("ip")}
    assert (use["regular"], use["INPUT"], use["pre"]) == (2, 1, 0)


def test_an_owned_table_names_its_owner(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run("add table ip mine { flags owner; }")
    (table,) = netlink.tables()
    assert table.flags & TABLE_OWNED
    assert table.owner != 0
    nft.close()
    assert netlink.tables() == ()


def test_a_fresh_namespace_has_nothing(netlink: Nfnetlink) -> None:
    assert (netlink.tables(), netlink.chains(), netlink.rules("ip", "filter")) == ((), (), ())


def test_an_unknown_family_is_refused(netlink: Nfnetlink) -> None:
    with pytest.raises(BackendError, match="'ipv4' is no nf_tables family") as caught:
        netlink.tables("ipv4")
    assert "ip6" in caught.value.remedy


# --- rules ---


def test_rules_are_those_of_one_chain_in_order(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run("add table ip t; add chain ip t a; add chain ip t b; add table ip6 t; add chain ip6 t a")
    nft.run('add rule ip t a tcp dport 1 accept comment "first"; add rule ip t a tcp dport 2 accept')
    nft.run("add rule ip t b drop; add rule ip6 t a drop; insert rule ip t a tcp dport 3 drop")
    for chain in ("a", "b"):
        expected = [rule["handle"] for rule in listed(nft, f"list chain ip t {chain}", "rule")]
        found = netlink.rules("ip", "t", chain)
        assert [rule.handle for rule in found] == expected
        assert {rule.chain for rule in found} == {chain}
    whole = netlink.rules("ip", "t")
    assert [rule.chain for rule in whole] == ["a", "a", "a", "b"]
    assert set(whole) == {*netlink.rules("ip", "t", "a"), *netlink.rules("ip", "t", "b")}
    assert [b"first" in rule.userdata for rule in netlink.rules("ip", "t", "a")] == [False, True, False]


def test_equal_rules_have_equal_expressions_and_others_do_not(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run("add table ip t; add chain ip t a")
    for port in (1, 1, 2):
        nft.run(f"add rule ip t a tcp dport {port} accept")
    one, same, other = (rule.expressions for rule in netlink.rules("ip", "t", "a"))
    assert one == same != other


@pytest.mark.parametrize(("table", "chain"), [("nosuch", None), ("nosuch", "a"), ("t", "nosuch")])
def test_what_is_not_there_has_no_rules(netlink: Nfnetlink, nft: Libnftables, table: str, chain: str | None) -> None:
    nft.run("add table ip t; add chain ip t a; add rule ip t a accept")
    assert netlink.rules("ip", table, chain) == ()


def filled(nft: Libnftables, count: int) -> list[int]:
    """The handles of as many rules in one chain, each with a long comment."""
    text = "".join(
        f'add rule ip t c ip saddr 10.0.0.1 tcp dport {n} accept comment "{"x" * 100}"\n' for n in range(count)
    )
    nft.run(f"add table ip t\nadd chain ip t c\n{text}")
    return [rule["handle"] for rule in listed(nft, "list chain ip t c", "rule")]


def test_a_dump_of_many_parts_is_whole(netlink: Nfnetlink, nft: Libnftables) -> None:
    handles = filled(nft, 3000)
    assert len(handles) == 3000
    assert [rule.handle for rule in netlink.rules("ip", "t", "c")] == handles
    assert [rule.handle for rule in netlink.rules("ip", "t")] == handles


@pytest.mark.parametrize("size", [64, 1000])
def test_a_part_that_does_not_fit_is_read_again_with_more_room(netlink: Nfnetlink, nft: Libnftables, size: int) -> None:
    handles = filled(nft, 100)
    netlink._receive_size = size
    assert [rule.handle for rule in netlink.rules("ip", "t", "c")] == handles
    assert netlink._receive_size > 1000


def test_a_dump_abandoned_in_the_middle_does_not_spoil_the_next(netlink: Nfnetlink, nft: Libnftables) -> None:
    handles = filled(nft, 1000)

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        netlink._whole(msgspec.structs.replace(nfmessage.rules_dump("t", "c"), parse=interrupted), 2)
    assert netlink.generation() == 2
    assert [rule.handle for rule in netlink.rules("ip", "t", "c")] == handles


def read_beside(
    netlink: Nfnetlink, netns: Netns, write: Callable[[Libnftables, deque[int]], None], *, pause: float = 0.0005
) -> list[list[int]]:
    """The handles that each of many readings finds while a thread writes; KernelError counts as no reading."""
    stop = threading.Event()
    handles = deque(rule.handle for rule in netlink.rules("ip", "t", "c"))
    writes: list[int] = []

    def body() -> None:
        with Libnftables(netns.path) as writer:
            while not stop.is_set():
                write(writer, handles)
                writes.append(1)
                time.sleep(pause)

    thread = threading.Thread(target=body)
    thread.start()
    found = []
    try:
        for _ in range(80):
            try:
                found.append([rule.handle for rule in netlink.rules("ip", "t")])
            except KernelError as error:
                assert error.errno == errno.EINTR, error  # noqa: PT017 - allowed, not demanded: the writer may be too busy
    finally:
        stop.set()
        thread.join()
    assert len(writes) > 10
    assert found
    return found


def test_every_reading_beside_a_writer_is_one_state(netlink: Nfnetlink, nft: Libnftables, netns: Netns) -> None:
    fresh = itertools.count(filled(nft, 600)[-1] + 1)

    def move(writer: Libnftables, handles: deque[int]) -> None:
        # from the end to the front: any one state has 600 rules, and all of them differ
        writer.run(f"delete rule ip t c handle {handles.pop()}; insert rule ip t c tcp dport 9 accept")
        handles.appendleft(next(fresh))

    for handles in read_beside(netlink, netns, move):
        assert len(handles) == len(set(handles)) == 600


def test_transactions_that_fail_beside_a_reading_leave_no_trace(
    netlink: Nfnetlink, nft: Libnftables, netns: Netns
) -> None:
    expected = filled(nft, 600)

    def fail(writer: Libnftables, _handles: deque[int]) -> None:
        with pytest.raises(KernelError):
            writer.run("insert rule ip t c tcp dport 9 accept; delete rule ip t c handle 99999")

    assert all(handles == expected for handles in read_beside(netlink, netns, fail))


def test_the_settled_generation_is_that_of_the_rules_read_after_it(
    netlink: Nfnetlink, nft: Libnftables, netns: Netns
) -> None:
    # The writer's rules number its commits, so that each reading tells which generation it is.
    nft.run("add table ip t; add chain ip t c; add rule ip t c tcp dport 1 accept")
    first = netlink.settled()
    assert first == netlink.generation()
    stop = threading.Event()

    def write() -> None:
        with Libnftables(netns.path) as writer:
            while not stop.is_set():
                writer.run("flush chain ip t c; add rule ip t c tcp dport 1 accept")

    handle = netlink.rules("ip", "t", "c")[0].handle
    thread = threading.Thread(target=write)
    thread.start()
    wrong, told = [], 0
    try:
        for _ in range(1000):
            generation = netlink.settled()
            (rule,) = netlink.rules("ip", "t", "c")
            if netlink.generation() == generation:
                told += 1
                if rule.handle - handle != generation - first:
                    wrong.append((rule.handle, generation))
    finally:
        stop.set()
        thread.join()
    assert told > 0
    assert wrong == []


def test_waiting_for_writers_changes_nothing(netlink: Nfnetlink, nft: Libnftables) -> None:
    nft.run("add table ip t")
    assert {netlink.settled() for _ in range(50)} == {netlink.generation()} == {2}
    assert nft.run("list ruleset", handles=False) == "table ip t {\n}\n"


@pytest.mark.parametrize(
    ("positions", "whole"),
    [
        ([(0, "a"), (1, "a"), (0, "b"), (3, "b")], True),
        ([], True),
        ([(0, "a"), (0, "a")], False),
        ([(7, "a")], False),
        ([(0, "a"), (1, "a"), (1, "a")], False),
        ([(0, "a"), (1, "b")], False),
    ],
)
def test_rules_that_do_not_follow_each_other_are_not_whole(positions: list[tuple[int, str]], whole: bool) -> None:
    rules = [NfRule(handle, position, chain, b"", b"") for handle, (position, chain) in enumerate(positions, 1)]
    assert nfmessage.linked(rules) is whole


# --- what a kernel says only now and then, from a socket that plays the kernel ---


def message(kind: int, payload: bytes, *, flags: int = 2, sequence: int = 0) -> bytes:
    length = 16 + len(payload)
    return struct.pack("=IHHII", length, kind, flags, sequence, 0) + payload + bytes(-length % 4)


def table_message(name: bytes, *, flags: int = 2) -> bytes:
    return message(
        nfmessage._NEWTABLE, bytes([2, 0, 0, 0]) + struct.pack("=HH", 5 + len(name), 1) + name + b"\0", flags=flags
    )


Script = list[bytes | int | None]

DONE = message(3, bytes(4))


class Kernel:
    """A socket that answers each dump with the next of some scripts: messages, or an errno, or a commit (None)."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.pending: list[bytes | int | None] = []
        self.sequence = b""
        self.generation = 7
        self.dumps = 0
        self.writers = 0  # how many of them take over before the next batch

    def send(self, data: bytes) -> None:
        self.sequence = bytes(data[8:12])
        if int.from_bytes(data[4:6], sys.byteorder) == nfmessage.GETGEN:
            generation = struct.pack("=HH", 8, 1) + self.generation.to_bytes(4, "big")
            self.pending = [message(nfmessage.NEWGEN, bytes(4) + generation)]
        elif int.from_bytes(data[4:6], sys.byteorder) == 0x10:  # the beginning of a batch
            if self.writers:
                self.writers -= 1
                self.generation += 1
            current = int.from_bytes(data[24:28], "big") == self.generation
            self.pending = [] if current else [message(2, struct.pack("=i", -errno.ERESTART) + bytes(16))]
        else:
            self.dumps += 1
            self.pending = list(self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])

    def recv(self, _size: int, flags: int = 0) -> bytes:
        while self.pending and self.pending[0] is None:
            self.pending.pop(0)
            self.generation += 1
        if not self.pending:
            assert flags & socket.MSG_DONTWAIT, "waits for a message that never comes"
            raise BlockingIOError
        part = self.pending.pop(0)
        if not isinstance(part, bytes):
            raise OSError(part, os.strerror(part or 0))
        parts, offset = b"", 0
        while offset < len(part):  # fill in the sequence number that was asked with
            length = int.from_bytes(part[offset : offset + 4], sys.byteorder)
            end = offset + max(16, length + 3 & ~3)
            parts += part[offset : offset + 8] + self.sequence + part[offset + 12 : end]
            offset = end
        return parts

    def recv_into(self, buffer: bytearray) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        pass


def talking_to(kernel: Kernel, netlink: Nfnetlink) -> Nfnetlink:
    netlink.close()
    netlink._socket = kernel  # type: ignore[assignment]  # plays the part of one
    return netlink


INTERRUPTED: Script = [table_message(b"old", flags=0x12), DONE]
GOOD: Script = [table_message(b"a") + table_message(b"b"), table_message(b"c"), DONE]


@pytest.mark.parametrize(
    "first",
    [
        INTERRUPTED,
        [table_message(b"a"), message(3, bytes(4), flags=0x12)],
        [table_message(b"a"), None, DONE],
        [table_message(b"a"), errno.ENOBUFS],
        [message(2, struct.pack("=i", -errno.EBUSY) + bytes(16))],
    ],
    ids=["interrupted", "interrupted at the end", "a commit that the marks miss", "overrun", "busy"],
)
def test_a_dump_that_is_not_one_state_is_read_again(netlink: Nfnetlink, first: Script) -> None:
    kernel = Kernel(first, GOOD)
    assert [table.name for table in talking_to(kernel, netlink).tables()] == ["a", "b", "c"]
    assert kernel.dumps == 2


def test_a_generation_is_settled_when_no_writer_takes_over(netlink: Nfnetlink) -> None:
    kernel = Kernel(GOOD)
    kernel.writers = 3
    assert talking_to(kernel, netlink).settled() == 10


def test_waiting_for_writers_has_an_end(netlink: Nfnetlink) -> None:
    kernel = Kernel(GOOD)
    kernel.writers = 1_000_000
    with pytest.raises(KernelError, match="never paused") as caught:
        talking_to(kernel, netlink).settled()
    assert caught.value.errno == errno.EINTR
    with pytest.raises(KernelError):
        netlink.tables()


def test_reading_again_has_an_end(netlink: Nfnetlink) -> None:
    kernel = Kernel(INTERRUPTED)
    with pytest.raises(KernelError, match="other writers") as caught:
        talking_to(kernel, netlink).tables()
    assert caught.value.errno == errno.EINTR
    assert 1 < kernel.dumps < 100


@pytest.mark.parametrize(
    ("part", "number"),
    [
        (message(2, struct.pack("=i", -errno.EPERM) + bytes(16)), errno.EPERM),
        (message(3, struct.pack("=i", -errno.ENOMEM)), errno.ENOMEM),
        (errno.EAGAIN, errno.EAGAIN),
        (struct.pack("=IHHII", 8, nfmessage._NEWTABLE, 2, 0, 0), errno.EPROTO),
        (struct.pack("=IHHII", 400, nfmessage._NEWTABLE, 2, 0, 0), errno.EPROTO),
        (message(nfmessage._NEWTABLE, bytes(4) + struct.pack("=HH", 0, 1)), errno.EPROTO),
        (message(nfmessage._NEWTABLE, bytes(4) + struct.pack("=HH", 99, 1)), errno.EPROTO),
    ],
    ids=["refused", "failed at the end", "silence", "short", "cut off", "empty attribute", "long attribute"],
)
def test_a_dump_that_fails_is_an_error_with_errno(netlink: Nfnetlink, part: bytes | int, number: int) -> None:
    with pytest.raises(KernelError) as caught:
        talking_to(Kernel([part]), netlink).tables()
    assert caught.value.errno == number


# --- rights and ends ---


def test_without_net_admin_the_error_says_what_is_missing(netns: Netns, requires: Callable[..., None]) -> None:
    requires("unshare")
    code = """
from meshfw.errors import KernelError
from meshfw.kernel import netlink as module
from meshfw.kernel import nfmessage
from meshfw.kernel.netlink import Nfnetlink
with Nfnetlink() as channel:
    for call in (channel.generation, channel.settled, channel.tables, channel.chains, lambda: channel.rules("ip", "t")):
        try:
            call()
        except KernelError as error:
            print(error.errno, "CAP_NET_ADMIN" in str(error))
"""
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]  # root, but not of this namespace
    with netns.entered():
        said = run(argv, timeout=60, env={"PYTHONPATH": str(ROOT)}).stdout
    assert said == f"{errno.EPERM} True\n" * 5


def test_a_closed_socket_is_an_error(netlink: Nfnetlink) -> None:
    netlink.close()
    netlink.close()
    with pytest.raises(KernelError) as caught:
        netlink.generation()
    assert caught.value.errno == errno.EBADF
    with pytest.raises(KernelError):
        netlink.tables()


def test_making_and_closing_leaks_no_descriptor(netns: Netns) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with Nfnetlink(netns.path) as channel:
            channel.generation()
    assert len(os.listdir("/proc/self/fd")) == before
