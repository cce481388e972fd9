"""Laws beside firewalld's core: started, changed, reloaded and stopped while meshfw keeps its rules, on every backend.

Whenever it starts, reloads or stops, it empties every table of iptables, everybody's rules included; with nftables,
where it keeps a table of its own, no less than with iptables.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.neighbours import MAKERS, MODES, Ours, Street, both_places, streets

pytestmark = pytest.mark.kernel

PYTHON: Final = "/usr/bin/python3"
LIBRARIES: Final = Path("/usr/lib/python3/dist-packages")
ZONES: Final = {"public": "default", "block": "%%REJECT%%", "drop": "DROP", "trusted": "ACCEPT"}
STORY: Final = ("start", "add", "reload", "stop")
# Reads a step a line, does it, and answers with the state that firewalld is then in.
DRIVER: Final = """
import json, sys
from firewall import config
directory, programs = sys.argv[1:]
config.set_system_config_paths(directory)
config.set_default_config_paths(directory + "/none")
for name in ("ipv4", "ipv4-restore", "ipv6", "ipv6-restore"):
    config.COMMANDS[name] = programs + "/" + config.COMMANDS[name].rpartition("/")[2]
config.FIREWALLD_TEMPDIR = directory
config.COMMANDS["modprobe"] = config.COMMANDS["rmmod"] = "/bin/true"
from firewall.core.fw import Firewall
firewall = Firewall(offline=False)
steps = {
    "start": firewall.start,
    "add": lambda: firewall.zone.add_port("public", "8080", "tcp"),
    "reload": firewall.reload,
    "stop": firewall.stop,
}
for line in sys.stdin:
    steps[line.strip()]()
    print(json.dumps(firewall.get_state()), flush=True)
"""


class Firewalld:
    """firewalld's core in a street, with a configuration of its own and no bus."""

    def __init__(self, street: Street, backend: str) -> None:
        directory = street.directory / "firewalld"
        (directory / "zones").mkdir(parents=True)
        for name, target in ZONES.items():
            zone = f'<zone target="{target}"><short>{name}</short></zone>'
            (directory / "zones" / f"{name}.xml").write_text(zone, encoding="utf-8")
        settings = f"FirewallBackend={backend}\nDefaultZone=public\nIPv6_rpfilter=yes\n"
        (directory / "firewalld.conf").write_text(settings, encoding="utf-8")
        with street.room.entered():
            self._process = subprocess.Popen(
                (PYTHON, "-c", DRIVER, str(directory), str(street.programs)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | street.environment,
                text=True,
            )

    def close(self) -> None:
        """End the process; what stands in the room stays."""
        self._process.communicate()

    def do(self, step: str) -> None:
        """Take one step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        state = self._process.stdout.readline()
        assert json.loads(state) == ("INIT" if step == "stop" else "RUNNING")


@contextmanager
def firewalld_in(street: Street, backend: str) -> Iterator[Firewalld]:
    firewalld = Firewalld(street, backend)
    try:
        yield firewalld
    finally:
        firewalld.close()


@pytest.fixture(scope="module")
def make(
    kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Street]]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore", PYTHON)
    requires(*(str(LIBRARIES / path) for path in ("firewall/core/fw.py", "nftables/nftables.py")))
    with streets(kernel_room, tmp_path_factory.mktemp("firewalld")) as make_street:
        yield make_street


@pytest.fixture(scope="module")
def alone(make: Callable[[str], Street]) -> Callable[[str, str], list[str]]:
    """All rules after each step of the story, where meshfw has none."""

    @cache
    def texts(backend: str, mode: str) -> list[str]:
        street = make(mode)
        found = []
        with firewalld_in(street, backend) as firewalld:
            for step in STORY:
                firewalld.do(step)
                found.append(street.without())
        assert ["8080" in text for text in found] == [False, True, False, False]
        return found

    return texts


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("name", MAKERS)
def test_firewalld_works_as_if_alone_and_what_it_flushes_comes_back(
    make: Callable[[str], Street], alone: Callable[[str, str], list[str]], name: str, backend: str, mode: str
) -> None:
    street = make(mode)
    ours = Ours(street, name, both_places())
    ours.put_right()
    flushed = []
    with firewalld_in(street, backend) as firewalld:
        for step, text in zip(STORY, alone(backend, mode), strict=True):
            firewalld.do(step)
            assert street.without("meshfw") == text
            flushed += [step] * bool(ours.put_right())
    assert flushed == (["start", "reload", "stop"] if name == f"iptables-{mode}" else [])
    ours.clean()
