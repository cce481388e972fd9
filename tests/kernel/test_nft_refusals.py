"""What nf_tables would refuse or misread is refused or told apart before: each against the real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from meshfw.backend import Site
from meshfw.backends.nft import NftBackend
from meshfw.backends.nft_depth import DEPTH_MAX
from meshfw.errors import KernelError, UnsupportedError
from meshfw.extensions import Language, builtin_extensions
from meshfw.kernel.libnftables import Libnftables
from meshfw.languages.iptables import parse_rule
from meshfw.model import Attachment, Chain, Family, Hook, Rule, Ruleset, Table
from meshfw.plan import Plan
from meshfw.reconcile import apply, plan
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel
LANGUAGE = Language.of(builtin_extensions())


@pytest.fixture
def backend(netns: Netns) -> Iterator[NftBackend]:
    opened = NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=netns.path))
    yield opened
    opened.close()


def fresh_plan(netns: Netns, ruleset: Ruleset) -> Plan:
    """What an instance that knows nothing yet would change."""
    with closing(NftBackend(Site(owner="meshfw", language=LANGUAGE, netns=netns.path))) as other:
        return plan(other, ruleset)


def rule(text: str) -> Rule:
    return parse_rule(text, family=Family.IPV4, language=LANGUAGE)


def one_chain(*texts: str) -> Ruleset:
    chain = Chain(family=Family.IPV4, table=Table.FILTER, name="a", rules=tuple(map(rule, texts)))
    attachment = Attachment(family=Family.IPV4, table=Table.FILTER, hook=Hook.INPUT, chain="a")
    return Ruleset(chains=(chain,), attachments=(attachment,))


def line_of_jumps(length: int) -> Ruleset:
    """A chain attached to INPUT that leads through so many chains in all."""
    chains = [
        Chain(
            family=Family.IPV4,
            table=Table.FILTER,
            name=f"c{index}",
            rules=(rule(f"-j c{index + 1}"),) if index + 1 < length else (),
        )
        for index in range(length)
    ]
    attachment = Attachment(family=Family.IPV4, table=Table.FILTER, hook=Hook.INPUT, chain="c0")
    return Ruleset(chains=tuple(chains), attachments=(attachment,))


def test_jumps_go_exactly_as_deep_as_the_kernel_follows(backend: NftBackend, netns: Netns) -> None:
    apply(backend, line_of_jumps(DEPTH_MAX))
    with pytest.raises(UnsupportedError, match=r"c0 -> c1 -> .* -> c15"):
        apply(backend, line_of_jumps(DEPTH_MAX + 1))
    assert not fresh_plan(netns, line_of_jumps(DEPTH_MAX))


def test_the_kernel_itself_refuses_one_jump_more(netns: Netns) -> None:
    lines = ["table ip t {"]
    for index in range(DEPTH_MAX, -1, -1):
        jump = f"jump c{index + 1}" if index < DEPTH_MAX else ""
        lines.append(f"chain c{index} {{ {jump}\n }}")
    lines.append("chain base { type filter hook input priority 0;\n jump c0\n }\n}")
    with Libnftables(netns.path) as nft, pytest.raises(KernelError, match="Too many links"):
        nft.run("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "-m comment --comment first -m limit --limit 5/sec -j ACCEPT",
        "-p tcp -m comment --comment between -m limit --limit 5/sec -m tcp --dport 22 -j ACCEPT",
        "-m limit --limit 5/sec -m comment --comment last -j ACCEPT",
        "-i @x -j ACCEPT",
    ],
)
def test_a_rule_is_adopted_wherever_its_comment_stands(backend: NftBackend, netns: Netns, text: str) -> None:
    apply(backend, one_chain(text))
    assert not fresh_plan(netns, one_chain(text))


@pytest.mark.parametrize(
    ("table", "hook", "text"),
    [
        (Table.RAW, Hook.PREROUTING, "-p tcp -j CT --zone 5"),
        (Table.RAW, Hook.OUTPUT, "-p udp -j CT --zone-orig 6"),
        (Table.RAW, Hook.PREROUTING, "-j CT --zone-reply 7"),
        (Table.RAW, Hook.PREROUTING, "-j CT --notrack"),
        (
            Table.FILTER,
            Hook.INPUT,
            "-p tcp -m tcp --dport 80 -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460",
        ),
        (Table.FILTER, Hook.FORWARD, "-p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --mss 1460"),
        (Table.MANGLE, Hook.FORWARD, "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"),
        (Table.MANGLE, Hook.POSTROUTING, "-j TOS --set-tos 0x10"),
        (Table.MANGLE, Hook.PREROUTING, "-j CONNMARK --set-xmark 0x5/0xff"),
        (Table.MANGLE, Hook.PREROUTING, "-j CONNMARK --restore-mark"),
    ],
)
def test_a_target_of_several_statements_is_adopted(
    backend: NftBackend, netns: Netns, table: Table, hook: Hook, text: str
) -> None:
    chain = Chain(family=Family.IPV4, table=table, name="a", rules=(rule(text),))
    attachment = Attachment(family=Family.IPV4, table=table, hook=hook, chain="a")
    wanted = Ruleset(chains=(chain,), attachments=(attachment,))
    apply(backend, wanted)
    assert not fresh_plan(netns, wanted)


# --- what depends on the hook ---


def mapping(*hooks: Hook, others: tuple[str, ...] = ()) -> Ruleset:
    """A chain on these hooks of table nat that leads to another, which maps networks."""
    made = {"a": (rule("-p tcp -j b"), *map(rule, others)), "b": (rule("-d 192.0.2.0/24 -j NETMAP --to 10.0.0.0/24"),)}
    return Ruleset(
        chains=tuple(
            Chain(family=Family.IPV4, table=Table.NAT, name=name, rules=rules) for name, rules in made.items()
        ),
        attachments=tuple(
            Attachment(family=Family.IPV4, table=Table.NAT, hook=hook, chain="a", when=rule("")) for hook in hooks
        ),
    )


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ((Hook.PREROUTING,), "dnat prefix to"),
        ((Hook.POSTROUTING,), "snat prefix to"),
        ((Hook.PREROUTING, Hook.OUTPUT), "dnat prefix to"),
        ((Hook.INPUT, Hook.POSTROUTING), "snat prefix to"),
    ],
)
def test_a_network_is_mapped_as_the_hooks_want_that_lead_to_the_chain(
    backend: NftBackend, netns: Netns, hooks: tuple[Hook, ...], words: str
) -> None:
    apply(backend, mapping(*hooks))
    with Libnftables(netns.path) as nft:
        assert words in nft.run("list chain ip meshfw nat-b")
    assert not fresh_plan(netns, mapping(*hooks))
    more = mapping(*hooks, others=("-j ACCEPT",))
    apply(backend, more)
    assert not fresh_plan(netns, more)


def test_a_network_mapped_otherwise_on_each_hook_is_refused_by_their_names(backend: NftBackend) -> None:
    apply(backend, mapping(Hook.PREROUTING))
    with pytest.raises(UnsupportedError, match="from PREROUTING and from POSTROUTING"):
        apply(backend, mapping(Hook.PREROUTING, Hook.POSTROUTING))
    with pytest.raises(UnsupportedError, match="isn't known from which hook"):
        apply(backend, mapping())
    apply(backend, mapping(Hook.PREROUTING, Hook.OUTPUT))


@pytest.mark.parametrize(
    "masked",
    ["meta l4proto & 0x06 == 0x06 counter accept", "ip protocol & 6 == 6 counter accept"],
)
def test_a_masked_condition_is_drift(backend: NftBackend, netns: Netns, masked: str) -> None:
    wanted = one_chain("-p tcp -j ACCEPT")
    apply(backend, wanted)
    with Libnftables(netns.path) as nft:
        nft.run(f"flush chain ip meshfw filter-a\nadd rule ip meshfw filter-a {masked}\n")
    assert plan(backend, wanted)
    apply(backend, wanted)
    assert not fresh_plan(netns, wanted)


@pytest.mark.parametrize("uncounted", ["tcp dport 22 accept", "counter tcp dport 22 accept"])
def test_a_rule_that_counts_otherwise_is_drift(backend: NftBackend, netns: Netns, uncounted: str) -> None:
    wanted = one_chain("-p tcp --dport 22 -j ACCEPT")
    apply(backend, wanted)
    with Libnftables(netns.path) as nft:
        nft.run(f"flush chain ip meshfw filter-a\nadd rule ip meshfw filter-a {uncounted}\n")
    assert plan(backend, wanted)
    apply(backend, wanted)
    assert not fresh_plan(netns, wanted)


def test_a_stray_chain_costs_no_counter(backend: NftBackend, netns: Netns) -> None:
    wanted = one_chain("-p tcp -j ACCEPT")
    apply(backend, wanted)
    with Libnftables(netns.path) as nft:
        nft.run("flush chain ip meshfw filter-a\n")
        nft.run("add rule ip meshfw filter-a meta l4proto 6 counter packets 7 bytes 70 accept\n")
        nft.run("add chain ip meshfw stray\n")
        apply(backend, wanted)
        listing = nft.run("list table ip meshfw")
    assert "counter packets 7 bytes 70 accept" in listing
    assert "stray" not in listing


FOREIGN = "table ip meshfw {\n chain mine {\n type filter hook input priority 0;\n tcp dport 22 accept\n }\n}\n"


@pytest.mark.parametrize("wanted", [one_chain("-j ACCEPT"), Ruleset()], ids=["apply", "clean"])
def test_a_table_that_somebody_else_made_is_left_alone(backend: NftBackend, netns: Netns, wanted: Ruleset) -> None:
    with Libnftables(netns.path) as nft:
        nft.run(FOREIGN)
        before = nft.run("list ruleset")
        with pytest.raises(UnsupportedError, match=r"table ip meshfw: somebody else made and filled it.*adopt = true"):
            apply(backend, wanted)
        assert nft.run("list ruleset") == before


def test_a_table_that_somebody_else_made_is_taken_over_when_asked(netns: Netns) -> None:
    with Libnftables(netns.path) as nft:
        nft.run(FOREIGN)
        place = Site(owner="meshfw", language=LANGUAGE, netns=netns.path, options={"adopt": True})
        with closing(NftBackend(place)) as adopting:
            apply(adopting, one_chain("-j ACCEPT"))
        assert "mine" not in nft.run("list ruleset")
    assert not fresh_plan(netns, one_chain("-j ACCEPT"))


def test_a_table_that_a_process_holds_for_itself_is_named(backend: NftBackend, netns: Netns) -> None:
    with Libnftables(netns.path) as holder:
        holder.run("add table ip meshfw { flags owner; }")
        with pytest.raises(UnsupportedError, match="another process holds it"):
            apply(backend, one_chain("-j ACCEPT"))


def test_a_foreign_inet_table_of_our_name_is_a_neighbour(backend: NftBackend, netns: Netns) -> None:
    with Libnftables(netns.path) as nft:
        nft.run("table inet meshfw {\n chain x {\n type filter hook input priority 0; policy drop;\n }\n}\n")
    report = apply(backend, one_chain("-j ACCEPT"))
    assert any("inet meshfw x" in warning for warning in report.warnings)
