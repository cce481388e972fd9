"""Laws of the choice of a backend on real kernels: what stands there decides, and looking leaves no trace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from meshfw import Presence, Site
from meshfw.backends.instance import only_root_of_users
from meshfw.backends.presence import iptables_legacy_presence, iptables_nft_presence, nft_presence
from meshfw.cli import main
from meshfw.errors import KernelError, PartialCommitError
from meshfw.extensions.language import Language
from meshfw.kernel.netlink import Nfnetlink
from meshfw.testing.counting import ProcessCounter
from meshfw.testing.netns import Netns
from tests.said import Said

pytestmark = pytest.mark.kernel

CONFIG: Final = """\
owner = "edge"

[[chain]]
name = "input"
attach = { hook = "input" }
rules = ["-i lo -j ACCEPT", "-s 10.0.0.0/8 -j DROP"]
"""
BACKENDS: Final = ("nft", "iptables-nft", "iptables-legacy")
FREE: Final = "the first in rank that can be used here"
NAMES: Final = ("ip_tables_names", "ip6_tables_names")


class Host:
    """A network namespace under a name that outlasts it, with a configuration, and the command line for both."""

    def __init__(self, directory: Path, kernel_room: Callable[[], Netns], capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.name = str(directory / "room")
        self._kernel_room, self._capsys = kernel_room, capsys
        self.room = kernel_room().__enter__()
        os.symlink(self.room.path, self.name)

    def reboot(self) -> None:
        """A new, empty namespace of the same name."""
        self.room.close()
        self.room = self._kernel_room().__enter__()
        os.unlink(self.name)
        os.symlink(self.room.path, self.name)

    def __call__(self, *argv: str) -> Said:
        self._capsys.readouterr()
        code = main([*argv, "--netns", self.name])
        return Said(code, *self._capsys.readouterr())

    def tool(self, command: str) -> str:
        """What a tool prints, run in the namespace."""
        with self.room.entered():
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def everything(self) -> tuple[str, ...]:
        """What all three ways to store rules hold, as the tools print it."""
        legacy = [
            self.tool(f"{stem}-legacy -t {table} -S") for stem, tables in self.names().items() for table in tables
        ]
        return (self.tool("nft list ruleset"), *legacy)

    def rules_of_others(self) -> tuple[str, ...]:
        """The rules that FOREIGN makes, in all tables but ours."""
        saved = [self.tool(f"{stem}-{way}-save -t {table}") for stem, way, table in SAVED]
        kept = [line for text in saved for line in text.splitlines() if line.startswith("-A ")]
        return (self.tool("nft list table inet fw"), *kept)

    def names(self) -> dict[str, list[str]]:
        """The legacy tables that exist, by family."""
        with self.room.entered():
            found = [Path(f"/proc/thread-self/net/{name}").read_text("ascii").split() for name in NAMES]
        return dict(zip(("iptables", "ip6tables"), map(sorted, found), strict=True))

    def looked(self) -> dict[str, Presence]:
        """What stands in each backend."""
        site = Site(owner="edge", language=Language.of(()), netns=self.room.path)
        looks = (nft_presence, iptables_nft_presence, iptables_legacy_presence)
        return {name: look(site) for name, look in zip(BACKENDS, looks, strict=True)}

    def remembered(self) -> list[Path]:
        """The files of what auto took, without the history of what was applied."""
        return [path for path in (self.directory / "state").glob("*") if path.is_file()]

    def auto(self) -> tuple[str, str]:
        """What auto takes, and why."""
        verdict = self("backends", "--json").data["auto"]
        return verdict["name"], verdict["reason"]


@pytest.fixture
def host(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel_room: Callable[[], Netns],
    capsys: pytest.CaptureFixture[str],
    requires: Callable[..., None],
) -> Iterator[Host]:
    """A host of the test's own, with its own state directory and lock of the legacy tools."""
    requires("nft", *(f"{stem}-{way}-restore" for stem in ("iptables", "ip6tables") for way in ("nft", "legacy")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("meshfw.config.SYSTEM", str(tmp_path / "none"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    (tmp_path / "meshfw.toml").write_text(CONFIG, encoding="utf-8")
    made = Host(tmp_path, kernel_room, capsys)
    with made.room.entered():
        unreadable = not os.access("/proc/thread-self/net/ip_tables_names", os.R_OK)
    if unreadable:
        made.room.close()
        pytest.skip("the list of legacy tables is root's alone in a namespace of an ordinary user")
    yield made
    made.room.close()


# --- what stands there decides ---


def test_an_empty_host_gets_nft(host: Host) -> None:
    assert host.auto() == ("nft", FREE)
    assert set(host.looked().values()) <= {Presence(), Presence(tool="iptables")}


SAVED: Final = [
    (stem, way, table) for stem in ("iptables", "ip6tables") for way in ("nft", "legacy") for table in ("filter", "nat")
]
FOREIGN: Final = {
    "iptables-legacy": ("iptables-legacy -t nat -A POSTROUTING -j MASQUERADE", "1 rule in ipv4 nat"),
    "iptables-nft": ("ip6tables-nft -A FORWARD -j ACCEPT", "1 rule in ipv6 filter"),
    "nft": ("nft add table inet fw { chain in { type filter hook input priority 0; counter; }; }", "table inet fw"),
}


@pytest.mark.parametrize("backend", FOREIGN)
def test_the_way_that_others_go_is_taken(host: Host, backend: str) -> None:
    command, told = FOREIGN[backend]
    host.tool(command)
    assert host.auto() == (backend, f"others use it ({told})")
    listed = {item["name"]: item for item in host("backends", "--json").data["backends"]}
    assert {name for name, item in listed.items() if item["others"] and item["distribution"] == "meshfw"} == {backend}
    assert (listed[backend]["others"], listed[backend]["rules_of_others"]) == (told, 1)
    said = host("backends")
    assert f"others use it: {told}\n" in said.out
    assert said.out.endswith(f"\nauto takes {backend}: others use it ({told})\n")


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_a_dropping_policy_alone_shows_the_way(host: Host, variant: str) -> None:
    host.tool(f"iptables-{variant} -P FORWARD DROP")
    assert host.auto() == (f"iptables-{variant}", "others use it (a DROP policy in ipv4 filter)")


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_empty_tables_that_a_tool_made_show_nothing(host: Host, variant: str) -> None:
    host.tool(f"iptables-{variant} -t nat -S")
    host.tool(f"iptables-{variant} -A INPUT -j ACCEPT")
    host.tool(f"iptables-{variant} -F")
    assert host.auto() == ("nft", FREE)


def test_both_ways_of_iptables_are_a_split_and_the_larger_is_taken(host: Host) -> None:
    host.tool("iptables-nft -A INPUT -j ACCEPT")
    for port in (1, 2):
        host.tool(f"iptables-legacy -A INPUT -p tcp --dport {port} -j ACCEPT")
    more = "others use it (2 rules in ipv4 filter) more than iptables-nft (1 rule in ipv4 filter)"
    assert host.auto() == ("iptables-legacy", more)
    warning = "others use iptables in 2 ways at once, iptables-legacy (2 rules in ipv4 filter) and iptables-nft (1 rule"
    for verb in ("backends", "plan", "apply"):
        assert f"meshfw: warning: {warning}" in host(verb).err
    assert any(text.startswith(warning) for text in host("backends", "--json").data["warnings"])
    host.tool("iptables-nft -A INPUT -j ACCEPT")
    host.tool("iptables-nft -A INPUT -j ACCEPT")
    assert host("clean").code == 0
    assert host.auto()[0] == "iptables-nft"


@pytest.mark.parametrize("backend", BACKENDS)
def test_own_rules_are_found_and_are_never_others(host: Host, backend: str) -> None:
    assert host("apply", "--backend", backend).code == 0
    found = host.looked()
    assert [name for name in BACKENDS if found[name].own] == [backend]
    assert {name: found[name].others for name in BACKENDS} == dict.fromkeys(BACKENDS, "")
    assert host.auto() == (backend, f"rules of ours stand there already ({found[backend].own})")
    assert f"rules of ours: {found[backend].own}\n" in host("backends").out
    text = CONFIG.replace("edge", "mesh")
    (host.directory / "mesh.toml").write_text(text, encoding="utf-8")
    assert host("apply", "--backend", backend, "--config", "mesh.toml").code == 0
    both = host.looked()
    assert both == found
    assert host("clean", "--backend", backend).code == 0
    assert host.looked()[backend].own == ""
    assert host.auto()[1] == FREE  # another owner's rules are no others'


@pytest.mark.parametrize("backend", BACKENDS)
def test_own_chains_that_nothing_leads_to_are_found(host: Host, backend: str) -> None:
    (host.directory / "meshfw.toml").write_text(CONFIG.replace("attach", "# attach"), encoding="utf-8")
    assert host("apply", "--backend", backend).code == 0
    found = host.looked()
    assert [name for name in BACKENDS if found[name].own] == [backend]
    assert {name: found[name].others for name in BACKENDS} == dict.fromkeys(BACKENDS, "")


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_chain_of_our_prefix_that_somebody_else_made_is_theirs(host: Host, backend: str) -> None:
    host.tool(f"{backend} -N edge-x")
    host.tool(f"{backend} -A edge-x -j ACCEPT")
    host.tool(f"{backend} -A INPUT -j ACCEPT")
    found = host.looked()[backend]
    assert (found.own, found.rules) == ("", 2)


def test_own_rules_come_before_others(host: Host) -> None:
    assert host("apply", "--backend", "nft").code == 0
    for port in (1, 2, 3):
        host.tool(f"iptables-legacy -A INPUT -p tcp --dport {port} -j ACCEPT")
    assert host.auto()[0] == "nft"
    assert host("apply").out == "nothing to do (nft)\n"


# --- one backend for one owner's rules ---


PAIRS: Final = [(one, other) for one in BACKENDS for other in BACKENDS if one != other]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_apply_refuses_where_own_rules_stand_in_another_backend(host: Host, one: str, other: str) -> None:
    assert host("apply", "--backend", one).code == 0
    own, before = host.looked()[one].own, host.everything()
    where = f"rules of edge stand in {one} ({own}), and packets would meet both"
    remedy = (
        f"'meshfw migrate --to {other} --netns {host.name}' moves them while packets flow; or "
        f"take those away by 'meshfw clean --backend {one} --netns {host.name}' or "
        f"'meshfw clean --all-backends --netns {host.name}', then apply again"
    )
    refused = host("apply", "--backend", other)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"meshfw: error: {other}: {where} ({remedy})\n"
    for verb in ("plan", "check"):
        warned = host(verb, "--backend", other)
        assert warned.code == 2
        assert f"meshfw: warning: apply would refuse: {other}: {where} ({remedy})\n" in warned.err
    assert where in host("plan", "--backend", other, "--json").data["warnings"][-1]
    assert host.everything() == before
    assert host("clean", "--backend", one).code == 0
    assert host("apply", "--backend", other).code == 0


def test_a_trial_in_memory_is_never_refused(host: Host) -> None:
    assert host("apply", "--backend", "nft").code == 0
    said = host("apply", "--backend", "memory")
    assert (said.code, said.err) == (0, "")


def test_all_backends_are_cleaned_of_ours_and_of_nothing_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, _ in FOREIGN.values():
        host.tool(command)
    before = host.rules_of_others()
    assert len(before) == len(FOREIGN)
    with monkeypatch.context() as patch:
        patch.setattr("meshfw.workshop.standing", lambda sightings, beside=None: ())
        for backend in BACKENDS:
            assert host("apply", "--backend", backend).code == 0
    assert all(found.own for found in host.looked().values())
    refused = host("apply")
    assert refused.err.count("take those away by 'meshfw clean --all-backends --netns ") == 1
    said = host("clean", "--all-backends")
    assert (said.code, said.err) == (0, "")
    assert [line for line in said.out.splitlines() if "transaction" in line] == [
        line for line in said.out.splitlines() if line.endswith(tuple(f"({name})" for name in BACKENDS))
    ]
    assert all(f"({name})\n" in said.out for name in BACKENDS)
    assert not any(found.own for found in host.looked().values())
    assert host.rules_of_others() == before
    assert host("clean", "--all-backends").out == "nothing to do (all backends)\n"


def test_cleaning_all_backends_says_the_same_as_data(host: Host) -> None:
    assert host("apply", "--backend", "iptables-nft").code == 0
    data = host("clean", "--all-backends", "--json").data
    ((report,), warnings) = data["backends"], data["warnings"]
    assert (report["backend"], report["outcome"], warnings) == ("iptables-nft", "changed", [])
    assert report["changes"]
    assert host("clean", "--all-backends", "--json").data == {"backends": [], "warnings": []}


@pytest.mark.parametrize(("breaks", "code"), [("first", 1), ("second", 1), ("half-way", 3)])
def test_cleaning_all_backends_tells_what_was_done_before_an_error(
    host: Host, monkeypatch: pytest.MonkeyPatch, breaks: str, code: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("meshfw.workshop.standing", lambda sightings, beside=None: ())
        for backend in ("nft", "iptables-nft"):
            assert host("apply", "--backend", backend).code == 0
    cause = KernelError("write: refused", errno=errno.EIO)
    error = PartialCommitError(cause, None, ["ipv4 filter: half"]) if breaks == "half-way" else cause

    def refuse(site: Site) -> None:
        raise error

    factory = "nft.NftBackend" if breaks == "first" else "iptables.iptables_nft"
    done = [] if breaks == "first" else ["nft"]
    with monkeypatch.context() as patch:
        patch.setattr(f"meshfw.backends.{factory}", refuse)
        said = host("clean", "--all-backends", "--json")
    assert (said.code, said.err) == (code, f"meshfw: error: {error}\n")
    assert [report["backend"] for report in said.data["backends"]] == done
    assert all(report["changes"] and report["outcome"] == "changed" for report in said.data["backends"])
    assert (said.data["warnings"], said.data["error"]["message"]) == ([], str(error))
    assert host("clean", "--all-backends").code == 0


def test_what_could_not_be_cleaned_is_data_beside_what_was(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("meshfw.workshop.standing", lambda sightings, beside=None: ())
        for backend in ("nft", "iptables-legacy"):
            assert host("apply", "--backend", backend).code == 0
    monkeypatch.setattr("meshfw.backends.instance.iptables_legacy_unavailable", lambda: "no tools")
    said = host("clean", "--all-backends", "--json")
    assert said.code == 1
    assert [report["backend"] for report in said.data["backends"]] == ["nft"]
    assert said.data["error"]["message"].endswith("stay, since iptables-legacy can't be used here: no tools")


def test_all_backends_and_one_backend_are_a_contradiction(host: Host) -> None:
    said = host("clean", "--all-backends", "--backend", "nft")
    assert said.code == 1
    assert said.err.startswith("meshfw: error: --all-backends: --backend nft names one; expected ")


def test_clean_alone_goes_where_own_rules_stand_and_tells_of_the_rest(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host("apply", "--backend", "iptables-legacy").code == 0
    assert host("clean").out.endswith("(iptables-legacy)\n")
    assert host("clean").out == "nothing to do (nft)\n"
    with monkeypatch.context() as patch:
        patch.setattr("meshfw.workshop.standing", lambda sightings, beside=None: ())
        for backend in ("nft", "iptables-legacy"):
            assert host("apply", "--backend", backend).code == 0
    own = host.looked()["iptables-legacy"].own
    said = host("clean")
    assert said.out.endswith("(nft)\n")
    assert said.err == (
        f"meshfw: warning: rules of edge stand in iptables-legacy ({own}) still: "
        f"'meshfw clean --all-backends --netns {host.name}'\n"
    )


def test_own_rules_in_a_backend_that_can_not_be_used_are_named_and_stay(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host("apply", "--backend", "iptables-legacy").code == 0
    own, before = host.looked()["iptables-legacy"].own, host.everything()
    monkeypatch.setattr("meshfw.backends.instance.iptables_legacy_unavailable", lambda: "no tools")
    name, reason = host.auto()
    assert name == "nft"
    assert f"passed over: iptables-legacy, where rules of ours stand ({own}): no tools" in reason
    assert host("apply").code == 1
    said = host("clean", "--all-backends")
    assert said.code == 1
    assert said.err == f"meshfw: error: {own} of edge stay, since iptables-legacy can't be used here: no tools\n"
    assert host.everything() == before


# --- what can't be looked at ---


UNTOLD: Final = "what stands in iptables-legacy can't be told: read ip_tables_names: "
AGAIN: Final = f"{UNTOLD}{os.strerror(errno.EAGAIN)}"
DENIED: Final = f"{UNTOLD}{os.strerror(errno.EACCES)}"


@pytest.fixture
def blind(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the look at the legacy tables, which hold rules of ours, fail with a number of errno."""
    assert host("apply", "--backend", "iptables-legacy").code == 0

    def fail_with(number: int) -> None:
        def refuse(site: Site) -> Presence:
            raise KernelError(f"read ip_tables_names: {os.strerror(number)}", errno=number)

        monkeypatch.setattr("meshfw.backends.presence.iptables_legacy_presence", refuse)

    return fail_with


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_all_backends_are_not_clean_while_one_can_not_be_looked_at(
    host: Host, blind: Callable[[int], None], number: int
) -> None:
    blind(number)
    before = host.everything()
    assert host("apply", "--backend", "nft").code == 0
    said = host("clean", "--all-backends")
    assert said.code == 1
    assert said.err == f"meshfw: error: {UNTOLD}{os.strerror(number)}\n"
    assert "nothing to do" not in said.out
    assert host.everything() == before  # what could be seen is gone


def test_all_backends_are_clean_though_one_that_can_not_be_used_can_not_be_looked_at(
    host: Host, blind: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(errno.EAGAIN)
    monkeypatch.setattr("meshfw.backends.instance.iptables_legacy_unavailable", lambda: "no tools")
    assert host("clean", "--all-backends").out == "nothing to do (all backends)\n"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_backend_that_is_named_is_written_with_a_warning_of_one_that_can_not_be_looked_at(
    host: Host, blind: Callable[[int], None], number: int
) -> None:
    blind(number)
    warning = f"meshfw: warning: {UNTOLD}{os.strerror(number)}\n"
    for verb, code in (("plan", 2), ("check", 2), ("apply", 0), ("clean", 0)):
        said = host(verb, "--backend", "nft")
        assert (verb, said.code, said.err) == (verb, code, warning)
    said = host("apply", "--backend", "memory")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR, errno.EPROTO])
def test_auto_writes_nothing_while_it_is_not_sure(host: Host, blind: Callable[[int], None], number: int) -> None:
    blind(number)
    before = host.everything()
    why = f"auto: it isn't sure to take nft, since {UNTOLD}{os.strerror(number)} "
    remedy = "(try again, or name the one that you mean, such as --backend nft)"
    for verb in ("apply", "clean"):
        said = host(verb)
        assert (verb, said.code, said.out, said.err) == (verb, 1, "", f"meshfw: error: {why}{remedy}\n")
    for verb in ("plan", "check"):
        said = host(verb)
        assert (verb, said.code, said.err) == (verb, 2, f"meshfw: warning: apply would refuse: {why}{remedy}\n")
    assert f"meshfw: warning: auto isn't sure: {UNTOLD}" in host("backends").err
    assert host.everything() == before
    assert host.remembered() == []


def test_auto_goes_on_where_rules_of_ours_stand(host: Host, blind: Callable[[int], None]) -> None:
    assert host("clean").code == 0
    assert host("apply").out.endswith("(nft)\n")
    blind(errno.EAGAIN)
    said = host("apply")
    assert (said.out, said.err) == ("nothing to do (nft)\n", f"meshfw: warning: {AGAIN}\n")
    assert host("clean").err == f"meshfw: warning: {AGAIN}\n"


@pytest.mark.parametrize("rootless", [False, True])
def test_auto_goes_on_where_another_is_denied_for_good_and_that_is_news_to_nobody_in_a_user_namespace(
    host: Host, blind: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, rootless: bool
) -> None:
    monkeypatch.setattr("meshfw.backends.instance.only_root_of_users", lambda: rootless)
    blind(errno.EACCES)
    for verb, code in (("plan", 2), ("check", 2), ("apply", 0), ("apply", 0), ("check", 0), ("clean", 0)):
        said = host(verb)
        assert (said.code, said.err) == (code, "" if rootless else f"meshfw: warning: {DENIED}\n")
    assert (DENIED in host("apply", "-v").out) is rootless


def test_a_user_namespace_is_told_from_the_host(requires: Callable[..., None]) -> None:
    requires("unshare")
    ask = "from meshfw.backends.instance import only_root_of_users; print(only_root_of_users())"
    done = subprocess.run(("unshare", "-r", sys.executable, "-c", ask), capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
    users = Path("/proc/self/uid_map").read_text("ascii").split()
    assert only_root_of_users() is (users != ["0", "0", "4294967295"])


# --- what is remembered ---


def test_what_auto_took_lasts_over_a_reboot_until_it_is_cleaned(host: Host) -> None:
    host.tool("iptables-legacy -A INPUT -j ACCEPT")
    assert host("apply").out.endswith("(iptables-legacy)\n")
    assert host("backends", "--json").data["remembered"] == "iptables-legacy"
    host.reboot()
    host.tool("iptables-nft -A INPUT -j ACCEPT")  # somebody else is earlier this time
    assert host.auto() == ("iptables-legacy", "auto took it last time")
    assert "auto took it last time\n" in host("backends").out
    assert host("apply").out.endswith("(iptables-legacy)\n")
    assert host("clean").code == 0
    assert host("backends", "--json").data["remembered"] is None
    assert host.auto()[0] == "iptables-nft"


def test_what_is_named_is_not_remembered_and_forgets_only_itself(host: Host) -> None:
    assert host("apply", "--backend", "iptables-nft").code == 0
    assert host.remembered() == []
    assert host("clean", "--backend", "iptables-nft").code == 0
    assert host("apply").out.endswith("(nft)\n")
    assert host("clean", "--backend", "iptables-nft").code == 0
    assert host("backends", "--json").data["remembered"] == "nft"
    assert host("clean", "--backend", "nft").code == 0
    assert host("backends", "--json").data["remembered"] is None


def test_nothing_is_remembered_of_what_was_refused_or_only_looked_at(host: Host) -> None:
    for verb in ("plan", "check", "show", "backends"):
        host(verb)
    (host.directory / "meshfw.toml").write_text(CONFIG.replace("-i lo", "-m string --algo bm --string x"), "utf-8")
    assert host("apply").code == 1
    assert not (host.directory / "state").exists()


def test_own_rules_come_before_what_was_remembered(host: Host) -> None:
    assert host("apply").out.endswith("(nft)\n")
    host.reboot()
    assert host("apply", "--backend", "iptables-nft").code == 0
    assert host("backends", "--json").data["remembered"] == "nft"
    assert host.auto()[0] == "iptables-nft"


def test_odd_memory_is_a_warning_and_one_that_can_not_be_written_a_note(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host("apply").err == ""
    (kept,) = host.remembered()
    kept.write_text("nft", encoding="utf-8")
    for verb in ("plan", "backends"):
        assert f"meshfw: warning: {kept} is ignored: " in host(verb).err
    monkeypatch.setenv("STATE_DIRECTORY", str(host.directory / "none" / "deeper"))
    said = host("apply")
    assert (said.code, said.err, said.out) == (0, "", "nothing to do (nft)\n")
    assert "\nnot remembered for the next time: " in host("apply", "-v").out


# --- looking ---


def test_looking_starts_no_process_and_makes_no_table(host: Host) -> None:
    host.tool("iptables-legacy -t nat -A POSTROUTING -j MASQUERADE")
    host.tool("iptables-nft -A INPUT -j ACCEPT")
    assert host("apply", "--backend", "iptables-nft").code == 0
    before = host.names()
    with Nfnetlink(host.room.path) as netlink:
        generation = netlink.generation()
        with ProcessCounter() as counter:
            host.looked()
            host("backends")
            host("plan", "--backend", "nft")
        assert netlink.generation() == generation
    assert (counter.count.forks, counter.count.commands) == (0, ())
    assert host.names() == before
    host.reboot()
    empty = host.names()
    host("backends")
    assert host.names() == empty


def test_backends_name_a_namespace_that_is_not_there(host: Host) -> None:
    os.unlink(host.name)
    said = host("backends")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"meshfw: error: there is no network namespace {host.name} ")
