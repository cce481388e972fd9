"""Fixtures for tests on a real kernel: tools that are there or a clear word, network namespaces, a state of one's own.

pytest takes them in by ``-p meshfw.testing.fixtures`` in its ``addopts``. What a test lacks skips it, with the command
that installs it; where the environment variable ``CI`` is ``true``, everything must be there, and the test fails.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from meshfw.testing.netns import Netns

__all__ = ["IN_CI", "PACKAGES", "cannot_run", "kernel_room", "loopback", "netns", "requires"]

pytest_plugins = ("meshfw.testing.reporting",)

IN_CI: Final = os.environ.get("CI") == "true"
"""Whether everything a test may ask for has to be there."""

PACKAGES: Final = {
    "/etc/alternatives/iptables": "iptables",
    "/lib/systemd/systemd": "systemd",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/cni/firewall": "containernetworking-plugins",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/usr/lib/cni/portmap": "containernetworking-plugins",
    "/usr/lib/python3/dist-packages/firewall/core/fw.py": "python3-firewall",
    "/usr/lib/python3/dist-packages/nftables/nftables.py": "python3-nftables",
    "/usr/sbin/ufw": "ufw",
    "dot": "graphviz",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "ip": "iproute2",
    "ip6tables-legacy-restore": "iptables",
    "ip6tables-nft-restore": "iptables",
    "ipset": "ipset",
    "iptables-legacy-restore": "iptables",
    "iptables-nft-restore": "iptables",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}
"""The Debian package of each tool, or file that is no tool of PATH, that a test may ask for."""


def pytest_configure(config: pytest.Config) -> None:
    """The marker of tests that need a kernel."""
    config.addinivalue_line(
        "markers",
        "kernel: needs root (or a user namespace) and a kernel with nf_tables; runs in a network namespace of its own",
    )


def cannot_run(reason: str, remedy: str) -> NoReturn:
    """The end of a test that lacks something: a failure in CI, where everything must be there, else a skip."""
    message = f"{reason}; {remedy}"
    if IN_CI:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def _state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what tests leave for the next time out of this host's /var/lib and /run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
        patch.setenv("RUNTIME_DIRECTORY", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="session")
def requires() -> Callable[..., None]:
    """Ends the test when one of the named tools is not in PATH, or a file not there: ``requires("nft", "/etc/x")``."""

    def check(*tools: str) -> None:
        missing = [tool for tool in tools if shutil.which(tool) is None and not os.path.isfile(tool)]
        if missing:
            packages = sorted({PACKAGES.get(tool, tool) for tool in missing})
            cannot_run(f"not installed: {', '.join(missing)}", f"apt-get install {' '.join(packages)}")

    return check


@pytest.fixture(scope="session")
def loopback() -> None:
    """Ends the test where this host's own addresses can't be reached, as in a network namespace just made."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host, 9))
        except OSError as error:
            cannot_run(f"{host} can't be reached: {error.strerror}", "ip link set lo up")


@pytest.fixture(scope="session")
def kernel_room() -> Callable[[], Netns]:
    """The maker of a network namespace; ends the test where none can be made."""
    # Imported here: the tests of the pure rooms run where the kernel's rooms can't.
    from meshfw.testing import netns as rooms

    reason = rooms.available()
    if reason is not None:
        cannot_run(reason, "run the tests as root, or inside `unshare -rn`")
    return rooms.Netns


@pytest.fixture
def netns(kernel_room: Callable[[], Netns]) -> Iterator[Netns]:
    """A network namespace of the test's own, empty, and gone when the test ends."""
    with kernel_room() as room:
        yield room


@pytest.fixture(autouse=True)
def _kernel_tests_need_a_kernel(request: pytest.FixtureRequest) -> None:
    """Ends each test marked ``kernel`` where no network namespace can be made."""
    if request.node.get_closest_marker("kernel") is not None:
        request.getfixturevalue("kernel_room")
