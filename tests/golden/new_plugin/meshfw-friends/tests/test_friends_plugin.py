"""The plugin as it's installed: its rules are what a configuration declares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = """
[[source]]
type = "friends"
file = "friends.txt"
"""


def meshfw(*words: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A command of meshfw's, run where the configuration is."""
    command = (sys.executable, "-m", "meshfw", *words)
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_it_is_a_source_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "friends.txt").write_text("192.0.2.0/24\n2001:db8::7\n", encoding="utf-8")
    shown = meshfw("show", "--wanted", "--nft", place=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "192.0.2.0/24" in shown.stdout
    assert "2001:db8::7" in shown.stdout


def test_what_is_wrong_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "meshfw.toml").write_text(CONFIG.replace("file", "fiel"), encoding="utf-8")
    done = meshfw("plan", "--backend", "memory", place=tmp_path)
    assert done.returncode == 1
    assert "source" in done.stderr
    assert "file" in done.stderr
