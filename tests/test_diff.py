"""Laws of the verb ``diff``: equal meanings are equal whatever their text, and each difference has its place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.testing.netns import Netns
from tests.test_cli import spawned

ONE = """\
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:a - [0:0]
-A INPUT -p 6 --dport 22 -m state --state NEW -j a
[7:99] -A a -s 10.1.2.3 -j ACCEPT
COMMIT
"""
SAME = """\
*mangle
:OUTPUT ACCEPT [0:0]
COMMIT
*filter
:INPUT DROP [5:5]
:a - [0:0]
-A a -s 10.1.2.3/255.255.255.255 -j ACCEPT
-A INPUT -m conntrack --ctstate NEW -p tcp -m tcp --dport 22 -j a
COMMIT
"""
OTHER = """\
*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:b - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp --dport 22 -m state --state NEW -j b
-A OUTPUT -j b
COMMIT
"""


def compared(tmp_path: Path, one: str, other: str, *options: str) -> subprocess.CompletedProcess[str]:
    for name, text in (("one", one), ("other", other)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return spawned("diff", *options, "one", "other", cwd=tmp_path)


def test_equal_meanings_are_equal_whatever_their_text(tmp_path: Path) -> None:
    done = compared(tmp_path, ONE, SAME)
    assert (done.returncode, done.stdout, done.stderr) == (0, "both mean the same\n", "")


def test_every_difference_is_told_by_its_place(tmp_path: Path) -> None:
    done = compared(tmp_path, ONE, OTHER)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "6 differences from one to other",
        "~ ipv4 filter INPUT: policy drop => policy accept",
        "~ ipv4 filter INPUT 1: -p tcp -m tcp --dport 22 -m state --state NEW -j a => -i lo -j ACCEPT",
        "+ ipv4 filter INPUT 2: -p tcp -m tcp --dport 22 -m state --state NEW -j b",
        "+ ipv4 filter OUTPUT 1: -j b",
        "+ ipv4 filter b",
        "- ipv4 filter a",
    ]


def test_what_came_one_way_goes_the_other(tmp_path: Path) -> None:
    lines = compared(tmp_path, OTHER, ONE).stdout.splitlines()
    assert "~ ipv4 filter INPUT: policy accept => policy drop" in lines
    assert "- ipv4 filter OUTPUT 1: -j b" in lines
    assert "+ ipv4 filter a 1: -s 10.1.2.3/32 -j ACCEPT" in lines


WRONG = [
    (("one", "nope"), "nope: No such file or directory"),
    (("one", "live"), "'live' is no ruleset of the host; expected live:iptables-legacy"),
    (("-", "-"), "standard input can be one of the two only"),
    (("one", "rules"), "rules: it is no ruleset; expected a dump, a script"),
    (("one", "cut"), "cut, line 1: table filter of line 1 has no COMMIT"),
    (("one",), "diff"),
]


@pytest.mark.parametrize(("argv", "error"), WRONG)
def test_what_can_not_be_compared_is_one_message(tmp_path: Path, argv: tuple[str, ...], error: str) -> None:
    for name, text in (("one", ONE), ("rules", "-j ACCEPT\n"), ("cut", "*filter\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = spawned("diff", *argv, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert error in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.kernel
def test_a_dump_and_its_translation_mean_the_same(requires: Callable[..., None], tmp_path: Path) -> None:
    requires("nft")
    (tmp_path / "dump").write_text(ONE, encoding="utf-8")
    text = spawned("translate", "-f", "dump", cwd=tmp_path).stdout
    done = spawned("diff", "dump", "-", input=text, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.kernel
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft", "nft"])
def test_a_dump_is_compared_with_what_the_host_holds(requires: Callable[..., None], tmp_path: Path, tool: str) -> None:
    requires("nft", "iptables-legacy-restore", "iptables-nft-restore")
    (tmp_path / "dump").write_text(ONE, encoding="utf-8")
    with Netns() as room:

        def against_host(*options: str) -> subprocess.CompletedProcess[str]:
            return spawned("diff", "--netns", room.path, *options, "dump", f"live:{tool}", cwd=tmp_path)

        script = spawned("translate", "-f", "dump", cwd=tmp_path).stdout if tool == "nft" else ONE
        assert against_host().returncode == 2
        with room.entered():
            load = ["nft", "-f", "-"] if tool == "nft" else [f"{tool}-restore"]
            subprocess.run(load, input=script, text=True, check=True)
        done = against_host()
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(against_host("--json").stdout)["same"] is True
