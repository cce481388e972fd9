"""Laws of what stands where: whose a table, a chain and a rule is, and what a kernel shows of itself."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshfw import Family, Presence, Site, Table
from meshfw.backends import presence as looks
from meshfw.backends.instance import iptables_legacy_unavailable, iptables_nft_unavailable
from meshfw.backends.layout import MARK
from meshfw.backends.presence import Held, iptables_told, nft_told
from meshfw.extensions.language import Language
from meshfw.kernel import modules
from meshfw.kernel.netlink import TABLE_DORMANT, NfChain, NfTable
from meshfw.kernel.xtables import XtChain
from meshfw.kernel.xtblob import XtRule

SITE = Site(owner="edge", language=Language.of(()))

# --- whose a table or chain of nf_tables is ---

OURS = bytes((0, len(MARK) + 1)) + MARK.encode() + b"\0"


def table(family: str, name: str, *, marked: bool = False, flags: int = 0) -> NfTable:
    return NfTable(family, name, 1, flags, 0, 0, OURS if marked else b"")


def chain(family: str, table: str, name: str, *, use: int = 0, hook: int | None = None) -> NfChain:
    based = hook is not None
    return NfChain(
        family, table, name, 1, use, 0, hook, "input" if based else None, 0 if based else None, None, None, (), b""
    )


def test_a_table_is_the_owner_s_by_name_and_mark() -> None:
    found = nft_told(
        [
            table("ip", "edge", marked=True),
            table("ip6", "edge"),
            table("ip", "other", marked=True),
            table("inet", "edge", marked=True),
        ],
        [],
        owner="edge",
    )
    assert found == Presence(own="table ip edge")


@pytest.mark.parametrize("family", ["inet", "ip", "ip6"])
def test_a_foreign_base_chain_shows_that_others_use_nft(family: str) -> None:
    chains = [chain(family, "fw", "in", use=3, hook=1), chain(family, "fw", "more", use=2)]
    found = nft_told([table(family, "fw")], chains, owner="edge")
    assert found == Presence(others=f"table {family} fw", rules=5)


def test_what_no_packet_meets_shows_nothing() -> None:
    tables = [table("ip", "sets"), table("inet", "asleep", flags=TABLE_DORMANT), table("arp", "arp")]
    chains = [
        chain("ip", "sets", "jumped-to", use=3),
        chain("inet", "asleep", "in", use=3, hook=1),
        chain("arp", "arp", "in", use=3, hook=1),
    ]
    assert nft_told(tables, chains, owner="edge") == Presence()


def test_what_meshfw_wrote_for_any_owner_shows_nothing_of_others() -> None:
    tables = [table("ip", "edge", marked=True), table("ip", "other", marked=True)]
    chains = [chain("ip", name, "filter.input.first", use=9, hook=1) for name in ("edge", "other")]
    assert nft_told(tables, chains, owner="edge") == Presence(own="table ip edge")


def test_iptables_own_chains_are_not_nft_s_and_others_beside_them_are() -> None:
    chains = [chain("ip", "filter", "INPUT", use=9, hook=1), chain("ip", "filter", "DOCKER", use=4)]
    assert nft_told([table("ip", "filter")], chains, owner="edge") == Presence()
    chains.append(chain("ip", "filter", "input", use=2, hook=1))
    assert nft_told([table("ip", "filter")], chains, owner="edge") == Presence(others="table ip filter", rules=2)
    native = [chain("ip", "filter", "input", use=2, hook=1), chain("ip", "filter", "x", use=1)]
    assert nft_told([table("ip", "filter")], native, owner="edge") == Presence(others="table ip filter", rules=3)
    wrong = [chain("ip", "nat", "FORWARD", use=1, hook=1)]  # iptables' nat has no such chain
    assert nft_told([table("ip", "nat")], wrong, owner="edge").others == "table ip nat"


class Netlink:
    """nf_tables of values, which counts the chains whose rules were loaded."""

    def __init__(self, *chains: NfChain, rules: dict[str, list[bytes]] | None = None) -> None:
        self._chains, self._rules = chains, rules or {}
        self.read: list[str] = []

    def chains(self) -> tuple[NfChain, ...]:
        return self._chains

    def rules(self, family: str, table: str, chain: str) -> list[Any]:
        self.read.append(chain)
        return [SimpleNamespace(expressions=text, userdata=b"") for text in self._rules.get(chain, [])]


def held(netlink: Netlink) -> list[Held]:
    return list(looks._held_by_nft(netlink, "edge"))  # type: ignore[arg-type]  # as much of netlink as is used


def jump(name: str) -> bytes:
    """The end of a rule's expressions that jumps to a chain."""
    return b"\x10\0\1\0stuff" + (len(name) + 5).to_bytes(2, "little") + b"\2\0" + name.encode() + b"\0"


FILTER = (Family.IPV4, Table.FILTER)


def of(**fields: Any) -> Held:
    return Held(family=Family.IPV4, table=Table.FILTER, **fields)


