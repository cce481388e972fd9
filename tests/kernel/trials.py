"""A host in a network namespace on which changes are tried, and the ways in which such a trial can come to its end."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from meshfw.kernel.command import run
from meshfw.reconcile import apply
from meshfw.safety.pending import Pending, Register
from meshfw.testing.netns import Netns
from meshfw.workshop import Workshop

ROOT: Final = Path(__file__).resolve().parents[2]
OWNER: Final = "trial"
PATIENCE: Final = 60.0
"""Seconds that anything is waited for: the machine may be busy."""
SHORT: Final = "1s"
LONG: Final = "10m"

OLD: Final = """
[[chain]]
name = "input"
attach = { hook = "input", policy = "accept" }
rules = ["-i lo -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-p tcp --dport @open -j ACCEPT"]
[[chain]]
name = "going"
rules = ["-p udp --dport 53 -j ACCEPT"]
[[chain]]
name = "masq"
table = "nat"
attach = { hook = "postrouting" }
rules = ["-o wan0 -j MASQUERADE"]
[[set]]
name = "open"
type = "port"
elements = [22, "8000-8010"]
"""
NEW: Final = """
[[chain]]
name = "input"
attach = { hook = "input", policy = "drop" }
rules = ["-m conntrack --ctstate INVALID -j DROP", "-p tcp --dport @open -j DROP"]
[[chain]]
name = "away"
attach = { hook = "output" }
rules = ["-p udp --dport 53 -j DROP"]
[[set]]
name = "open"
type = "port"
elements = [22, 80]
"""
FOREIGN: Final = """\
*filter
:THEIRS - [0:0]
-A INPUT -i lo -m comment --comment "not ours" -j THEIRS
-A THEIRS -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""
_RUNS: Final = re.compile(r" ?counter packets \d+ bytes \d+|\[\d+:\d+\]|^#.*\n", re.MULTILINE)


def by_name(text: str) -> str:
    """A dump of iptables-save with the chains of each table in the order of their names, not of their making."""
    tables = re.findall(r"^\*.*?^COMMIT\n", text, re.DOTALL | re.MULTILINE)
    return "".join("".join(sorted(table.splitlines(keepends=True), key=_place)) for table in tables)


def _place(line: str) -> tuple[int, str]:
    """Where a line of a table belongs: rules of one chain stay as they are."""
    words = line.split()
    return ("*:-C".index(line[0]), words[1] if line.startswith("-") else words[0])


_IDLE: Final = re.compile(r"^\tchain [A-Z]+ \{\n\t\ttype [^\n]* policy accept;\n\t\}\n", re.MULTILINE)


def by_name_nft(text: str) -> str:
    """A list of nft's with the tables, and the chains of each, in the order of their names.

    Left out are built-in chains of iptables-nft that hold nothing and let all pass: the tool leaves those it made.
    """
    text = _IDLE.sub("", text)
    tables = re.findall(r"^(table [^\n]*\n)(.*?)^\}\n", text, re.DOTALL | re.MULTILINE)
    blocks = [(head, sorted(re.findall(r"^\t\w.*?^\t\}\n", body, re.DOTALL | re.MULTILINE))) for head, body in tables]
    return "".join(head + "".join(body) for head, body in sorted(blocks))


AT_ONCE: Final = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
"""What kills a process from inside."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Where a workshop works."""

    config: str | None
    backend: str | None
    netns: str | None


