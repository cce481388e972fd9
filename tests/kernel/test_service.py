"""Laws of the services under a booted systemd: started, watched, reloaded, killed, and held to their rights."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from meshfw.service.units import AGENT, DIRECTORY, RESTORE, Start, units
from tests.kernel.booted import SYSTEMD, TARGET, Booted

pytestmark = pytest.mark.kernel

CHECKOUT = Path(__file__).resolve().parents[2]
MESHFW = (sys.executable, "-m", "meshfw")
CONFIG = "/etc/meshfw/meshfw.toml"
BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
LISTED = {"nft": "nft list ruleset", "iptables-nft": "iptables-nft-save", "iptables-legacy": "iptables-legacy-save"}
DROP_IN = f"[Service]\nEnvironment=PYTHONPATH={CHECKOUT}\nRestartSec=0\n"
if any(place.startswith(("/tmp/", "/var/tmp/")) for place in (str(CHECKOUT), sys.prefix, sys.base_prefix)):
    DROP_IN += "PrivateTmp=no\n"  # it would hide what is to be tried
FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
CAP_NET_ADMIN, CAP_NET_RAW = 1 << 12, 1 << 13  # linux/capability.h


def config(backend: str, *ports: int) -> str:
    """A configuration that lets these ports in, on both families."""
    rules = ", ".join(f'"-p tcp --dport {port} -j ACCEPT"' for port in ports)
    return f'backend = "{backend}"\n[[chain]]\nname = "in"\nattach = {{ hook = "input" }}\nrules = [{rules}]\n'


def placed(more: Mapping[str, str], *, drop_in: str = "", netns: str | None = None) -> dict[str, str]:
    """The files of a host on which both units are installed."""
    made = units(Start(program=MESHFW, netns=netns))
    files = {f"{DIRECTORY}/{name}": text for name, text in made.items()}
    files |= {f"{DIRECTORY}/{name}.d/test.conf": DROP_IN + drop_in for name in made}
    return files | dict(more)


Boot = Callable[..., Booted]


@pytest.fixture
def boot(tmp_path: Path, requires: Callable[..., None]) -> Iterator[Boot]:
    """The maker of a booted host with both units and these files; ends the test where no systemd can be booted."""
    requires(SYSTEMD, "unshare", "nsenter", "setpriv", "ip", "nft", "iptables-nft-restore", "iptables-legacy-restore")
    with ExitStack() as stack:

        def booted(more: Mapping[str, str], *, drop_in: str = "", netns: str | None = None) -> Booted:
            room = tmp_path / f"host-{len(os.listdir(tmp_path))}"
            room.mkdir()
            try:
                return stack.enter_context(Booted(room, placed(more, drop_in=drop_in, netns=netns)))
            except OSError as error:
                pytest.skip(f"no systemd can be booted here: {error}")

        yield booted


def holds(host: Booted, backend: str, port: int) -> bool:
    """Whether a port is let in."""
    listed = host.done(*LISTED[backend].split()).stdout
    return f"dport {port} " in listed


def agent(host: Booted) -> int:
    """The agent's process as this test's pid namespace has it; 0 where there is none."""
    procs = Path(f"/proc/{host.pid}/root/sys/fs/cgroup/system.slice/{AGENT}/cgroup.procs")
    inner = host.show(AGENT, "MainPID")
    for number in procs.read_text(encoding="ascii").split() if procs.exists() else ():
        status = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
        if f"\t{inner}\n" in status.partition("NSpid:")[2].partition("NSpgid:")[0]:
            return int(number)
    return 0


def status_of(pid: int) -> dict[str, str]:
    """The fields of a process' status (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_agent_runs_as_a_service_with_no_more_than_it_needs(boot: Boot, backend: str) -> None:
    host = boot({CONFIG: config(backend, 22)})
    host.run("systemctl", "start", AGENT)
    assert holds(host, backend, 22)  # systemctl comes back when the agent is ready, and ready means in place
    first = agent(host)
    status = status_of(first)
    assert int(status["CapBnd"], 16) == CAP_NET_ADMIN | CAP_NET_RAW
    assert int(status["CapEff"], 16) == CAP_NET_ADMIN | CAP_NET_RAW
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    os.kill(first, signal.SIGKILL)
    host.until(
        lambda: host.show(AGENT, "NRestarts") == "1" and host.show(AGENT, "ActiveState") == "active", "restarted"
    )
    assert agent(host) not in (0, first)
    assert holds(host, backend, 22)

    host.write(CONFIG, config(backend, 22, 80))
    host.run("systemctl", "reload", AGENT)
    host.until(lambda: holds(host, backend, 80), "the reloaded configuration is in place")
    host.run("sh", "-c", f"{'nft flush ruleset' if backend == 'nft' else backend + ' -F'}")
    host.until(lambda: holds(host, backend, 80), "what somebody flushed is put back")

    host.run("systemctl", "stop", AGENT)
    assert host.show(AGENT, "Result") == "success"
    assert agent(host) == 0
    assert holds(host, backend, 80)
    host.run("env", f"PYTHONPATH={CHECKOUT}", *MESHFW, "check")  # the command line shares what the agent kept
    assert host.run("ls", "-A", "/run/meshfw").split() == ["proofs.json"]
    denied = host.done("journalctl", "--no-pager", "--output=cat", "--grep=denied|not permitted|read-only").stdout
    assert denied.strip() in ("", "-- No entries --")


