"""Laws beside ufw: enabled, changed, reloaded and disabled while meshfw keeps its rules, on every backend.

ufw has its own chains in iptables' table filter; told to manage the built-in chains, it flushes everybody's of several
tables whenever it starts or stops.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.neighbours import JUMP, PROGRAMS, Ours, Street, both_places, streets

pytestmark = pytest.mark.kernel

ALTERNATIVES: Final = Path("/etc/alternatives")
STORY: Final = ("--force enable", "allow 22/tcp", "reload", "delete allow 22/tcp", "disable")
# In a mount namespace of its own: configuration that may be written to, and this mode's iptables where ufw finds it.
PRIVATE: Final = """
mount --make-rprivate /
mount --bind "$1/alternatives" /etc/alternatives
mount --bind "$1/ufw" /etc/ufw
mount --bind "$1/default" /etc/default/ufw
mount -t tmpfs tmpfs /run
shift
exec ufw "$@"
"""


class Ufw:
    """ufw in a street, with a configuration of its own."""

    def __init__(self, street: Street, *, manage_builtins: bool = False) -> None:
        self._street = street
        self._directory = street.directory / "private"
        self._directory.mkdir()
        shutil.copytree("/etc/ufw", self._directory / "ufw")
        default = Path("/etc/default/ufw").read_text(encoding="utf-8")
        default = default.replace("IPT_SYSCTL=/etc/ufw/sysctl.conf", "IPT_SYSCTL=")
        if manage_builtins:
            default = default.replace("MANAGE_BUILTINS=no", "MANAGE_BUILTINS=yes")
        (self._directory / "default").write_text(default, encoding="utf-8")
        shutil.copytree(ALTERNATIVES, self._directory / "alternatives", symlinks=True)
        for program in PROGRAMS:
            link = self._directory / "alternatives" / program
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.realpath(street.programs / program))

    def do(self, command: str) -> None:
        """Run one command of ufw."""
        self._street.run("unshare", "--mount", "sh", "-ec", PRIVATE, "ufw", str(self._directory), *command.split())


@pytest.fixture(scope="module")
def make(
    kernel_room: Callable[[], Netns], requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Street]]:
    requires("nft", "iptables-nft-restore", "iptables-legacy-restore", "unshare", "/usr/sbin/ufw")
    requires(str(ALTERNATIVES / "iptables"))  # by which ufw's iptables is chosen
    with streets(kernel_room, tmp_path_factory.mktemp("ufw")) as make_street:
        yield make_street


@pytest.fixture(scope="module")
def alone(make: Callable[[str], Street]) -> Callable[[str, bool], list[str]]:
    """All rules after each step of the story, where meshfw has none."""

    @cache
    def texts(mode: str, manage_builtins: bool) -> list[str]:
        street = make(mode)
        ufw = Ufw(street, manage_builtins=manage_builtins)
        found = []
        for command in STORY:
            ufw.do(command)
            found.append(street.without())
        assert ["--dport 22 " in text for text in found] == [False, True, True, False, False]
        return found

    return texts


@pytest.mark.parametrize(("name", "mode"), [("iptables-legacy", "legacy"), ("iptables-nft", "nft"), ("nft", "nft")])
def test_ufw_works_as_if_alone(
    make: Callable[[str], Street], alone: Callable[[str, bool], list[str]], name: str, mode: str
) -> None:
    street = make(mode)
    ufw = Ufw(street)
    ours = Ours(street, name, both_places())
    ours.put_right()
    moved = []
    for command, text in zip(STORY, alone(mode, False), strict=True):
        ufw.do(command)
        assert street.without("meshfw") == text
        written = ours.put_right()
        assert [line for line in written if not JUMP.match(line)] == [], "more than our jumps was taken for drift"
        moved += [command] * bool(written)
    # Its jumps stay in the built-in chains from then on, whatever it is told.
    assert moved == ([] if name == "nft" else ["--force enable"])
    ours.clean()


@pytest.mark.parametrize(
    ("name", "mode", "flushed"),
    [("iptables-legacy", "legacy", True), ("iptables-nft", "nft", True), ("nft", "nft", False)],
)
def test_what_ufw_flushes_comes_back(
    make: Callable[[str], Street], alone: Callable[[str, bool], list[str]], name: str, mode: str, flushed: bool
) -> None:
    street = make(mode)
    ufw = Ufw(street, manage_builtins=True)
    ours = Ours(street, name, both_places())
    ours.put_right()
    everything = street.without()
    for command, text in zip(STORY, alone(mode, True), strict=True):
        ufw.do(command)
        assert street.without("meshfw") == text
        gone = command in {"--force enable", "reload", "disable"} and flushed
        assert bool(ours.put_right()) == gone
    assert street.without() == everything
    ours.clean()
