"""The law book, run on the iptables backends against the kernel, in a network namespace of the module's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from meshfw.backend import Site
from meshfw.backends.iptables import IptablesBackend, iptables_legacy, iptables_nft
from meshfw.extensions.language import Language
from meshfw.kernel.command import run
from meshfw.testing.conformance import BackendLaws, report
from meshfw.testing.lab import Foreign, Lab, MakeBackend
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

STRANGERS = """
*filter
:THEIRS - [0:0]
:meshfw - [0:0]
:meshfwx-fw - [0:0]
-A INPUT -i lo -m comment --comment "not ours" -j THEIRS
-A INPUT -p tcp -j meshfwx-fw
-A THEIRS -p tcp -m tcp --dport 80 -j ACCEPT
-A meshfwx-fw -m comment --comment "meshfw:meshfwx:fw"
-A meshfw -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80
COMMIT
"""
STRANGERS_GONE = """
*filter
-D INPUT -i lo -m comment --comment "not ours" -j THEIRS
-D INPUT -p tcp -j meshfwx-fw
-F THEIRS
-F meshfwx-fw
-F meshfw
-X THEIRS
-X meshfwx-fw
-X meshfw
COMMIT
*nat
-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-F DOCKER
-X DOCKER
COMMIT
"""
COUNTERS = re.compile(r"\[\d+:\d+\]")

# What others do to the rules of the sample by iptables' own means: tool, table and commands.
TAMPERINGS = {
    "a rule deleted by number": ("iptables", "filter", "-D meshfw-fw 3"),
    "a marker deleted": ("iptables", "filter", "-D meshfw-fw 1"),
    "a marker deleted from a dispatcher": ("ip6tables", "filter", "-D meshfw.input.first 1"),
    "a rule inserted before the marker": ("iptables", "filter", "-I meshfw-fw -j ACCEPT"),
    "a rule inserted": ("iptables", "filter", "-I meshfw-fw 2 -s 192.0.2.1 -j ACCEPT"),
    "a rule replaced in place": ("iptables", "filter", "-R meshfw-fw 3 -i eth0 -j ACCEPT"),
    "a rule doubled": ("ip6tables", "filter", "-A meshfw-rest -j REJECT"),
    "a chain flushed": ("ip6tables", "filter", "-F meshfw-peers"),
    "a dispatcher flushed": ("iptables", "filter", "-F meshfw.input.first"),
    "a policy opened": ("iptables", "filter", "-I meshfw.input.first 2 -j ACCEPT"),
    "a jump deleted": ("iptables", "filter", "-D INPUT -j meshfw.input.first"),
    "a jump doubled": ("iptables", "filter", "-A INPUT -j meshfw.input.first"),
    "a jump moved": ("iptables", "filter", "-I INPUT -i lo -j ACCEPT"),
    "a jump from another hook": ("ip6tables", "filter", "-A FORWARD -j meshfw.input.first"),
    "a built-in chain flushed": ("iptables", "filter", "-F FORWARD"),
    "a chain added": ("iptables", "mangle", "-N meshfw-strange"),
    "a chain of ours renamed": ("iptables", "filter", "-E meshfw-peers meshfw-others"),
    "everything of a table flushed": ("ip6tables", "nat", "-F"),
}
UNDONE = {"a jump moved": ("iptables", "filter", "-D INPUT -i lo -j ACCEPT")}


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netns]:
    lock: Path = tmp_path_factory.mktemp("lock") / "xtables.lock"
    with pytest.MonkeyPatch.context() as patch, kernel_room() as made:
        patch.setenv("XTABLES_LOCKFILE", str(lock))
        yield made


DIFFERENCES = (
    "atomicity: table",
    "opaque: True",
    "native_sets: False",
    "processes_per_family: 1",
)


class IptablesLaws(BackendLaws):
    """The laws on one variant; a module's room is shared, and empty between two laws."""

    examples = 5  # each law empties the kernel between two of them, and every deletion waits for RCU in the kernel
    make: Callable[[Site], IptablesBackend]
    variant: str
    more: tuple[str, ...] = ()

    @pytest.fixture(autouse=True)
    def _tools(self, requires: Callable[..., None]) -> None:
        requires(f"iptables-{self.variant}-restore", f"ip6tables-{self.variant}-restore")

    @pytest.fixture
    def namespace(self, room: Netns) -> str:
        return room.path

    @pytest.fixture
    def make_backend(self, room: Netns, language: Language) -> MakeBackend:
        return lambda owner: type(self).make(Site(owner=owner, language=language, netns=room.path))

    @pytest.fixture
    def shell(self, room: Netns) -> Callable[..., str]:
        def run_tool(*argv: str, text: str = "") -> str:
            with room.entered():
                return run(argv, timeout=60, input=text.encode()).stdout

        return run_tool

    def saved(self, shell: Callable[..., str], keep: Callable[[str], bool] = lambda line: True) -> str:
        """All tables that hold anything, as save prints them, counters left out."""
        text = ""
        for tool in ("iptables", "ip6tables"):
            for table in re.findall(r"^\*.*?^COMMIT$", shell(f"{tool}-{self.variant}-save"), re.DOTALL | re.MULTILINE):
                lines = [COUNTERS.sub("", line) for line in table.splitlines() if keep(line)]
                if any(not re.match(r"\*|:[A-Z]+ ACCEPT|COMMIT", line) for line in lines):
                    text += tool + "\n" + "\n".join(lines) + "\n"
        return text

    @pytest.fixture
    def wipe(self, shell: Callable[..., str]) -> Callable[[], None]:
        def flush() -> None:
            for tool in ("iptables", "ip6tables"):
                for table in ("filter", "nat", "mangle", "raw"):
                    shell(f"{tool}-{self.variant}", "-w", "-t", table, "-F")
                    shell(f"{tool}-{self.variant}", "-w", "-t", table, "-X")

        return flush

    @pytest.fixture
    def foreign(self, shell: Callable[..., str]) -> Foreign:
        def restored(text: str) -> None:
            for tool in ("iptables", "ip6tables"):
                shell(f"{tool}-{self.variant}-restore", "--noflush", "-w", text=text)

        return Foreign(
            setup=lambda: restored(STRANGERS),
            dump=lambda: self.saved(shell, lambda line: "meshfw-" not in line and "meshfw." not in line),
            remove=lambda: restored(STRANGERS_GONE),
        )

    @pytest.fixture
    def tamperings(self, shell: Callable[..., str]) -> Mapping[str, Callable[[], None]]:
        def tampering(tool: str, table: str, command: str) -> Callable[[], None]:
            return lambda: void(shell(f"{tool}-{self.variant}", "-w", "-t", table, *command.split()))

        return {name: tampering(*command) for name, command in TAMPERINGS.items()}

    def test_nothing_is_narrowed_but_the_reading_of_what_moved(self, lab: Lab) -> None:
        made = report(lab)
        assert [entry.law for entry in made.laws if entry.narrowed] == ["moved_names_every_list_that_differs"]
        assert made.left_out == ()
        assert set(made.differences) == {*DIFFERENCES, *self.more}


def void(_value: object) -> None:
    return None


class TestIptablesNft(IptablesLaws):
    make = staticmethod(iptables_nft)
    variant = "nft"
    tools = ("iptables-nft",)
    more = ("counters_move: ipv4",)

    @pytest.fixture
    def dump(self, shell: Callable[..., str]) -> Callable[[], str]:
        return lambda: re.sub(r"packets \d+ bytes \d+", "", shell("nft", "list", "ruleset"))


class TestIptablesLegacy(IptablesLaws):
    make = staticmethod(iptables_legacy)
    variant = "legacy"
    tools = ("iptables-legacy",)

    @pytest.fixture
    def dump(self, shell: Callable[..., str]) -> Callable[[], str]:
        return lambda: self.saved(shell)
