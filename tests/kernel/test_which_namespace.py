"""Laws of whose states are whose: those of a namespace never pass for the host's, however a command came into it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.backends.remembered import lasting_name
from meshfw.safety.pending import Register
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).resolve().parents[2]
FEW_RIGHTS = ("setpriv", "--bounding-set=-all,+net_admin,+net_raw")
"""The rights of the service: too few to look at process 1's namespace by ptrace(2)."""
TOLD = (
    "import os; from meshfw.backends.remembered import lasting_name, lasting_netns\n"
    "try: os.stat('/proc/1/ns/net'); seen = 'seen'\n"
    "except PermissionError: seen = 'unseen'\n"
    "print(seen, lasting_name('edge', None), lasting_netns(None))"
)
CONFIG = 'owner = "edge"\nbackend = "nft"\n[[chain]]\nname = "in"\nattach = { hook = "input" }\nrules = ["-j ACCEPT"]\n'


@pytest.fixture(autouse=True)
def _outermost(requires: Callable[..., None]) -> None:
    requires("setpriv", "unshare", "nsenter", "ip")
    users = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    if os.geteuid() != 0 or users != ["0", "0", str(2**32 - 1)]:
        pytest.skip("in a user namespace nothing is the host's")


def told(*before: str) -> list[str]:
    """Whether process 1's namespace could be seen, the name of the caller's, and how that one is called."""
    argv = (*before, sys.executable, "-c", TOLD)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.split()


def process_one(*script: str) -> tuple[str, ...]:
    """A command below a process 1 of its own, which has every right."""
    return ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"; true', "sh", *script)


def test_the_namespace_of_process_1_is_the_hosts_also_for_who_has_few_rights() -> None:
    assert told(*process_one()) == ["seen", "edge", "None"]
    assert told(*process_one(*FEW_RIGHTS)) == ["unseen", "edge", "None"]


@pytest.mark.parametrize("rights", [(), FEW_RIGHTS], ids=["all", "few"])
def test_a_namespace_without_a_name_has_no_states_whoever_asks(rights: tuple[str, ...]) -> None:
    seen, name, called = told(*process_one("unshare", "--net", *rights))
    assert (seen, name, called) == ("unseen" if rights else "seen", "None", "/proc/thread-self/ns/net")


@pytest.mark.parametrize("rights", [(), FEW_RIGHTS], ids=["all", "few"])
def test_a_named_namespace_has_its_names_states_however_one_came_there(netns: Netns, rights: tuple[str, ...]) -> None:
    assert netns.name is not None
    own = lasting_name("edge", netns.name)
    assert told("nsenter", f"--net={netns.path}", *rights)[1:] == [own, netns.name]
    assert told("ip", "netns", "exec", netns.name, *rights)[1:] == [own, netns.name]


def test_what_is_applied_inside_a_namespace_is_known_outside_by_its_name(netns: Netns, tmp_path: Path) -> None:
    assert netns.name is not None
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    state = tmp_path / "state"
    env = os.environ | {"PYTHONPATH": str(ROOT), "STATE_DIRECTORY": str(state)}
    inside = ("nsenter", f"--net={netns.path}")

    def meshfw(*words: str, before: tuple[str, ...] = inside) -> str:
        argv = (*before, sys.executable, "-m", "meshfw", *words)
        return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    meshfw("apply", "--confirm", "10m")
    pending = Register(str(state), owner="edge", namespace=netns.identity).of_any_boot()
    assert pending is not None
    assert pending.netns == netns.name  # not None, as the host's: after a restart its change would be held off there
    meshfw("confirm")
    assert {path.name.partition(".")[0] for path in state.iterdir()} == {f"edge@{netns.name}"}
    subprocess.run((*inside, "nft", "flush", "ruleset"), check=True)
    assert "transaction (nft)" in meshfw("restore", "--netns", netns.name, before=())
    assert meshfw("apply") == "nothing to do (nft)\n"
