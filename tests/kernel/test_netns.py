"""Laws of network namespaces: going there and back, and making ones for tests."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import meshfw.kernel.netns as module
from meshfw.errors import BackendError, KernelError
from meshfw.kernel.command import run
from meshfw.kernel.netns import HeldNamespace, Namespace, entered, has_net_admin, ipv6_available
from meshfw.testing.netns import Netns, available

pytestmark = pytest.mark.kernel

ROOT = Path(module.__file__).parents[2]


def python_as_root_of_a_user_namespace(code: str) -> str:
    """What a program prints that may do everything in a user namespace of its own, and nothing outside it."""
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    return run(argv, timeout=60, env={"PYTHONPATH": str(ROOT)}).stdout


# --- which one ---


def test_a_namespace_is_a_value_that_differs_from_others(netns: Netns) -> None:
    home = Namespace.current()
    assert home == Namespace.current()
    assert hash(home) == hash(Namespace.current())
    with netns.entered():
        inside = Namespace.current()
    assert inside == netns.identity == Namespace.of(netns.path)
    assert inside != home
    assert inside.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    assert msgspec.structs.replace(inside, boot_id="another boot") != inside


def test_an_identity_of_nothing_is_an_error() -> None:
    with pytest.raises(KernelError) as caught:
        Namespace.of("/proc/meshfw")
    assert caught.value.errno == errno.ENOENT


# --- there and back ---


def test_a_block_runs_in_the_namespace_and_comes_back(netns: Netns) -> None:
    home = Namespace.current()
    with entered(netns.path):
        assert Namespace.current() == netns.identity
    assert Namespace.current() == home


def test_an_error_inside_comes_back_too(netns: Netns) -> None:
    home = Namespace.current()
    with pytest.raises(ZeroDivisionError), entered(netns.path):
        _ = 1 / 0
    assert Namespace.current() == home


def test_no_namespace_means_staying() -> None:
    home = Namespace.current()
    with entered(None):
        assert Namespace.current() == home


def test_blocks_nest(netns: Netns) -> None:
    home = Namespace.current()
    with Netns() as other, entered(netns.path), entered(other.path):
        with entered(netns.path):
            assert Namespace.current() == netns.identity
        assert Namespace.current() == other.identity
    assert Namespace.current() == home


def test_a_name_is_as_good_as_a_path(netns: Netns) -> None:
    if netns.name is None:
        pytest.skip("namespaces have no names in a user namespace; run the tests as root")
    with entered(netns.name):
        assert Namespace.current() == netns.identity


def test_only_the_calling_thread_moves(netns: Netns) -> None:
    home = Namespace.current()
    seen: list[Namespace] = []
    ready, leave = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with entered(netns.path):
            seen.append(Namespace.current())
            ready.set()
            leave.wait(30)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    ready.wait(30)
    assert Namespace.current() == home
    leave.set()
    thread.join()
    assert seen == [netns.identity]


def test_a_socket_stays_where_it_was_made(netns: Netns) -> None:
    with entered(netns.path):
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside, pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is asserted below
        inside.connect(("192.0.2.1", 9))  # no route in a fresh namespace
    assert caught.value.errno == errno.ENETUNREACH


def test_a_held_namespace_outlives_its_name(netns: Netns) -> None:
    with Netns() as other, HeldNamespace(other.path) as held:
        identity = other.identity
        other.close()
        with held.entered():
            assert Namespace.current() == identity == held.identity


def test_a_held_namespace_closes_twice(netns: Netns) -> None:
    held = HeldNamespace(netns.path)
    held.close()
    held.close()


def test_entering_leaks_no_descriptor(netns: Netns) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with entered(netns.path):
            pass
        with pytest.raises(BackendError):
            HeldNamespace("/proc/self/status")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("where", ["meshfw-no-such-name", "/run/netns/meshfw-no-such-name"])
def test_a_namespace_that_is_not_there_says_how_to_see_names(where: str) -> None:
    with (
        pytest.raises(BackendError, match="no network namespace /run/netns/meshfw-no-such-name") as caught,
        entered(where),
    ):
        pytest.fail("entered")
    assert "ip netns list" in caught.value.remedy


@pytest.mark.parametrize("where", ["/proc/self/status", "/proc/self/ns/uts", "/dev/null", "/proc"])
def test_a_file_that_is_no_network_namespace_is_refused(where: str) -> None:
    with pytest.raises(BackendError, match="is not a network namespace"), entered(where):
        pytest.fail("entered")


@pytest.mark.parametrize("where", ["", ".", "..", "a\0b"])
def test_what_can_not_be_a_name_is_refused(where: str) -> None:
    with pytest.raises(BackendError, match="can't be the name"), entered(where):
        pytest.fail("entered")


def test_a_thread_that_could_not_come_back_does_not_leave(netns: Netns, requires: Callable[..., None]) -> None:
    requires("unshare")
    code = """