def test_rules_of_others_are_counted_without_loading_any() -> None:
    netlink = Netlink(
        chain("ip", "filter", "INPUT", use=3, hook=1),
        chain("ip", "filter", "FORWARD", use=2, hook=2),
        chain("ip", "filter", "DOCKER", use=4),
    )
    assert held(netlink) == [of(rules=9, about=True)]
    assert netlink.read == []


def test_chains_of_an_owner_with_a_dispatcher_and_the_jumps_to_it_are_ours() -> None:
    netlink = Netlink(
        chain("ip", "filter", "INPUT", use=3, hook=1),
        chain("ip", "filter", "FORWARD", use=0, hook=2),
        chain("ip", "filter", "edge.input.first", use=3),
        chain("ip", "filter", "edge-a", use=7),
        chain("ip", "filter", "mesh.input.first", use=3),
        chain("ip", "filter", "mesh-a", use=7),
        rules={"INPUT": [jump("edge.input.first"), jump("mesh.input.first"), jump("xedge.input.first")]},
    )
    assert held(netlink) == [of(own=2, rules=1)]
    assert netlink.read == ["INPUT"]


def test_a_dispatcher_in_one_table_speaks_for_its_owner_s_chains_in_all() -> None:
    netlink = Netlink(chain("ip6", "nat", "edge.output.last", use=1), chain("ip", "filter", "edge-a", use=1))
    assert [(entry.table, entry.own) for entry in held(netlink)] == [(Table.NAT, 1), (Table.FILTER, 1)]
    assert netlink.read == []


def test_a_chain_that_nothing_leads_to_is_the_owner_s_by_its_marker() -> None:
    chains = (
        chain("ip", "filter", "INPUT", hook=1),
        chain("ip", "filter", "edge-a", use=2),
        chain("ip", "filter", "edge-b", use=2),
        chain("ip", "filter", "edgy-c", use=2),
    )
    netlink = Netlink(*chains, rules={"edge-a": [b"..meshfw:edge:a\0", b"x"], "edge-b": [b"x", b"..meshfw:edge:b\0"]})
    assert held(netlink) == [of(own=1, rules=4, about=True)]
    assert netlink.read == ["edge-a", "edge-b"]


def test_a_table_without_a_built_in_chain_is_not_iptables_but_ours_in_it_are_found() -> None:
    netlink = Netlink(chain("ip", "filter", "input", use=5, hook=1), chain("ip", "filter", "edge.input.first", use=1))
    assert held(netlink) == [of(own=1)]


def test_a_dropping_policy_and_kubelet_s_hint_show_that_others_use_iptables() -> None:
    (dropping,) = held(Netlink(replaced(chain("ip", "filter", "INPUT", hook=1), policy="drop")))
    assert iptables_told([dropping]).others == "a DROP policy in ipv4 filter"
    hints = held(Netlink(chain("ip", "mangle", "INPUT", hook=1), chain("ip", "mangle", "KUBE-IPTABLES-HINT")))
    assert iptables_told(hints) == Presence(others="kubelet's hint in ipv4 mangle", tool="iptables")


def replaced(value: NfChain, **fields: Any) -> NfChain:
    import msgspec

    return msgspec.structs.replace(value, **fields)


def test_tables_of_iptables_are_told_in_words_and_many_are_counted() -> None:
    tables = [
        Held(family=Family.IPV4, table=Table.FILTER, own=1, rules=1),
        Held(family=Family.IPV4, table=Table.NAT, own=2, rules=17, about=True, drops=True),
    ]
    assert iptables_told(tables) == Presence(
        own="1 chain in ipv4 filter, 2 chains in ipv4 nat",
        others="1 rule in ipv4 filter, about 17 rules and a DROP policy in ipv4 nat",
        rules=18,
        tool="iptables",
    )
    many = [Held(family=Family.IPV4, table=kind, rules=1) for kind in Table] * 2
    assert iptables_told(many).others.endswith(", 6 more")
    assert iptables_told([]) == Presence(tool="iptables")


# --- whose a chain of legacy tables is ---


def legacy(*chains: XtChain) -> list[Held]:
    return list(looks._held_by_legacy({FILTER: {entry.name: entry for entry in chains}}, "edge"))


def rule(body: bytes = b"x", jump: str = "") -> XtRule:
    return XtRule(body, 0, 0, jump)


def built_in(*rules: XtRule, policy: str = "accept") -> XtChain:
    return XtChain("INPUT", "input", policy, rules)


def user(name: str, *rules: XtRule) -> XtChain:
    return XtChain(name, None, None, rules)


