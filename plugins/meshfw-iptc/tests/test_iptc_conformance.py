"""The law book, run on the backend against the kernel's legacy tables, in a network namespace of the module's own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from meshfw import Language, Site
from meshfw.testing.conformance import BackendLaws, report
from meshfw.testing.lab import Foreign, Lab, MakeBackend
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
TOOLS = ("iptables-legacy", "ip6tables-legacy")
COUNTERS = re.compile(r"\[\d+:\d+\]")
STRANGERS = """
*filter
:THEIRS - [0:0]
:meshfw - [0:0]
-A INPUT -i lo -m comment --comment "not ours" -j THEIRS
-A THEIRS -p tcp -m tcp --dport 80 -j ACCEPT
-A THEIRS -m hashlimit --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-name theirs -j NFLOG
-A meshfw -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
"""
STRANGERS_GONE = """
*filter
-D INPUT -i lo -m comment --comment "not ours" -j THEIRS
-F THEIRS
-F meshfw
-X THEIRS
-X meshfw
COMMIT
*nat
-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-X DOCKER
COMMIT
"""
TAMPERINGS = {
    "a rule deleted by number": ("iptables", "filter", "-D meshfw-fw 3"),
    "a marker deleted": ("iptables", "filter", "-D meshfw-fw 1"),
    "a rule that python-iptables can't tell": ("iptables", "filter", "-I meshfw-fw 2 -j NFLOG"),
    "a rule replaced in place": ("iptables", "filter", "-R meshfw-fw 3 -i eth0 -j ACCEPT"),
    "a rule doubled": ("ip6tables", "filter", "-A meshfw-rest -j REJECT"),
    "a chain flushed": ("ip6tables", "filter", "-F meshfw-peers"),
    "a dispatcher flushed": ("iptables", "filter", "-F meshfw.input.first"),
    "a policy opened": ("iptables", "filter", "-I meshfw.input.first 2 -j ACCEPT"),
    "a jump deleted": ("iptables", "filter", "-D INPUT -j meshfw.input.first"),
    "a jump doubled": ("iptables", "filter", "-A INPUT -j meshfw.input.first"),
    "a jump from another hook": ("ip6tables", "filter", "-A FORWARD -j meshfw.input.first"),
    "a chain added": ("iptables", "mangle", "-N meshfw-strange"),
    "a chain of ours renamed": ("iptables", "filter", "-E meshfw-peers meshfw-others"),
    "everything of a table flushed": ("ip6tables", "nat", "-F"),
}


def skip_where_tables_are_hidden(room: Netns) -> None:
    with room.entered():
        if not os.access("/proc/thread-self/net/ip_tables_names", os.R_OK):
            pytest.skip("the list of legacy tables is root's alone in a namespace of an ordinary user")


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netns]:
    lock: Path = tmp_path_factory.mktemp("lock") / "xtables.lock"
    with pytest.MonkeyPatch.context() as patch, kernel_room() as made:
        patch.setenv("XTABLES_LOCKFILE", str(lock))
        skip_where_tables_are_hidden(made)
        yield made


class TestIptc(BackendLaws):
    examples = 20 if FULL else 1  # the fixed cases come on top, and the library reads a rule in 0.1 ms
    most = None if FULL else 4  # of each list that a law goes through

    @pytest.fixture(autouse=True)
    def _tools(self, requires: Callable[..., None]) -> None:
        requires(*(f"{tool}-restore" for tool in TOOLS))

    @pytest.fixture
    def namespace(self, room: Netns) -> str:
        return room.path

    @pytest.fixture
    def make_backend(self, room: Netns, language: Language) -> MakeBackend:
        from meshfw_iptc.backend import IptcBackend

        return lambda owner: IptcBackend(Site(owner=owner, language=language, netns=room.path))

    @pytest.fixture
    def shell(self, room: Netns) -> Callable[..., str]:
        def run(*argv: str, text: str = "") -> str:
            with room.entered():
                done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=True)
            return done.stdout

        return run

    def saved(self, shell: Callable[..., str], keep: Callable[[str], bool] = lambda line: True) -> str:
        """All tables that hold anything, as save prints them, counters left out."""
        text = ""
        for tool in TOOLS:
            for table in re.findall(r"^\*.*?^COMMIT$", shell(f"{tool}-save"), re.DOTALL | re.MULTILINE):
                lines = [COUNTERS.sub("", line) for line in table.splitlines() if keep(line)]
                if any(not re.match(r"\*|:[A-Z]+ ACCEPT|COMMIT", line) for line in lines):
                    text += tool + "\n" + "\n".join(lines) + "\n"
        return text

    @pytest.fixture
    def dump(self, shell: Callable[..., str]) -> Callable[[], str]:
        return lambda: self.saved(shell)

    @pytest.fixture
    def wipe(self, shell: Callable[..., str]) -> Callable[[], None]:
        def flush() -> None:
            for tool in TOOLS:
                for table in ("filter", "nat", "mangle", "raw"):
                    shell(tool, "-w", "-t", table, "-F")
                    shell(tool, "-w", "-t", table, "-X")

        return flush

    @pytest.fixture
    def foreign(self, shell: Callable[..., str]) -> Foreign:
        def restored(text: str) -> None:
            for tool in TOOLS:
                shell(f"{tool}-restore", "--noflush", "-w", text=text)

        return Foreign(
            setup=lambda: restored(STRANGERS),
            dump=lambda: self.saved(shell, lambda line: "meshfw-" not in line and "meshfw." not in line),
            remove=lambda: restored(STRANGERS_GONE),
        )

    @pytest.fixture
    def tamperings(self, shell: Callable[..., str]) -> Mapping[str, Callable[[], None]]:
        def tampering(tool: str, table: str, command: str) -> Callable[[], None]:
            def tamper() -> None:
                shell(f"{tool}-legacy", "-w", "-t", table, *command.split())

            return tamper

        return {name: tampering(*command) for name, command in TAMPERINGS.items()}

    def test_each_narrowing_has_its_reason(self, lab: Lab) -> None:
        made = report(lab)
        deaf = "the backend has no events here"
        assert {entry.law: entry.narrowed for entry in made.laws if entry.narrowed} == {
            "closing_ends_the_watch": deaf,
            "digest_tells_of_every_change": "the backend tells later processes nothing",
            "moved_names_every_list_that_differs": "the backend can't tell which lists others changed",
            "own_commits_are_own": deaf,
            "watch_tells_of_foreign_writes": deaf,
            "watching_spawns_nothing": deaf,
        }
        assert made.left_out == ()
        assert set(made.differences) == {"atomicity: table", "native_sets: False"}
