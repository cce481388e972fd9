"""Laws beside CNI plugins: pods come and go while meshfw keeps its rules, on every backend.

The chain is Kilo's: bridge with host-local addresses, then portmap, then firewall. The plugins run the ``iptables``
that PATH finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.neighbours import JUMP, MAKERS, MODES, Ours, Street, both_places, streets

pytestmark = pytest.mark.kernel

PLUGINS: Final = Path("/usr/lib/cni")
NETWORK: Final[Mapping[str, Any]] = {"cniVersion": "1.0.0", "name": "kubernetes"}
RANGES: Final = ("10.42.0.0/24", "fd00:42::/64")
STORY: Final = (("ADD", 1), ("ADD", 2), ("DEL", 1), ("ADD", 3), ("DEL", 3), ("DEL", 2))
"""What happens to which pod; one that goes is not always the last that came."""


class Pods:
    """Pods behind a street, brought and taken away by CNI plugins."""

    def __init__(self, street: Street, make_room: Callable[[], Netns], stack: ExitStack) -> None:
        self._street = street
        self._rooms = {number: stack.enter_context(make_room()) for _, number in STORY}
        self._results: dict[int, Any] = {}

    def do(self, command: str, number: int) -> None:
        """Run the chain of plugins for a pod; a deletion runs them in reverse, with the result of the addition."""
        plugins = self._plugins(number)
        for plugin in plugins if command == "ADD" else reversed(plugins):
            environment = {
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": f"pod{number}",
                "CNI_NETNS": self._rooms[number].path,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(PLUGINS),
            }
            asked = {**NETWORK, **plugin}
            if number in self._results:
                asked["prevResult"] = self._results[number]
            done = self._street.run(str(PLUGINS / plugin["type"]), text=json.dumps(asked), env=environment, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            if command == "ADD":
                self._results[number] = json.loads(done.stdout)

    def _plugins(self, number: int) -> Sequence[Mapping[str, Any]]:
        addresses = {
            "type": "host-local",
            "dataDir": str(self._street.directory / "addresses"),
            "ranges": [[{"subnet": subnet}] for subnet in RANGES],
        }
        port = {"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp"}
        return (
            {"type": "bridge", "bridge": "kube-bridge", "isDefaultGateway": True, "ipMasq": True, "ipam": addresses},
            {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": [port]}},
            {"type": "firewall", "backend": "iptables"},
        )


Maker = Callable[[str], tuple[Street, Pods]]


@pytest.fixture(scope="module")
def make(
    kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Maker]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
    requires(*(str(PLUGINS / plugin) for plugin in ("bridge", "host-local", "portmap", "firewall")))
    with ExitStack() as stack, streets(kernel_room, tmp_path_factory.mktemp("cni")) as make_street:

        def made(mode: str) -> tuple[Street, Pods]:
            street = make_street(mode)
            return street, Pods(street, kernel_room, stack)

        yield made


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(make: Maker, mode: str) -> list[str]:
    """All rules after each step of the story, where meshfw has none."""
    street, pods = make(mode)
    texts = []
    for step in STORY:
        pods.do(*step)
        texts.append(street.without())
    assert ["pod1" in text for text in texts] == [True, True, False, False, False, False]
    return texts


@pytest.mark.parametrize("name", MAKERS)
def test_pods_come_and_go_as_if_alone(make: Maker, alone: Sequence[str], name: str, mode: str) -> None:
    street, pods = make(mode)
    ours = Ours(street, name, both_places())
    ours.put_right()
    moved = 0
    for step, text in zip(STORY, alone, strict=True):
        pods.do(*step)
        assert street.without("meshfw") == text
        written = ours.put_right()
        assert [line for line in written if not JUMP.match(line)] == [], "more than our jumps was taken for drift"
        moved += bool(written)
    assert (moved > 0) == (name == f"iptables-{mode}"), "only a jump whose place is taken moves"
    ours.clean()
    assert street.without() == alone[-1]
