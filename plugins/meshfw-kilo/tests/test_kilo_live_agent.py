"""meshfw on a live cluster, whole: a Peer more is rules more, and an API that is gone takes none away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml
from kilo_fake_api import FakeApi
from kilo_fake_store import NODES, PEERS
from kilo_meshes import peer_object, ready_node
from meshfw_kilo.kubernetes import LiveCluster
from meshfw_kilo.kubernetes_access import Access

from meshfw.testing.netns import Netns

CONFIG = """\
backend = "nft"
[agent]
resync = 1
debounce = 0.01
[[source]]
type = "kilo"
node = "a1"
kubernetes = true
server = "{server}"
"""


@pytest.fixture
def api(loopback: None) -> Iterator[FakeApi]:
    with FakeApi() as fake:
        fake.install_peers()
        now = int(time.time()) + 3600  # nobody falls silent while the test runs, however long it takes
        fake.store.create(NODES, ready_node("a1", "10.42.0.0/24", "10.0.1.11/24", at=now))
        fake.store.create(NODES, ready_node("a2", "10.42.1.0/24", "10.0.1.12/24", at=now))
        fake.store.create(PEERS, peer_object("laptop"))
        yield fake


class Host:
    """A namespace whose firewall meshfw keeps, from a process outside, by what an API says."""

    def __init__(self, room: Netns, directory: Path, api: FakeApi) -> None:
        self.room, self.directory = room, directory
        (directory / "meshfw.toml").write_text(CONFIG.format(server=api.url))
        self.environment = os.environ | {
            name: str(directory / name.lower()) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY")
        }

    def command(self, verb: str) -> Sequence[str]:
        common = ("--config", str(self.directory / "meshfw.toml"), "--netns", self.room.path)
        return sys.executable, "-m", "meshfw", verb, *common

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        done = self.command(verb)
        return subprocess.run(done, env=self.environment, capture_output=True, text=True, check=False, timeout=60)

    def rules(self) -> str:
        with self.room.entered():
            return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

    @contextmanager
    def agent(self) -> Iterator[Path]:
        """A running agent, and the file that it logs to."""
        log = self.directory / "agent.log"
        with log.open("w") as stream:
            agent = subprocess.Popen(self.command("agent"), env=self.environment, stderr=stream)
            try:
                yield log
            finally:
                agent.terminate()
                assert agent.wait(30) == 0


@pytest.fixture
def host(netns: Netns, tmp_path: Path, api: FakeApi, requires: Callable[..., None]) -> Host:
    requires("nft")
    return Host(netns, tmp_path, api)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


@pytest.mark.kernel
def test_the_agent_follows_the_api_and_keeps_the_rules_while_it_is_gone(host: Host, api: FakeApi) -> None:
    with host.agent() as log:
        until(lambda: "10.5.0.1" in host.rules())
        assert "10.42.1.0/24" in host.rules()
        api.store.create(PEERS, peer_object("office", allowedIPs=["10.6.0.0/24"]))
        until(lambda: "10.6.0.0/24" in host.rules())
        api.store.delete(PEERS, "office")
        until(lambda: "10.6.0.0/24" not in host.rules())
        before = host.rules()
        api.stop()
        until(lambda: log.read_text().count("aren't heard, and what was last heard stays") == 2)
        assert host.rules() == before
        api.store.delete(NODES, "a2")
        api.store.forget()
        api.start()
        until(lambda: "10.42.1.0/24" not in host.rules())
        assert "10.5.0.1" in host.rules()


def test_the_role_of_the_readme_is_what_is_asked_for(api: FakeApi) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = (
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "ClusterRole" in text
    )
    allowed = {
        (verb, resource)
        for block in blocks
        for rule in block["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    with closing(LiveCluster(Access(server=api.url))) as cluster:
        cluster.read()
        until(lambda: len(api.watches) == 2)
    asked = {("watch" if "watch" in query else "list", path.rsplit("/", 1)[1]) for _, path, query in api.requests}
    assert asked == allowed
    assert {method for method, _, _ in api.requests} == {"GET"}


@pytest.mark.kernel
def test_an_apply_without_the_api_changes_nothing_and_says_why(host: Host, api: FakeApi) -> None:
    done = host.run("apply")
    assert done.returncode == 0, done.stderr
    before = host.rules()
    assert "10.5.0.1" in before
    assert host.run("check").returncode == 0
    api.store.create(PEERS, peer_object("office", allowedIPs=["10.6.0.0/24"]))
    api.faults.forbidden = {("list", "peers")}
    refused = host.run("apply")
    assert refused.returncode == 1
    assert "its account may not list peers: a ClusterRole has to allow" in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.stderr
    assert host.rules() == before
    api.calm()
    assert host.run("apply").returncode == 0
    assert "10.6.0.0/24" in host.rules()
