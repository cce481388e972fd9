"""Commits to nf_tables as they happen: who made each, whether it was ours, and whether it touched anything of ours."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import meshfw.kernel.events as module
from meshfw.backend import Backend, Event, Site, Watch
from meshfw.backends.iptables import iptables_nft
from meshfw.backends.iptables_tool import Tool
from meshfw.backends.nft import NftBackend
from meshfw.backends.nft_watch import own_chains, own_tables
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.command import run
from meshfw.kernel.events import NfCommit, NfEvents, Scope
from meshfw.kernel.libnftables import Libnftables
from meshfw.kernel.netlink import Nfnetlink
from meshfw.model import Family, Ruleset
from meshfw.reconcile import apply
from meshfw.testing.netns import Netns
from meshfw.testing.rulesets import compact, compact_changed
from meshfw.testing.wrapping import Interrupted

pytestmark = pytest.mark.kernel

ROOT = Path(module.__file__).parents[2]
LANGUAGE = Language.of(builtin_extensions())
MAKERS: dict[str, Callable[[Site], Backend]] = {"nft": NftBackend, "iptables-nft": iptables_nft}
ONE, OTHER = compact(tuple(Family)), compact_changed(tuple(Family))


@pytest.fixture
def nft(netns: Netns, requires: Callable[..., None]) -> Iterator[Libnftables]:
    requires("nft", "iptables-nft-restore")
    with Libnftables(netns.path) as library:
        yield library


@pytest.fixture
def listen(netns: Netns) -> Iterator[Callable[..., NfEvents]]:
    opened: list[NfEvents] = []

    def begin(scope: Scope | None = None) -> NfEvents:
        opened.append(NfEvents(scope or own_tables("meshfw"), netns.path))
        return opened[-1]

    yield begin
    for events in opened:
        events.close()


@pytest.fixture
def make(netns: Netns) -> Iterator[Callable[[str], Backend]]:
    opened: list[Backend] = []

    def backend(name: str) -> Backend:
        opened.append(MAKERS[name](Site(owner="meshfw", language=LANGUAGE, netns=netns.path)))
        return opened[-1]

    yield backend
    for held in opened:
        held.close()


def tool(netns: Netns, *argv: str, text: str = "") -> int:
    """Run a program in the namespace; the number of its process."""
    with netns.entered():
        return run(argv, timeout=60, input=text.encode()).pid


def watching(backend: Backend) -> Watch:
    watch = backend.watch()
    assert watch is not None
    return watch


# --- the kernel's word -----------------------------------------------------------------------------------------------


def test_a_commit_is_told_with_its_generation_and_writer(
    netns: Netns, nft: Libnftables, listen: Callable[..., NfEvents]
) -> None:
    events = listen()
    poller = select.poll()
    poller.register(events.fileno(), select.POLLIN)
    assert not poller.poll(0)
    pid = tool(netns, "nft", "add table ip meshfw; add chain ip meshfw a; add table ip other")
    assert poller.poll(5000)
    with Nfnetlink(netns.path) as netlink:
        (told,) = events.commits()
        assert (told.generation, told.pid, told.command) == (netlink.generation(), pid, "nft")
    assert told.touched
    assert not told.lost
    assert events.commits() == ()


NEAR = (
    "add table ip meshfw",
    "add chain ip6 meshfw a",
    "add rule ip meshfw a accept",
    "add set ip meshfw s { type ipv4_addr; }",
    "add element ip meshfw s { 10.0.0.1 }",
    "delete element ip meshfw s { 10.0.0.1 }",
    "add counter ip meshfw c",
    "flush chain ip meshfw a",
    "add table ip meshfw { flags dormant; }",
    "delete table ip6 meshfw",
    "flush ruleset",
)
FAR = (
    "add table inet meshfw; add chain inet meshfw a; add rule inet meshfw a accept",
    "add table ip meshfw2; add chain ip meshfw2 a; add chain ip meshfw2 meshfw; add rule ip meshfw2 meshfw jump a",
    "add table ip meshf; add set ip meshf meshfw { type ipv4_addr; }; add element ip meshf meshfw { 10.0.0.1 }",
    "add chain ip x i { type filter hook input priority -5; policy drop; }; delete table ip x",
)


def committed(nft: Libnftables, events: NfEvents, text: str) -> bool:
    """Whether a commit is told of as one that touched the scope."""
    nft.run(text.replace("; add", "\nadd").replace("; delete", "\ndelete"))
    (told,) = events.commits()
    return told.touched


def test_what_touches_our_tables_is_near_and_nothing_else(nft: Libnftables, listen: Callable[..., NfEvents]) -> None:
    nft.run("add table ip meshfw\nadd table ip6 meshfw\nadd chain ip meshfw a\nadd table ip x")
    events = listen()
    assert {text: committed(nft, events, text) for text in FAR} == dict.fromkeys(FAR, False)
    assert {text: committed(nft, events, text) for text in NEAR[1:]} == dict.fromkeys(NEAR[1:], True)
    assert committed(nft, events, NEAR[0])


IPTABLES_FAR = (
    "-A THEIRS -j ACCEPT",
    "-I THEIRS -j DROP",
    "-F THEIRS",
    "-N meshfwx",
    "-A meshfwx -j THEIRS",
)
IPTABLES_NEAR = (
    "-I INPUT -j THEIRS",
    "-D INPUT -j THEIRS",
    "-P FORWARD DROP",
    "-N meshfw-a",
    "-A meshfw-a -j ACCEPT",
    "-F meshfw-a",
    "-E meshfw-a meshfwy",
    "-E meshfw-b meshfwz",
    "-N meshfw.input.first",
    "-A meshfw.input.first -j DROP",
    "-F",
    "-X meshfw.input.first",
)


def test_what_touches_our_chains_or_the_way_to_them_is_near_and_nothing_else(
    netns: Netns, nft: Libnftables, listen: Callable[..., NfEvents]
) -> None:
    tool(netns, "iptables-nft-restore", text="*filter\n:INPUT ACCEPT\n:THEIRS -\nCOMMIT\n")

    def touched(command: str) -> bool:
        tool(netns, "iptables-nft", *command.split())
        found = events.commits()
        assert found
        return any(told.touched for told in found)

    tool(netns, "iptables-nft", "-N", "meshfw-b")
    with Nfnetlink(netns.path) as netlink:
        events = listen(own_chains("meshfw"))
        events.learn(netlink.chains())
    assert {command: touched(command) for command in IPTABLES_FAR} == dict.fromkeys(IPTABLES_FAR, False)
    assert {command: touched(command) for command in IPTABLES_NEAR} == dict.fromkeys(IPTABLES_NEAR, True)
    assert not committed(nft, events, "add table inet filter; add chain inet filter INPUT")
    assert not committed(nft, events, "add set ip filter s { type ipv4_addr; }")
    assert committed(nft, events, "add table ip filter { flags dormant; }")
    assert committed(nft, events, "delete table ip filter")


def test_a_large_foreign_commit_is_one_event_and_far(
    netns: Netns, nft: Libnftables, listen: Callable[..., NfEvents]
) -> None:
    tool(netns, "iptables-nft", "-N", "OTHERS")
    tables, chains = listen(), listen(own_chains("meshfw"))
    rules = "".join(f"-A THEIRS -s 10.0.{number >> 8}.{number & 255} -j ACCEPT\n" for number in range(3000))
    tool(netns, "iptables-nft-restore", "--noflush", text=f"*filter\n:THEIRS - [0:0]\n{rules}COMMIT\n")
    for events in (tables, chains):
        (told,) = events.commits()
        assert not told.touched
    tool(netns, "iptables-nft-restore", "--noflush", text=f"*filter\n{rules}-A INPUT -j THEIRS\nCOMMIT\n")
    assert [told.touched for told in tables.commits()] == [False]
    assert [told.touched for told in chains.commits()] == [True], "the last of all those rules is in a built-in chain"


def small_buffer(events: NfEvents) -> None:
    with socket.socket(fileno=os.dup(events.fileno())) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def test_lost_messages_are_an_event_that_knows_nothing(nft: Libnftables, listen: Callable[..., NfEvents]) -> None:
    events = listen()
    small_buffer(events)
    nft.run("add table ip x\nadd chain ip x y")
    for number in range(50):
        nft.run(f"add rule ip x y ip saddr 10.0.0.{number} accept")
    told = events.commits()
    assert told[-1] == NfCommit(lost=True)
    assert len(told) < 50
    assert all(commit.touched for commit in told)
    assert sum(commit.lost for commit in told) == 1
    nft.run("add rule ip x y accept")
    assert [commit.touched for commit in events.commits()] == [True], "its beginning may have been lost"
    nft.run("add rule ip x y accept")
    assert [commit.touched for commit in events.commits()] == [False]


def test_what_cannot_be_understood_is_lost(listen: Callable[..., NfEvents], monkeypatch: pytest.MonkeyPatch) -> None:
    events = listen()
    answers = [b"\x05\x00\x00\x00" * 8, b"\xff\xff\x00\x00" * 8]

    class Odd:
        def recv(self, size: int, flags: int) -> bytes:
            if not answers:
                raise BlockingIOError
            return answers.pop()

        def fileno(self) -> int:
            return 1

        def close(self) -> None:
            return None

    channel = events._socket
    monkeypatch.setattr(events, "_socket", Odd())
    assert events.commits() == (NfCommit(lost=True),)
    assert events.commits() == ()
    channel.close()


def test_closed_it_tells_of_nothing(listen: Callable[..., NfEvents]) -> None:
    events = listen()
    events.close()
    events.close()
    assert events.fileno() == -1
    assert events.commits() == ()


# --- of a backend ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_commit_is_ours_whichever_thread_makes_it(
    name: str, make: Callable[[str], Backend], requires: Callable[..., None]
) -> None:
    requires("iptables-nft-restore", "ip6tables-nft-restore")
    backend = make(name)
    watch = watching(backend)
    thread = threading.Thread(target=apply, args=(backend, ONE), name="elsewhere")
    thread.start()
    thread.join()
    assert watch.events()
    for ruleset in (OTHER, Ruleset()):
        apply(backend, ruleset)
        assert {event.own for event in watch.events()} == {True}


@pytest.mark.parametrize("name", MAKERS)
def test_beside_others_our_commit_is_ours_and_theirs_is_theirs(
    name: str, make: Callable[[str], Backend], netns: Netns, nft: Libnftables, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(name)
    apply(backend, ONE)
    watch = watching(backend)
    nft.run("add table ip strangers")
    watch.events()
    # Somebody else writes right after each write of ours, before the backend asks for the generation.
    writer, method = (Libnftables, "run") if name == "nft" else (Tool, "restore")
    write, numbers = getattr(writer, method), iter(range(1000))

    def beside(self: object, *arguments: object, **options: object) -> str:
        said: str = write(self, *arguments, **options)
        tool(netns, "nft", f"add chain ip strangers c{next(numbers)}")
        return said

    with monkeypatch.context() as patch:
        patch.setattr(writer, method, beside)
        apply(backend, OTHER)
    events = watch.events()
    theirs = [event for event in events if event.command == "nft"]
    assert theirs
    assert {event.own for event in theirs} == {False}
    assert {event.near for event in theirs} == {False}
    ours = [event for event in events if event.command != "nft"]
    assert ours
    assert {event.own for event in ours} == {True}


def test_the_writer_is_a_process_not_one_of_its_threads(make: Callable[[str], Backend], nft: Libnftables) -> None:
    watch = watching(make("nft"))
    with open("/proc/self/comm", encoding="utf-8") as file:
        name = file.read().strip()
    told: list[Event] = []

    def write() -> None:
        nft.run("add table ip strangers")
        told.extend(watch.events())

    thread = threading.Thread(target=write, name="elsewhere")
    thread.start()
    thread.join()
    (event,) = told
    assert (event.pid, event.command, event.own, event.near) == (os.getpid(), name, False, False)


@pytest.mark.parametrize("name", MAKERS)
def test_a_failed_commit_of_ours_is_not_somebody_else_s(
    name: str, make: Callable[[str], Backend], nft: Libnftables
) -> None:
    backend = make(name)
    apply(backend, ONE)
    watch = watching(backend)

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        apply(Interrupted(backend, after=fail), OTHER)
    assert {event.own for event in watch.events()} == {True}
    nft.run("flush ruleset")
    assert [(event.own, event.near) for event in watch.events()] == [(False, True)]


@pytest.mark.parametrize("name", MAKERS)
def test_a_watch_outlives_the_name_of_its_namespace(name: str, kernel_room: Callable[[], Netns]) -> None:
    with kernel_room() as room:
        backend = MAKERS[name](Site(owner="meshfw", language=LANGUAGE, netns=room.path))
        apply(backend, ONE)
        watch = watching(backend)
    assert watch.events() == ()
    assert not select.select([watch.fileno()], [], [], 0)[0]
    assert watch.events() == ()
    backend.close()


@pytest.mark.parametrize("name", MAKERS)
def test_a_watch_listens_where_the_backend_was_made(name: str, netns: Netns, nft: Libnftables) -> None:
    with netns.entered():
        backend = MAKERS[name](Site(owner="meshfw", language=LANGUAGE))
    watch = watching(backend)
    nft.run("add table ip strangers")
    assert len(watch.events()) == 1
    backend.close()


INSIDE = """
import os
from meshfw.backend import Site
from meshfw.backends.{module} import {maker} as make
from meshfw.backends.iptables_tool import Tool
from meshfw.extensions import Language, builtin_extensions
from meshfw.model import Family
from meshfw.reconcile import apply
from meshfw.testing.rulesets import compact, compact_changed
backend, other = (make(Site(owner="meshfw", language=Language.of(builtin_extensions()))) for _ in range(2))
watch = backend.watch()
families = tuple(Family)
for ruleset in (compact(families), compact_changed(families)):
    apply(backend, ruleset)
    print({{(event.own, event.near) for event in watch.events()}})
apply(other, compact(families))
print({{(event.own, event.near) for event in watch.events()}})
"""


@pytest.mark.parametrize(("module", "maker"), [("nft", "NftBackend"), ("iptables", "iptables_nft")])
def test_root_of_a_user_namespace_is_told_the_same_although_it_is_numbered_otherwise(
    module: str, maker: str, requires: Callable[..., None]
) -> None:
    requires("unshare", "nft", "iptables-nft-restore", "ip6tables-nft-restore")
    flags = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    argv = ("unshare", *flags, sys.executable, "-c", INSIDE.format(module=module, maker=maker))
    said = run(argv, timeout=60, env={"PYTHONPATH": str(ROOT)}).stdout
    assert said == "{(True, True)}\n{(True, True)}\n{(False, True)}\n"
