"""A host for the command line: a namespace under a name that outlasts it, a configuration, a state directory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meshfw.cli import main
from meshfw.testing.netns import Netns
from tests.said import Said

BACKENDS = ("nft", "iptables-nft", "iptables-legacy")


class Inn:
    """A namespace, the configuration and the command line for both."""

    def __init__(
        self, directory: Path, backend: str, make: Callable[[], Netns], capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.directory, self.backend = directory, backend
        self.name = str(directory / "room")
        self._make, self._capsys = make, capsys
        self.room = make().__enter__()
        os.symlink(self.room.path, self.name)

    def close(self) -> None:
        self.room.close()

    def reboot(self) -> None:
        """A new, empty namespace of the same name."""
        self.room.close()
        self.room = self._make().__enter__()
        os.unlink(self.name)
        os.symlink(self.room.path, self.name)

    def declare(self, *rules: str, policy: str = "return", extra: str = "") -> None:
        """Write a configuration of these rules, for both families."""
        text = f'owner = "inn"\nbackend = "{self.backend}"\n{extra}\n[[chain]]\nname = "input"\n'
        text += f'attach = {{ hook = "input", policy = "{policy}" }}\nrules = {json.dumps(rules)}\n'
        (self.directory / "meshfw.toml").write_text(text, encoding="utf-8")

    def __call__(self, *argv: str, code: int = 0) -> Said:
        self._capsys.readouterr()
        found = main([*argv, "--netns", self.name])
        said = Said(found, *self._capsys.readouterr())
        assert said.code == code, said.out + said.err
        return said

    def rules(self) -> list[str]:
        """The rules of ours in the kernel, of IPv4."""
        chains = self("show", "--json").data["families"].get("ipv4", {"chains": []})["chains"]
        return [rule["rule"] for chain in chains for rule in chain["rules"]]

    def states(self) -> list[tuple[int, int, str]]:
        """Number, count of rules and reason of the kept states."""
        return [(item["number"], item["rules"], item["reason"]) for item in self("history", "--json").data["states"]]

    def tool(self, command: str) -> str:
        """What a tool prints, run in the namespace."""
        with self.room.entered():
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def everything(self) -> str:
        """What the kernel holds, of anybody's, as the tools print it; counters left out."""
        legacy = "".join(self.tool(f"{stem}-legacy -t filter -S") for stem in ("iptables", "ip6tables"))
        return self.tool("nft -s list ruleset") + legacy