from meshfw.errors import KernelError
from meshfw.kernel.netns import Namespace
from meshfw.testing.netns import Netns, available
home = Namespace.current()
print(available())
try:
    with Netns("meshfw-user") as other:
        with other.entered():
            print("entered")
except KernelError as error:
    print(error.errno, Namespace.current() == home, error)
"""
    with netns.entered():
        reason, refusal = python_as_root_of_a_user_namespace(code).splitlines()
    assert refusal.startswith(f"{errno.EPERM} True make sure to come back")
    assert reason.startswith("make sure to come back")


# --- what one may do ---


def test_net_admin_is_seen_and_its_absence_too() -> None:
    seen: list[bool] = []

    def drop() -> None:
        # capset(2), for this thread alone: version 3, and three words each for capabilities 0-31 and 32-63
        libc = ctypes.CDLL(None, use_errno=True)
        header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
        seen.append(has_net_admin())
        assert libc.capset(header, nothing) == 0
        seen.append(has_net_admin())

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert seen == [True, False]
    assert has_net_admin()


def test_ipv6_is_available_where_its_stack_is() -> None:
    assert ipv6_available() == os.path.exists("/proc/net/if_inet6")


def test_ipv6_counts_as_there_when_a_sandbox_forbids_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", refuse(errno.EAFNOSUPPORT))
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    assert ipv6_available()


@pytest.mark.parametrize(("number", "there"), [(errno.EAFNOSUPPORT, False), (errno.EMFILE, True), (errno.EPERM, True)])
def test_ipv6_is_absent_only_when_the_system_says_so(monkeypatch: pytest.MonkeyPatch, number: int, there: bool) -> None:
    monkeypatch.setattr(socket, "socket", refuse(number))
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert ipv6_available() is there


def refuse(number: int) -> Callable[..., None]:
    def call(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


# --- namespaces for tests ---


def names() -> set[str]:
    try:
        return set(os.listdir("/run/netns"))
    except FileNotFoundError:
        return set()


def test_a_fresh_namespace_has_its_loopback_up_and_nothing_else(netns: Netns) -> None:
    with netns.entered():
        assert socket.if_nameindex() == [(1, "lo")]
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            pass  # reached


def test_a_fresh_namespace_is_gone_afterwards(requires: Callable[..., None]) -> None:
    requires("ip")
    descriptors = len(os.listdir("/proc/self/fd"))
    with Netns() as room:
        name, path = room.name, room.path
        if name is not None:
            assert name in run(["ip", "netns", "list"], timeout=30).stdout
            assert "lo" in run(["ip", "-n", name, "link"], timeout=30).stdout
    assert name not in names()
    assert not os.path.exists(path)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(RuntimeError, match="isn't open"):
        room.entered()


def test_an_error_inside_deletes_the_namespace() -> None:
    room = Netns()

    def fail() -> None:
        with room:
            assert os.path.exists(room.path)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert room.name is None
    assert not os.path.exists(room.path)


def test_a_failed_making_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = names()
    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("meshfw.testing.netns.HeldNamespace", refuse(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"), Netns("meshfw-failed"):
        pytest.fail("made")
    assert not {name for name in names() - before if name.startswith("meshfw-failed")}
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_many_namespaces_are_made_at_once() -> None:
    seen: list[Namespace] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                with Netns("meshfw-many") as room, room.entered():
                    seen.append(Namespace.current())
        except BaseException as error:  # noqa: BLE001 - looked at below, whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(seen) == 24
    assert Namespace.current() not in seen
    assert not {name for name in names() if name.startswith(f"meshfw-many-{os.getpid()}-")}


def test_without_the_right_to_mount_a_namespace_has_no_name(requires: Callable[..., None]) -> None:
    requires("unshare")
    code = """
import os
from meshfw.kernel.netns import Namespace, entered
from meshfw.testing.netns import Netns, available
assert available() is None, available()
home = Namespace.current()
with Netns("meshfw-user") as room, Netns("meshfw-user") as other:
    with entered(room.path):
        assert home != Namespace.current() != other.identity
        assert Namespace.current() == room.identity
    print(room.name, home == Namespace.current())
    names = os.listdir("/run/netns") if os.path.exists("/run/netns") else []
    print([name for name in names if name.startswith("meshfw-user")])
"""
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", code]
    assert run(argv, timeout=60, env={"PYTHONPATH": str(ROOT)}).stdout == "None True\n[]\n"


def test_what_can_not_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available() is None
    monkeypatch.setattr("meshfw.testing.netns._unshare", refuse(errno.EPERM))
    assert "Operation not permitted" in str(available())