def test_legacy_rules_of_others_are_counted_and_ours_are_not() -> None:
    ours = (
        user("edge.input.first", rule(b"meshfw:edge:input/first")),
        user("edge-a", rule(), rule()),
        user("mesh.input.first"),
        user("mesh-b", rule()),
    )
    leading = (rule(jump="edge.input.first"), rule(jump="mesh.input.first"))
    assert legacy(built_in(*leading), *ours) == [of(own=2)]
    assert legacy(built_in(*leading, rule(jump="docker"), rule()), *ours, user("docker", rule())) == [
        of(own=2, rules=3)
    ]
    assert legacy(built_in(policy="drop")) == [of(drops=True)]
    assert legacy(built_in()) == [of()]


def test_a_legacy_chain_that_nothing_leads_to_is_the_owner_s_by_its_marker() -> None:
    marked, bare = user("edge-a", rule(b"..meshfw:edge:a\0")), user("edge-b", rule())
    assert legacy(built_in(), marked, bare) == [of(own=1, rules=1)]


# --- evidence about a kernel ---


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what a kernel shows of its modules: it can load some, and has none loaded."""
    monkeypatch.setattr(modules, "_LOADED", str(tmp_path / "loaded"))
    monkeypatch.setattr(modules, "_LOADING", str(tmp_path / "modules"))
    monkeypatch.setattr(modules, "_DISABLED", str(tmp_path / "disabled"))
    monkeypatch.setattr(modules, "_FILES", str(tmp_path / "files"))
    (tmp_path / "loaded").mkdir()
    (tmp_path / "modules").touch()
    (tmp_path / "files" / os.uname().release).mkdir(parents=True)
    return tmp_path


def index(kernel: Path, name: str, *paths: str) -> None:
    (kernel / "files" / os.uname().release / name).write_text("".join(f"{path}\n" for path in paths))


def test_a_module_is_surely_absent_only_where_all_speaks_for_it(kernel: Path) -> None:
    assert not modules.surely_absent("nf_tables")  # nobody knows what is built in
    index(kernel, "modules.builtin", "kernel/net/netfilter/x_tables.ko", "kernel/net/netfilter/nf-tables-x.ko")
    assert modules.surely_absent("nf_tables")
    (kernel / "loaded" / "nf_tables").mkdir()
    assert not modules.surely_absent("nf_tables")
    (kernel / "loaded" / "nf_tables").rmdir()
    index(kernel, "modules.builtin", "kernel/net/netfilter/nf-tables.ko")
    assert not modules.surely_absent("nf_tables")
    index(kernel, "modules.builtin")
    (kernel / "modules").unlink()  # a kernel without modules: what it has is built in, and asking loads nothing
    assert not modules.surely_absent("nf_tables")


def test_a_part_is_out_of_reach_only_where_all_speaks_for_it(kernel: Path) -> None:
    assert not modules.out_of_reach("ip_tables")  # a container: the host may have it
    index(kernel, "modules.builtin", "kernel/net/netfilter/x_tables.ko")
    assert not modules.out_of_reach("ip_tables")
    index(kernel, "modules.dep", "kernel/net/ipv4/netfilter/ip_tables.ko.xz: kernel/net/netfilter/x_tables.ko.xz")
    assert not modules.out_of_reach("ip_tables")
    assert modules.out_of_reach("iptable_nat")
    (kernel / "disabled").write_text("1\n")
    assert modules.out_of_reach("ip_tables")
    (kernel / "disabled").write_text("0\n")
    assert not modules.out_of_reach("ip_tables")
    (kernel / "modules").unlink()
    assert modules.out_of_reach("ip_tables")


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfw.kernel.command.find", lambda tool: None if tool.startswith("ip6") else tool)
    for variant, why in (("nft", iptables_nft_unavailable), ("legacy", iptables_legacy_unavailable)):
        assert why() == f"ip6tables-{variant}-restore is not installed (apt-get install iptables)"


def test_legacy_iptables_is_usable_unless_something_speaks_against_it(
    kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfw.kernel.command.find", lambda tool: tool)
    monkeypatch.setattr("meshfw.backends.instance.has_net_admin", lambda: True)
    monkeypatch.setattr("meshfw.backends.instance._LEGACY", str(kernel / "ip_tables_names"))
    assert iptables_legacy_unavailable() is None
    index(kernel, "modules.builtin")
    index(kernel, "modules.dep")
    assert iptables_legacy_unavailable() == "this kernel has no legacy iptables (use nft or iptables-nft)"
    (kernel / "ip_tables_names").touch()
    assert iptables_legacy_unavailable() is None
    monkeypatch.setattr("meshfw.backends.instance.has_net_admin", lambda: False)
    assert str(iptables_legacy_unavailable()).startswith("CAP_NET_ADMIN is missing (run as root, or ")


def test_what_is_not_loaded_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*given: object) -> None:
        raise AssertionError("a message would load the module")

    monkeypatch.setattr(looks, "surely_absent", lambda module: module == "nf_tables")
    monkeypatch.setattr(looks, "Nfnetlink", asked)
    assert looks.nft_presence(SITE) == Presence()
    assert looks.nft_tables() == ()
    assert looks.iptables_nft_presence(SITE) == Presence()
