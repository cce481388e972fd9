"""Laws of the agent in a container: process 1 with two capabilities, no service manager, and a root it can't write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

CHECKOUT = Path(__file__).resolve().parents[2]
BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
LISTED = {"nft": "nft list ruleset", "iptables-nft": "iptables-nft-save", "iptables-legacy": "iptables-legacy-save"}
PATIENCE = 60.0  # seconds, generous: the machine may be busy

# $1 is the configuration, $2 the directories that can be written, $3 the checkout and $4 the interpreter.
CONTAINER = r"""
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /var/lib/meshfw
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/meshfw
printf '%s' "$1" > /run/meshfw.toml
for place in /run /var/lib/meshfw /tmp /var/tmp; do
    test "$place" = /run || mount --bind "$place" "$place"
    case " $2 " in
        *" $place "*) test "$place" = /run || mount -t tmpfs -o mode=755 tmpfs "$place" ;;
        *) mount -o remount,bind,ro "$place" ;;
    esac
done
cd /
mount -o remount,bind,ro /
exec setpriv --bounding-set=-all,+net_admin,+net_raw --inh-caps=-all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    "PYTHONPATH=$3" "$4" -m meshfw agent --config /run/meshfw.toml
"""
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--net", "sh", "-ec", CONTAINER, "sh")
PLACES = ("/run", "/var/lib/meshfw")


def config(backend: str) -> str:
    """A configuration that lets one port in, on both families."""
    rule = "-p tcp --dport 22 -j ACCEPT"
    return f'backend = "{backend}"\n[[chain]]\nname = "in"\nattach = {{ hook = "input" }}\nrules = ["{rule}"]\n'


class Container:
    """An agent that is process 1 of its container, as a runtime would start it: ``pid`` as this test has it."""

    def __init__(self, outer: subprocess.Popen[str], log: Path) -> None:
        self.outer = outer
        self._log = log
        self.pid = 0

    def said(self) -> str:
        """All that came on standard error."""
        return self._log.read_text(encoding="utf-8")

    def run(self, *argv: str) -> str:
        """What a command prints that is run in the container, with more capabilities than that has."""
        inside = ("nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--wd=/", "--", *argv)
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for something; AssertionError with the log if it takes too long."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert self.outer.poll() is None, self.said()
            assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}\n{self.said()}"
            time.sleep(0.02)


@pytest.fixture
def contain(tmp_path: Path, requires: Callable[..., None]) -> Iterator[Callable[[str, Sequence[str]], Container]]:
    """The maker of a container with an agent for a backend, in which some places can be written."""
    requires("unshare", "nsenter", "setpriv", "mount", "nft", "iptables-nft-restore", "iptables-legacy-restore")
    if os.geteuid() != 0:
        pytest.skip("a container with mounts of its own takes root")
    made: list[Container] = []

    def start(backend: str, writable: Sequence[str]) -> Container:
        log = tmp_path / f"log-{len(made)}"
        with log.open("w", encoding="utf-8") as file:
            argv = (*ALONE, config(backend), " ".join(writable), str(CHECKOUT), sys.executable)
            outer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True)
        container = Container(outer, log)
        made.append(container)
        container.until(lambda: "keeping the rules of" in container.said(), "the agent is up")
        (pid,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="ascii").split()
        container.pid = int(pid)
        assert container.run("sh", "-c", "touch /etc/meshfw-test; find /etc/meshfw-test") == ""
        return container

    yield start
    for container in made:
        container.outer.kill()
        container.outer.wait()


Contain = Callable[[str, Sequence[str]], Container]


def stopped(container: Container) -> int:
    """The exit code after SIGTERM, which a process 1 must handle or it never comes (pid_namespaces(7))."""
    os.kill(container.pid, signal.SIGTERM)
    return container.outer.wait(timeout=PATIENCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_capabilities_and_no_service_manager_are_enough(contain: Contain, backend: str) -> None:
    container = contain(backend, PLACES)
    listed = LISTED[backend].split()
    assert "dport 22 " in container.run(*listed)
    status = Path(f"/proc/{container.pid}/status").read_text(encoding="utf-8")
    assert f"NSpid:\t{container.pid}\t1\n" in status
    assert "CapBnd:\t0000000000003000\n" in status
    container.run(*("nft flush ruleset" if backend == "nft" else f"{backend} -F").split())
    container.until(lambda: "dport 22 " in container.run(*listed), "what somebody flushed is put back")
    assert stopped(container) == 0
    assert "stopped; the rules stay in place" in container.said()
    assert [line for line in container.said().splitlines() if " warning: " in line and " drift: " not in line] == []


def test_process_1_buries_whom_others_leave_behind(contain: Contain) -> None:
    container = contain("nft", PLACES)
    leave = ("nsenter", "--target", str(container.pid), "--pid", "--", "sh", "-c", "sleep 600 >&- 2>&- & exit")
    subprocess.run(leave, check=True, timeout=PATIENCE)
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    container.until(lambda: children.read_text(encoding="ascii"), "the orphan has come to process 1")
    orphan = int(children.read_text(encoding="ascii"))
    os.kill(orphan, signal.SIGKILL)
    container.until(lambda: "State:\tZ" in Path(f"/proc/{orphan}/status").read_text(encoding="ascii"), "it has ended")
    os.kill(container.pid, signal.SIGHUP)  # or whatever else wakes the agent
    container.until(lambda: not children.read_text(encoding="ascii"), "the orphan is buried")
    assert stopped(container) == 0


@pytest.mark.parametrize("backend", ["nft", "iptables-nft"])
def test_nothing_needs_to_be_written_and_what_is_not_kept_is_told(contain: Contain, backend: str) -> None:
    container = contain(backend, ())
    assert "dport 22 " in container.run(*LISTED[backend].split())
    assert stopped(container) == 0
    said = container.said()
    assert "nobody can ask this agent" in said
    assert "not kept for a rollback: /var/lib/meshfw/meshfw.states: Read-only file system" in said
    assert "Traceback" not in said


def test_legacy_tables_have_a_lock_that_must_be_there(contain: Contain) -> None:
    container = contain("iptables-legacy", ())
    assert "dport 22 " not in container.run("iptables-legacy-save")
    assert "/run/xtables.lock: Read-only file system" in container.said()
    assert stopped(container) == 0