class Host:
    """A namespace, a backend, and a configuration of each kind; commands are processes of their own."""

    def __init__(self, room: Netns, backend: str, directory: Path) -> None:
        self.room = room
        self.backend = backend
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir()
        (directory / "run").mkdir()
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "STATE_DIRECTORY": str(self.state),
            "RUNTIME_DIRECTORY": str(directory / "run"),
            "XTABLES_LOCKFILE": str(directory / "xtables.lock"),
        }
        self.call: Callable[[Sequence[str]], tuple[int, str]] | None = None
        self._children: list[subprocess.Popen[str]] = []
        self.declare(OLD)
        variant = "legacy" if backend == "iptables-legacy" else "nft"
        for stem in ("iptables", "ip6tables"):
            self.inside(f"{stem}-{variant}-restore", text=FOREIGN)

    def declare(self, text: str, *, head: str = "") -> None:
        """Write the configuration."""
        (self.directory / "meshfw.toml").write_text(f'owner = "{OWNER}"\n{head}\n{text}', encoding="utf-8")

    def inside(self, *argv: str, text: str = "") -> str:
        """What a tool printed, run in the namespace."""
        environment = {"XTABLES_LOCKFILE": self.environment["XTABLES_LOCKFILE"]}
        with self.room.entered():
            return run(argv, timeout=PATIENCE, input=text.encode(), env=environment).stdout

    def dump(self) -> str:
        """All rules of all makers, as the tools print them: without counters, the chains of a table by their names."""
        texts = [by_name_nft(self.inside("nft", "list", "ruleset"))]
        if self.backend != "nft":
            variant = self.backend.removeprefix("iptables-")
            texts += [by_name(self.inside(f"{stem}-{variant}-save")) for stem in ("iptables", "ip6tables")]
        return "\n".join(_RUNS.sub("", text) for text in texts)

    def apply_old(self) -> None:
        """Have the old rules stand, without a process for it."""
        shop = Workshop(Where(config=str(self.directory / "meshfw.toml"), backend=self.backend, netns=self.room.path))
        with shop.backend() as backend:
            apply(backend, shop.fitted(shop.rules(), backend))

    # --- commands ---

    @property
    def options(self) -> list[str]:
        """What every command is told."""
        return ["--backend", self.backend, "--netns", self.room.path]

    def command(self, *words: str, script: str = "") -> list[str]:
        """The command line of a verb; ``script`` is run before it, in the same process."""
        start = f"import sys\n{script}\nfrom meshfw.cli import main\nsys.exit(main(sys.argv[1:]))"
        return [sys.executable, "-c", start, *words, *self.options]

    def start(self, *words: str, script: str = "") -> subprocess.Popen[str]:
        """A command begun, without a terminal."""
        made = subprocess.Popen(
            self.command(*words, script=script),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._children.append(made)
        return made

    def meshfw(self, *words: str, script: str = "") -> tuple[int, str]:
        """The exit code of a command, and all that it said; in this process where ``call`` says how."""
        if self.call is not None and not script:
            return self.call([*words, *self.options])
        made = self.start(*words, script=script)
        said, _ = made.communicate(timeout=PATIENCE)
        return made.returncode, said

    def close(self) -> None:
        """End what is left."""
        for child in self._children:
            child.kill()
            child.communicate()
        for guard in self.guards():
            with suppress(ProcessLookupError):
                os.kill(guard, signal.SIGKILL)

    # --- what is on trial ---

    @property
    def register(self) -> Register:
        """Where the pending change is kept."""
        return Register(str(self.state), owner=OWNER, namespace=self.room.identity)

    def pending(self) -> Pending:
        """The change on trial."""
        found = self.register.read()
        assert found is not None
        return found

    def guards(self) -> list[int]:
        """The guards at work here."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError):
                    words = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if "meshfw.safety.guard" in words and self.room.path in words:
                        found.append(int(name))
        return found

    def wait(self, what: Callable[[], bool]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end
            time.sleep(0.02)

    def late(self) -> float:
        """Wait until nothing is on trial any more; the seconds by which the old rules were back after its time."""
        pending = self.register.read()
        self.wait(lambda: self.register.stamp() is None)
        undone = self.register.undone()
        assert undone is not None
        assert undone.error == ""
        return undone.time - pending.until if pending is not None else 0.0


class Terminal:
    """A command on a terminal of its own, as a person has it."""

    def __init__(self, host: Host, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *host.command(*words)],
            cwd=host.directory,
            env=host.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.said = ""

    def expect(self, text: str) -> None:
        """Wait until the command has said something."""
        end = time.monotonic() + PATIENCE
        while text not in self.said:
            assert time.monotonic() < end, self.said
            self.said += os.read(self._master, 4096).decode(errors="replace")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def hang_up(self) -> None:
        """Lose the terminal: whoever is on it gets SIGHUP."""
        os.close(self._master)
        self._master = -1

    def end(self) -> int:
        """The exit code, once the command has ended."""
        with suppress(OSError):  # EIO: nobody has the other end any more
            while self._master >= 0 and (chunk := os.read(self._master, 4096)):
                self.said += chunk.decode(errors="replace")
        code = self.process.wait(PATIENCE)
        if self._master >= 0:
            os.close(self._master)
        return code


_ON_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


# --- the ways in which a trial ends ------------------------------------------------------------------------


def not_confirmed(host: Host) -> None:
    """The configuration is broken by then, which matters to nobody."""
    assert host.meshfw("apply", "--confirm", SHORT)[0] == 0
    host.declare("[[")


def killed_before_the_commit(host: Host) -> None:
    script = f"import meshfw.safety.guard as g\narm = g.arm\ndef die(p):\n    arm(p)\n    {AT_ONCE}\ng.arm = die"
    assert host.meshfw("apply", "--confirm", SHORT, script=script)[0] == -signal.SIGKILL


def killed_before_its_guard_is_there(host: Host) -> None:
    script = f"import meshfw.safety.guard as g\ndef die(p):\n    {AT_ONCE}\ng.arm = die"
    assert host.meshfw("apply", "--confirm", SHORT, script=script)[0] == -signal.SIGKILL
    overdue(host)


def killed_after_the_commit(host: Host) -> None:
    script = f"import meshfw.safety.trial as t\ndef die(_):\n    {AT_ONCE}\nt._Trial.probe = die"
    assert host.meshfw("apply", "--confirm", SHORT, script=script)[0] == -signal.SIGKILL


def killed_while_it_asks(host: Host) -> None:
    terminal = Terminal(host, "apply", "--confirm", SHORT)
    terminal.expect("keep them?")
    terminal.process.kill()
    assert terminal.end() == -signal.SIGKILL


def terminal_lost(host: Host) -> None:
    terminal = Terminal(host, "apply", "--confirm", SHORT)
    terminal.expect("keep them?")
    terminal.hang_up()
    terminal.end()


def guard_killed(host: Host) -> None:
    assert host.meshfw("apply", "--confirm", SHORT)[0] == 0
    for guard in host.guards():
        os.kill(guard, signal.SIGKILL)
    host.wait(lambda: not host.guards())
    overdue(host)


def overdue(host: Host) -> None:
    """Nobody is there to undo the change: the next command does, whichever it is."""
    if host.register.stamp() is None:
        return  # its guard was quicker than we
    host.wait(lambda: host.pending().overdue)
    assert host.register.stamp() is not None
    host.meshfw("check")
    assert host.register.stamp() is None


ENDS: Final[Sequence[Callable[[Host], None]]] = (
    not_confirmed,
    killed_after_the_commit,
    guard_killed,
    killed_before_the_commit,
    killed_before_its_guard_is_there,
    killed_while_it_asks,
    terminal_lost,
)