def test_an_agent_that_hangs_is_killed_by_the_watchdog_and_started_again(boot: Boot) -> None:
    host = boot({CONFIG: config("nft", 22)}, drop_in="WatchdogSec=1\n")
    host.run("systemctl", "start", AGENT)
    first = agent(host)
    host.until(lambda: host.show(AGENT, "StatusText").startswith("watching"), "it says what it does")
    host.run("sleep", "1.5")  # longer than the watchdog waits, and it lives
    assert agent(host) == first
    os.kill(first, signal.SIGSTOP)
    host.until(lambda: agent(host) not in (0, first), "another one runs")
    host.until(lambda: host.show(AGENT, "ActiveState") == "active", "it's up")
    assert "Watchdog timeout" in host.journal()
    assert holds(host, "nft", 22)


def test_no_capability_is_given_that_nothing_needs(boot: Boot) -> None:
    host = boot({CONFIG: ""}, drop_in="CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_NET_ADMIN\n")
    for backend in BACKENDS if FULL else ("iptables-legacy",):
        host.write(CONFIG, config(backend, 22))
        host.run("systemctl", "restart", AGENT)
        # Legacy tables are read and written through a raw socket, for which CAP_NET_ADMIN isn't enough.
        assert holds(host, backend, 22) == (backend != "iptables-legacy")
        host.run("systemctl", "stop", AGENT)
        host.run("env", f"PYTHONPATH={CHECKOUT}", *MESHFW, "clean")
    host.write(f"{DIRECTORY}/{AGENT}.d/test.conf", f"{DROP_IN}CapabilityBoundingSet=~CAP_NET_ADMIN\n")
    host.write(CONFIG, config("nft", 22))
    host.run("systemctl", "daemon-reload")
    host.done("systemctl", "start", AGENT)
    assert not holds(host, "nft", 22)
    host.until(lambda: "CAP_NET_ADMIN" in host.journal(), "it says what it lacks")


@pytest.mark.parametrize("backend", BACKENDS if FULL else ("nft",))
def test_a_service_keeps_another_namespace_made_later(boot: Boot, backend: str) -> None:
    host = boot({CONFIG: config(backend, 22)}, netns="blue")
    host.run("systemctl", "start", AGENT)
    assert "there is no network namespace" in host.show(AGENT, "StatusText")
    inside = ("nsenter", "--net=/run/netns/blue", *LISTED[backend].split())
    for _ in range(2 if FULL else 1):  # the second one is noticed when the agent looks by itself
        host.run("ip", "netns", "add", "blue")
        host.until(lambda: "dport 22 " in host.done(*inside).stdout, "the rules are in place there")
        assert not holds(host, backend, 22)
        host.run("ip", "netns", "del", "blue")


FLUSHES = """[Unit]
DefaultDependencies=no
Before=network-pre.target
[Service]
Type=oneshot
ExecStart=sh -c 'sleep 1; nft flush ruleset; iptables-legacy -F'
"""
NETWORK = f"""[Unit]
After=network-pre.target
[Service]
Type=oneshot
ExecStart=sh -c '{" ; ".join(LISTED.values())}'
StandardOutput=file:/run/before-the-network
"""


@pytest.mark.parametrize("backend", BACKENDS if FULL else ("nft",))
def test_the_last_good_rules_are_back_before_the_network(boot: Boot, backend: str) -> None:
    first = boot({CONFIG: config(backend, 22)})
    first.run("systemctl", "start", AGENT)
    assert holds(first, backend, 22)
    kept = first.files("/var/lib/meshfw")
    assert kept
    first.close()

    files = {
        CONFIG: config(backend, 22),
        f"{DIRECTORY}/sysinit.target.d/test.conf": f"[Unit]\nWants=nftables.service {RESTORE}\n",
        f"{DIRECTORY}/nftables.service": FLUSHES,
        f"{DIRECTORY}/network.service": NETWORK,
        f"{DIRECTORY}/{TARGET}.d/test.conf": "[Unit]\nWants=network.service\nAfter=network.service\n",
    }
    second = boot({**files, **kept})
    assert second.show(RESTORE, "ActiveState") == "active", second.journal()
    assert "dport 22 " in second.run("cat", "/run/before-the-network"), second.journal()
    second.run("systemctl", "start", AGENT)
    assert holds(second, backend, 22)
    said = second.run("journalctl", "--no-pager", "--output=cat", f"--unit={AGENT}")
    assert "applied" not in said  # it took over what stood
    second.run("systemctl", "stop", RESTORE)  # as at a shutdown
    assert holds(second, backend, 22)


def test_a_host_that_never_had_rules_starts_all_the_same(boot: Boot) -> None:
    host = boot({f"{DIRECTORY}/sysinit.target.d/test.conf": f"[Unit]\nWants={RESTORE}\n"})
    host.until(lambda: host.show(RESTORE, "ActiveState") == "active", "it has nothing to do")
    assert host.run("nft", "list", "ruleset") == ""


def test_a_probe_may_give_up_its_capabilities(boot: Boot) -> None:
    # As ping(8) does before anything else, and it ends where it can't.
    probe = f"ExecStart=\nExecStart={shutil.which('setpriv')} --inh-caps=-all true\n"
    host = boot({}, drop_in=probe)
    host.run("systemctl", "start", RESTORE)
