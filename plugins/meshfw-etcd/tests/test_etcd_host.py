"""Laws of a host whose rules come from a store: apply and the agent, in a namespace, with nft in the kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from meshfw_etcd.client import Access, Client
from meshfw_etcd.documents import Ack, Trial
from meshfw_etcd.documents import Node as NodeDocument
from meshfw_etcd.testing import Server, until
from meshfw_etcd.testing.desk import Desk, rules

from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

INPUT = '[[chain]]\nname = "in"\nattach = { hook = "input" }\nrules = ["-s 10.0.0.%d -j DROP"]\n'
REFUSED = rules("-m nosuchmatch -j DROP")
"""What the language knows as opaque, and nft refuses."""


class Host:
    """A host of its own: a namespace, a configuration with the source, and a state directory."""

    def __init__(self, room: Netns, desk: Desk, directory: Path, *, more: str = "") -> None:
        self.room = room
        self.file = directory / "meshfw.toml"
        self.file.write_text(
            f'owner = "edge"\nbackend = "nft"\nplugins = ["etcd"]\n[agent]\nresync = 1\nlog = "json"\n{more}'
            f'[[source]]\ntype = "etcd"\nnode = "n"\nendpoints = "{desk.endpoint}"\nheartbeat = 1\ntimeout = 1\n'
        )
        self.environment = {**os.environ}
        for name in ("STATE", "RUNTIME"):
            (directory / name).mkdir(mode=0o700)
            self.environment[f"{name}_DIRECTORY"] = str(directory / name)
        self.log = directory / "log"

    def command(self, *words: str) -> Sequence[str]:
        return (sys.executable, "-m", "meshfw", *words, "--config", str(self.file), "--netns", self.room.path)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def agent(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command("agent"), env=self.environment, stderr=log, stdin=subprocess.DEVNULL)

    def status(self) -> dict[str, Any]:
        said = self.run("status", "--json").stdout
        found: dict[str, Any] = json.loads(said)
        return found

    def drops(self) -> list[int]:
        """The last numbers of the addresses that the kernel drops."""
        done = subprocess.run(
            ("nsenter", f"--net={self.room.path}", "nft", "-j", "list", "ruleset"),
            capture_output=True,
            text=True,
            check=True,
        )
        text = json.dumps(json.loads(done.stdout))
        return [number for number in range(1, 20) if f'"10.0.0.{number}"' in text]


@pytest.fixture
def server(requires: Callable[..., None], loopback: None, tmp_path: Path) -> Iterator[Server]:
    requires("etcd", "nft", "nsenter")
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def desk(server: Server, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(server.endpoint, tmp_path)
    yield desk
    desk.close()


def said(desk: Desk, release: int, state: str) -> Callable[[], bool]:
    """Whether the node has said that of a release."""

    def check() -> bool:
        ack = desk.ack()
        return ack is not None and (ack.release, ack.state) == (release, state)

    return check


def test_apply_acknowledges_what_the_kernel_holds_and_what_it_refused(
    netns: Netns, desk: Desk, server: Server, tmp_path: Path
) -> None:
    host = Host(netns, desk, tmp_path)
    desk.publish(1, INPUT % 1)
    assert host.run("plan").returncode == 2
    assert desk.ack() is None
    done = host.run("apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert host.drops() == [1]
    assert said(desk, 1, "applied")()
    desk.publish(2, REFUSED)
    done = host.run("apply")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert host.drops() == [1]
    ack = desk.ack()
    assert isinstance(ack, Ack)
    assert (ack.release, ack.state, ack.holds) == (2, "failed", 1)
    assert "nosuchmatch" in ack.error
    server.kill()
    done = host.run("apply")  # as after a reboot: what was applied last
    assert done.returncode == 0
    assert "the rules are those applied here at" in done.stderr
    assert host.drops() == [1]


def test_an_agent_follows_the_store_through_everything(
    netns: Netns, desk: Desk, server: Server, tmp_path: Path
) -> None:
    host = Host(netns, desk, tmp_path)
    desk.publish(1, INPUT % 1)
    agent = host.agent()
    try:
        until(said(desk, 1, "applied"))
        assert host.drops() == [1]
        desk.publish(2, INPUT % 2)
        until(said(desk, 2, "applied"))
        assert host.drops() == [2]
        desk.publish(3, REFUSED)
        until(said(desk, 3, "failed"))
        desk.client.put("/meshfw/v1/common", b"junk")
        until(said(desk, 0, "failed"))
        assert host.drops() == [2]
        desk.publish(3, INPUT % 3)
        until(said(desk, 3, "applied"))
        server.kill()
        until(lambda: "no news since" in host.status()["problem"])
        assert host.drops() == [3]
        server.start()
        desk.publish(4, INPUT % 4)
        until(said(desk, 4, "applied"))
        until(lambda: host.status()["problem"] == "")
        desk.give(NodeDocument(trial=Trial.of(5, INPUT % 5)))
        until(said(desk, 5, "applied"))
        assert host.drops() == [5]
        desk.publish(6, INPUT % 5)  # the same rules: nothing to do, and acknowledged all the same
        until(said(desk, 6, "applied"))
    finally:
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
    assert host.drops() == [5]
    assert "Traceback" not in host.log.read_text()


def test_an_agent_that_starts_without_the_store_keeps_the_last_rules(
    netns: Netns, desk: Desk, server: Server, tmp_path: Path
) -> None:
    host = Host(netns, desk, tmp_path, more="last_good = false\n")
    desk.publish(1, INPUT % 1)
    assert host.run("apply").returncode == 0
    server.kill()
    assert host.run("clean").returncode == 0
    assert host.drops() == []
    agent = host.agent()
    try:
        until(lambda: host.drops() == [1])
        server.start()
        desk.publish(2, INPUT % 2)
        until(said(desk, 2, "applied"))
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(30)


# --- who may ask ---


@pytest.fixture
def papers(requires: Callable[..., None], tmp_path: Path) -> Path:
    """A directory with a CA and a certificate for a server at 127.0.0.1, good for a client as well."""
    requires("openssl", "etcd")
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    sign = ("openssl", "x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key")
    for command in (
        (*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"),
        (*new, "-subj", "/CN=node", "-keyout", "node.key", "-out", "node.csr"),
        (*sign, "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "node.pem"),
    ):
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    return tmp_path


def test_a_store_behind_tls_asks_for_a_certificate(papers: Path, loopback: None) -> None:
    ca, cert, key = (str(papers / name) for name in ("ca.pem", "node.pem", "node.key"))
    options = ["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"]
    with Server(papers, scheme="https", options=options) as server:
        access = Access(endpoints=(server.endpoint,), ca_file=ca, cert_file=cert, key_file=key, timeout=20.0)
        with Client(access) as client:
            first = client.put("/a", b"1")
            watching = client.watch({"/a": first})
            batches = iter(watching)
            assert [len(next(batches).changes), len(next(batches).changes)] == [0, 1]
            watching.close()
        desk = Desk("http://127.0.0.1:1", papers)
        desk.endpoint = server.endpoint
        for files in ({}, {"ca_file": ca}):
            source = desk.source(**files)
            with pytest.raises(Exception, match="no rules are kept"):
                source.load()
        desk.close()
