"""The plugin as it's installed: chosen by configuration, applied to a network namespace, and taken away again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from meshfw import run_tool
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

CONFIG = """
owner = "edge"
backend = "toy"

[[chain]]
name = "input"
attach = { hook = "input", policy = "drop" }
rules = ["-i lo -j ACCEPT", { source = "@admins", protocol = "tcp", dport = 22, target = "ACCEPT" }]

[[set]]
name = "admins"
elements = ["192.0.2.0/24", "2001:db8::/48"]
"""


def meshfw(verb: str, room: Netns, place: Path) -> subprocess.CompletedProcess[str]:
    """A command of meshfw's, run where the configuration is."""
    command = (sys.executable, "-m", "meshfw", verb, "--netns", room.path)
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_it_is_chosen_by_configuration_and_programs_a_namespace(
    netns: Netns, requires: Callable[..., None], tmp_path: Path
) -> None:
    requires("nft")
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    assert meshfw("plan", netns, tmp_path).returncode == 2
    applied = meshfw("apply", netns, tmp_path)
    assert applied.returncode == 0, applied.stderr
    assert "(toy)" in applied.stdout
    listed = run_tool(("nft", "list", "ruleset"), netns=netns.path).stdout
    assert "table ip6 edge-toy" in listed
    assert "ip saddr 192.0.2.0/24 tcp dport 22 counter packets 0 bytes 0 accept" in listed
    assert meshfw("check", netns, tmp_path).returncode == 0
    assert meshfw("clean", netns, tmp_path).returncode == 0
    assert run_tool(("nft", "list", "ruleset"), netns=netns.path).stdout == ""
