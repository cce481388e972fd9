"""Laws of probes at work: in the namespace of the rules, within their time, several times, and each with its reason."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshfw.probe import Probe, ProbeKind, Probing
from meshfw.safety.probing import failures
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

ONCE = Probing(attempts=1, timeout=5.0)


def ping(host: str) -> Probe:
    return Probe(kind=ProbeKind.PING, host=host)


def tcp(host: str, port: int) -> Probe:
    return Probe(kind=ProbeKind.TCP, host=host, port=port)


def command(*argv: str) -> Probe:
    return Probe(kind=ProbeKind.COMMAND, argv=argv)


def reasons(probes: list[Probe], room: Netns | None = None, probing: Probing = ONCE) -> list[str]:
    return [item.reason for item in failures(probing, probes, room.path if room else None)]


@pytest.fixture
def port(netns: Netns) -> Iterator[int]:
    """A port on which somebody listens, in both families, in the namespace alone."""
    with netns.entered():
        made = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with made:
        yield made.getsockname()[1]


def allow_pings(room: Netns, groups: str) -> None:
    with room.entered():
        Path("/proc/sys/net/ipv4/ping_group_range").write_text(groups, encoding="ascii")


@pytest.mark.parametrize("groups", ["0 0", "1 0"], ids=["the kernel's own sockets", "raw sockets"])
def test_a_ping_that_is_answered_is_no_failure(netns: Netns, groups: str) -> None:
    allow_pings(netns, groups)
    assert reasons([ping("127.0.0.1"), ping("::1")], netns) == []


def test_what_answers_nothing_fails_with_its_reason(netns: Netns, port: int) -> None:
    assert (
        reasons([ping("192.0.2.1"), ping("2001:db8::1"), tcp("192.0.2.1", 1)], netns) == ["Network is unreachable"] * 3
    )
    assert reasons([tcp("127.0.0.1", 1 if port != 1 else 2)], netns) == ["Connection refused"]
    assert reasons([tcp("no-such-host.invalid", 1)], netns) != []


def test_a_connection_is_made_in_the_namespace(netns: Netns, port: int) -> None:
    probes = [tcp("127.0.0.1", port), tcp("::1", port)]
    assert reasons(probes, netns) == []
    assert len(reasons(probes)) == 2


def test_a_program_says_by_its_exit_code(netns: Netns, tmp_path: Path) -> None:
    script = tmp_path / "check"
    script.write_text("#!/bin/sh\necho no peers >&2\nexit 3\n", encoding="utf-8")
    script.chmod(0o755)
    assert reasons([command("/bin/true")], netns) == []
    assert reasons([command(str(script)), command("/usr/no-such-check")], netns) == [
        "exit code 3: no peers",
        "/usr/no-such-check is not installed",
    ]
    there = f"[ $(readlink /proc/self/ns/net) = 'net:[{netns.identity.inode}]' ]"
    assert reasons([command("/bin/sh", "-c", there)], netns) == []


def test_a_program_that_hangs_is_ended(netns: Netns) -> None:
    began = time.monotonic()
    (reason,) = reasons([command("/bin/sleep", "60")], netns, Probing(attempts=1, timeout=0.2))
    assert "killed after 0.2 s" in reason
    assert time.monotonic() - began < 30


def test_a_probe_gets_its_attempts_side_by_side_with_others(netns: Netns, tmp_path: Path) -> None:
    script = tmp_path / "third"
    script.write_text(f"#!/bin/sh\necho >> {tmp_path}/$1\n[ $(wc -l < {tmp_path}/$1) = 3 ]\n", encoding="utf-8")
    script.chmod(0o755)
    probing = Probing(attempts=3, timeout=20.0)
    assert reasons([command(str(script), name) for name in "abcd"], netns, probing) == []
    assert reasons([command(str(script), "e")], netns, Probing(attempts=2, timeout=20.0)) == ["exit code 1"]
    assert Probing(probes=(ping("::1"),), attempts=3, timeout=20.0).longest == 61.0
    assert probing.longest == 0.0


def test_a_namespace_that_is_not_there_is_a_failure() -> None:
    (failure,) = failures(ONCE, [ping("::1")], "no-such-room")
    assert "there is no network namespace" in failure.reason
