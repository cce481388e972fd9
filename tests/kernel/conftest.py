"""What several modules about the kernel share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.damage import VARIANTS, House, house
from tests.kernel.inn import BACKENDS, Inn


@pytest.fixture(scope="module", params=VARIANTS)
def home(
    request: pytest.FixtureRequest, requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """One house of each variant for all tests of a module."""
    variant: str = request.param
    requires(f"iptables-{variant}-restore", f"ip6tables-{variant}-restore")
    make: Callable[[], Netns] = request.getfixturevalue("kernel_room")
    with house(variant, make, tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture(params=BACKENDS)
def inn(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    requires: Callable[..., None],
) -> Iterator[Inn]:
    """A host for the command line on each backend, with a state directory of its own, the test standing in it."""
    requires("nft", *(f"{stem}-{way}-restore" for stem in ("iptables", "ip6tables") for way in ("nft", "legacy")))
    make: Callable[[], Netns] = request.getfixturevalue("kernel_room")
    yield from _inn(tmp_path, request.param, make, monkeypatch, capsys)


@pytest.fixture
def auto_inn(
    kernel_room: Callable[[], Netns],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tools: None,
) -> Iterator[Inn]:
    """A host for the command line on which auto chooses, as :func:`inn`."""
    yield from _inn(tmp_path, "auto", kernel_room, monkeypatch, capsys)


def _inn(
    directory: Path,
    backend: str,
    make: Callable[[], Netns],
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Inn]:
    patch.chdir(directory)
    patch.setattr("meshfw.config.SYSTEM", str(directory / "none"))
    patch.setenv("STATE_DIRECTORY", str(directory / "state"))
    patch.setenv("XTABLES_LOCKFILE", str(directory / "xtables.lock"))
    made = Inn(directory, backend, make, capsys)
    yield made
    made.close()


@pytest.fixture
def tools(requires: Callable[..., None]) -> None:
    """All tools of all backends."""
    requires("nft", "iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore")


@pytest.fixture
def legacy_seen(netns: Netns) -> None:
    """A user who may look at what stands in legacy tables: who sees none has nothing there to move."""
    with netns.entered():
        if not os.access("/proc/thread-self/net/ip_tables_names", os.R_OK):
            pytest.skip("the list of legacy tables is root's alone in a namespace of an ordinary user")
