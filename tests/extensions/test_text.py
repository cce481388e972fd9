"""Laws of the typed extensions in iptables' language: one canonical text, which is the kernel tools' own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshfw.errors import FamilyParseError, ParseError, PluginError
from meshfw.extensions import Extension, Language, Option, builtin_extensions
from meshfw.extensions.codecs import plain
from meshfw.languages.iptables import format_rule, parse_rule
from meshfw.model import (
    Accept,
    Comment,
    Drop,
    Family,
    Goto,
    Jump,
    Match,
    OpaqueMatch,
    OpaqueTarget,
    Return,
    Rule,
    Target,
)
from meshfw.testing.netns import Netns
from tests.extensions import cases
from tests.extensions.case import LANGUAGE, Case
from tests.extensions.cases import CASES, IPSETS, UNHELD

TOOLS = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
HOST_NAME = re.compile(r"--\S*(?:ports?|destination) \S*(?:ssh|domain)|--[ug]id-owner [a-z]")
WRITTEN = (*CASES, *UNHELD)
BY_RULE = pytest.mark.parametrize("case", WRITTEN, ids=[f"{case.families}: {case.written}" for case in WRITTEN])


def canonical(text: str, family: Family = Family.IPV4) -> str:
    return format_rule(parse_rule(text, family=family, language=LANGUAGE), family=family, language=LANGUAGE)


@BY_RULE
def test_a_rule_prints_as_it_is_saved(case: Case) -> None:
    for family, rule in case.rules():
        assert format_rule(rule, family=family, language=LANGUAGE) == case.canonical


@BY_RULE
def test_saved_text_means_what_was_written(case: Case) -> None:
    for family, rule in case.rules():
        again = parse_rule(case.canonical, family=family, language=LANGUAGE)
        assert again == rule
        assert format_rule(again, family=family, language=LANGUAGE) == case.canonical


def test_every_extension_and_option_has_a_case() -> None:
    text = " ".join(f"{case.written} {case.canonical}".replace("'", "") for case in WRITTEN)
    words = set(text.split())
    missing = [
        f"{extension.name} {option.name}"
        for extension in builtin_extensions()
        for option in extension.options
        if extension.name not in words or option.name not in words
    ]
    assert missing == []


def test_every_value_is_in_the_table() -> None:
    listed = {extension.value for extension in builtin_extensions()}
    verdicts = {Accept, Drop, Return, Jump, Goto, OpaqueTarget, OpaqueMatch}
    ours = {kind for root in (Match, Target) for kind in root.__subclasses__() if kind.__module__.startswith("meshfw.")}
    assert ours - listed == verdicts
    assert Comment in listed


def test_every_option_with_words_has_a_codec_that_says_what_it_expects() -> None:
    for extension in builtin_extensions():
        for option in extension.options:
            assert (option.codec is not None) == bool(option.words)
            assert option.codec is None or len(option.codec.expected) > 3


def test_names_are_claimed_once() -> None:
    with pytest.raises(PluginError, match="two extensions claim it"):
        Language.of((*builtin_extensions(), *builtin_extensions()))


def test_a_language_can_be_extended() -> None:
    class Shout(Match, frozen=True):
        word: str

    shout = Extension(name="shout", value=Shout, options=(Option("--word", "word", plain("a word")),))
    language = LANGUAGE.extended((shout,))
    rule = parse_rule("-m shout --word hey -j DROP", family=Family.IPV4, language=language)
    assert rule.matches == (Shout("hey"),)
    assert format_rule(rule, family=Family.IPV4, language=language) == "-m shout --word hey -j DROP"
    assert "shout" not in LANGUAGE.matches


REFUSED = [
    ("-p tcp --dport 4:3", "ascending"),
    ("-p tcp --dport 65536", "65536"),
    ("-p tcp --dport nosuchservice", "nosuchservice"),
    ("-p tcp --tcp-flags SYN,FOO SYN", "FOO"),
    ("-p tcp --tcp-flags SYN", "no value"),
    ("-p tcp --tcp-option 0", "1 and 255"),
    ("-m tcp --dport 22", "protocol"),
    ("-p udp -m tcp --dport 22", "protocol"),
    ("-p sctp --chunk-types some INIT", "some"),
    ("-p sctp --chunk-types any WHAT", "WHAT"),
    ("-p sctp --chunk-types any INIT:T", "flag"),
    ("-p sctp --chunk-types any DATA:Bb", "both"),
    ("-p sctp --chunk-types any DATA:B,DATA:b", "different flags"),
    ("-p icmp -m icmp", "--icmp-type"),
    ("-p icmp --icmp-type nosuch", "nosuch"),
    ("-p icmp --icmp-type 256", "256"),
    ("-p icmp --icmp-type 3/1:3", "3/1:3"),
    ("-m icmp --icmp-type 8", "protocol"),
    ("-m conntrack", "at least one"),
    ("-m conntrack --ctstate NOW", "NOW"),
    ("-m conntrack --ctproto 256", "255"),
    ("-m conntrack --ctproto nosuch", "nosuch"),
    ("-m conntrack --ctorigsrc 10.0.1.0/255.0.255.0", "gaps"),
    ("-m conntrack --ctexpire 4294967296", "4294967296"),
    ("-m conntrack ! --ctdir ORIGINAL", "negated"),
    ("-m conntrack --ctdir BACK", "BACK"),
    ("-m conntrack --ctstatus SURE", "SURE"),
    ("-m state --state DNAT", "DNAT"),
    ("-m state", "--state"),
    ("-m multiport --dports 80", "protocol"),
    ("! -p tcp -m multiport --dports 80", "protocol"),
    ("-p icmp -m multiport --dports 80", "protocol"),
    ("-p tcp -m multiport", "one of"),
    ("-p tcp -m multiport --sports 1 --dports 2", "one of"),
    ("-p tcp -m multiport --dports 80,", "''"),
    ("-p tcp -m multiport --dports 90:80", "range"),
    ("-p tcp -m multiport --dports 80:80", "range"),
    ("-p tcp -m multiport --dports 1:2,3:4,5:6,7:8,9:10,11:12,13:14,15:16", "15"),
    ("-m mark", "--mark"),
    ("-m mark --mark 4294967296", "4294967296"),
    ("-m mark --mark -1", "-1"),
    ("-m limit ! --limit 1/s", "negated"),
    ("-m limit --limit 5/", "5/"),
    ("-m limit --limit 5/minutes", "minutes"),
    ("-m limit --limit 0/s", "at least one"),
    ("-m limit --limit 10001/s", "too fast"),
    ("-m limit --limit-burst 0", "between"),
    ("-m limit --limit-burst 10001", "between"),
    ("-m addrtype --limit-iface-in", "--src-type or --dst-type"),
    ("-m addrtype --src-type PLANET", "PLANET"),
    ("-m addrtype --src-type UN", "UN"),
    ("-m addrtype --src-type LOCAL --limit-iface-in --limit-iface-out", "twice"),
    ("-m iprange", "--src-range or --dst-range"),
    ("-m iprange --src-range 10.0.0.1-fd00::1", "families"),
    ("-m mac --mac-source 00:01:02:03:04", "00:01:02:03:04"),
    ("-m mac --mac-source 00-01-02-03-04-05", "Ethernet"),
    ("-j REJECT --reject-with silence", "silence"),
    ("-j REJECT --reject-with tcp-reset", "needs -p tcp"),
    ("! -p udp -j REJECT --reject-with tcp-reset", "needs -p tcp"),
    ("-j LOG --log-level err", "err"),
    ("-j LOG --log-level 8", "8"),
    ('-j LOG --log-prefix ""', "at least one"),
    ("-j MASQUERADE --to-ports 80", "tcp, udp, sctp or dccp"),
    ("-p udplite -j MASQUERADE --to-ports 80", "tcp, udp, sctp or dccp"),
    ("-p tcp -j MASQUERADE --to-ports 9-5", "ascending"),
    ("-j MASQUERADE --persistent", "unknown option"),
    ("-j SNAT", "--to-source"),
    ("-j SNAT --to-source 192.0.2.1:80", "tcp, udp, sctp or dccp"),
    ("-j SNAT --to-source 192.0.2.0/24", "192.0.2.0/24"),
    ("-p tcp -j SNAT --to-source 192.0.2.1:10-20/30", "shift"),
    ("-j SNAT --to-source 192.0.2.1 --to-source 192.0.2.2", "twice"),
    ("-p tcp -j DNAT --to-destination 192.0.2.1:10-20/0", "base port"),
    ("-p tcp -j DNAT --to-destination 192.0.2.1:65536", "65536"),
    ("-p tcp -j DNAT --to-destination 192.0.2.1:10-ssh", "10-ssh"),
    ("-j DNAT --to-destination 192.0.2.1 --random-fully", "unknown option"),
    ("-j REDIRECT --to-ports 80", "tcp, udp, sctp or dccp"),
    ("-j MARK", "--set-xmark"),
    ("-j MARK --set-mark 1 --or-mark 2", "twice"),
    ("-j CONNMARK", "one of"),
    ("-j CONNMARK --save-mark --restore-mark", "twice"),
    ("-j CONNMARK --set-mark 1 --save-mark", "one of"),
    ("-j CONNMARK --save-mark --mask 1 --nfmask 2", "beside"),
    ("-j CONNMARK --save-mark --left-shift-mark 32", "between 0 and 31"),
    ("-j CONNMARK --save-mark --left-shift-mark 1 --right-shift-mark 1", "beside"),
]


@pytest.mark.parametrize(("text", "reason"), [*REFUSED, *cases.REFUSED])
def test_what_can_not_be_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_rule(text, family=Family.IPV4, language=LANGUAGE)
    assert reason in str(caught.value)
    assert not isinstance(caught.value, FamilyParseError)


REFUSED_IPV6 = [
    ("-m addrtype --src-type BROADCAST", "BROADCAST does not exist for ipv6"),
    ("-m addrtype --dst-type LOCAL,PROHIBIT", "PROHIBIT does not exist for ipv6"),
    ("-p icmpv6 -m icmp6", "--icmpv6-type"),
    ("-p icmpv6 --icmpv6-type any", "any"),
    ("-p tcp -j SNAT --to-source [fd00::1]80", "brackets"),
    ("-p tcp -j SNAT --to-source [fd00::1", "brackets"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED_IPV6)
def test_what_ipv6_does_not_have_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_rule(text, family=Family.IPV6, language=LANGUAGE)


OTHER_FAMILY = [
    (Family.IPV6, "-m conntrack --ctorigsrc 10.0.0.1"),
    (Family.IPV4, "-m conntrack --ctrepldst fd00::1"),
    (Family.IPV6, "-m iprange --src-range 10.0.0.1-10.0.0.9"),
    (Family.IPV4, "-m iprange --src-range fd00::1-fd00::9"),
    (Family.IPV6, "-j SNAT --to-source 10.0.0.1"),
    (Family.IPV4, "-p tcp -j DNAT --to-destination [fd00::1]:80"),
    (Family.IPV6, "-j REJECT --reject-with icmp-net-unreachable"),
    (Family.IPV4, "-j REJECT --reject-with icmp6-no-route"),
    (Family.IPV6, "-p icmp -m icmp --icmp-type 8"),
    (Family.IPV4, "-p icmpv6 -m icmp6 --icmpv6-type 128"),
    (Family.IPV4, "-m hl --hl-eq 5"),
    (Family.IPV6, "-m ttl --ttl-eq 5"),
    (Family.IPV6, "-m realm --realm 5"),
    (Family.IPV4, "-j HL --hl-set 5"),
    (Family.IPV6, "-j TTL --ttl-set 5"),
    (Family.IPV6, "-j ECN --ecn-ip-ect 1"),
]


@pytest.mark.parametrize(("family", "text"), OTHER_FAMILY)
def test_a_word_of_the_other_family_is_told_apart(family: Family, text: str) -> None:
    with pytest.raises(FamilyParseError):
        parse_rule(text, family=family, language=LANGUAGE)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (
            "-m mark --mark 1 -m connmark --mark 2 -m mark --mark 3",
            "-m mark --mark 0x1 -m mark --mark 0x3 -m connmark --mark 0x2",
        ),
        (
            "-m mark --mark 1 -m limit -m mark --mark 3 -m mark --mark 5",
            "-m mark --mark 0x1 -m limit --limit 3/hour -m mark --mark 0x3 -m mark --mark 0x5",
        ),
        (
            "-m mark --mark 1 -m connmark --mark 2 -m limit -m mark --mark 3",
            "-m mark --mark 0x1 -m connmark --mark 0x2 -m limit --limit 3/hour -m mark --mark 0x3",
        ),
    ],
)
def test_an_option_stands_where_iptables_takes_it_for_its_own_match(written: str, told: str) -> None:
    assert canonical(written) == told


def test_an_answer_without_a_family_is_one_rule_for_both() -> None:
    assert canonical("-j REJECT") == "-j REJECT --reject-with icmp-port-unreachable"
    assert canonical("-j REJECT", Family.IPV6) == "-j REJECT --reject-with icmp6-port-unreachable"


# --- the kernel's tools -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room() -> Iterator[Netns]:
    with Netns() as made:
        with made.entered():
            for prepare in cases.PREPARATIONS:
                prepare()
        yield made


def chain_of(case: Case) -> tuple[str, str]:
    table, _, chain = case.table.partition("/")
    return table, chain or "FORWARD"


def restore_input(chosen: list[Case]) -> str:
    """One restore of all the cases, each table's rules in the order of the cases."""
    lines = []
    for table in ("raw", "mangle", "nat", "filter", "security"):
        lines.append(f"*{table}")
        for case in chosen:
            # The cases' names are those of LANGUAGE, and need not be this host's.
            rule = case.canonical if HOST_NAME.search(case.written) else case.written
            if chain_of(case)[0] == table:
                lines.append(f"-A {chain_of(case)[1]} {rule}")
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def saved_rules(text: str) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            _, chain, *rest = line.split(" ", 2)
            found.setdefault((table, chain), []).append(rest[0] if rest else "")
    return found


def meanings(rules: dict[tuple[str, str], list[str]], family: Family) -> dict[tuple[str, str], list[Rule]]:
    return {key: [parse_rule(text, family=family, language=LANGUAGE) for text in texts] for key, texts in rules.items()}


def lost(case: Case, variant: str, *, shown: bool = False) -> bool:
    """Whether the variant stores another rule, as the case's values say themselves, or saves another."""
    losses = (loss for _, rule in case.rules() for loss in rule.losses())
    return any(variant in loss.variants and (loss.shown or not shown) for loss in losses)


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_what_a_value_says_is_lost_is_lost(
    room: Netns, requires: Callable[..., None], tmp_path: Path, family: Family, variant: str
) -> None:
    tool = f"{TOOLS[family]}-{variant}"
    requires(f"{tool}-restore", f"{tool}-save")
    digit = "4" if family is Family.IPV4 else "6"
    environment = {**os.environ, "XTABLES_LOCKFILE": str(tmp_path / "lock")}
    lossy = [case for case in CASES if digit in case.families and lost(case, variant, shown=True)]
    chosen = [case._replace(written=case.canonical) for case in lossy]
    with room.entered():
        subprocess.run([f"{tool}-restore"], input=restore_input(chosen), text=True, env=environment, check=True)
        saved = subprocess.run([f"{tool}-save"], capture_output=True, text=True, env=environment, check=True).stdout
        subprocess.run([f"{tool}-restore"], input=restore_input([]), text=True, env=environment, check=True)
    found = saved_rules(saved)
    for case in chosen:
        text = found[chain_of(case)].pop(0)
        kept = parse_rule(text, family=family, language=LANGUAGE) in [rule for _, rule in case.rules()]
        assert text != case.canonical or not kept, f"{variant} keeps {case.written}: then it loses nothing"


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_iptables_saves_the_canonical_text(
    room: Netns, requires: Callable[..., None], tmp_path: Path, family: Family, variant: str
) -> None:
    tool = f"{TOOLS[family]}-{variant}"
    requires(f"{tool}-restore", f"{tool}-save")
    check_saved(room, family, variant, [case for case in CASES if not case.in_ipset], tmp_path)


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_iptables_saves_the_canonical_text_of_what_names_an_ipset(
    requires: Callable[..., None], tmp_path: Path, family: Family, variant: str
) -> None:
    tool = f"{TOOLS[family]}-{variant}"
    requires(f"{tool}-restore", f"{tool}-save", "ipset")
    with Netns() as room:
        with room.entered():
            subprocess.run(["ipset", "restore"], input="\n".join(IPSETS), text=True, check=True)
        check_saved(room, family, variant, [case for case in CASES if case.in_ipset], tmp_path)


def check_saved(room: Netns, family: Family, variant: str, cases: list[Case], directory: Path) -> None:
    tool, digit = f"{TOOLS[family]}-{variant}", "4" if family is Family.IPV4 else "6"
    chosen = [case for case in cases if digit in case.families and not lost(case, variant)]
    environment = {**os.environ, "XTABLES_LOCKFILE": str(directory / "lock")}
    with room.entered():
        subprocess.run([f"{tool}-restore"], input=restore_input(chosen), text=True, env=environment, check=True)
        saved = subprocess.run([f"{tool}-save"], capture_output=True, text=True, env=environment, check=True).stdout
        subprocess.run([f"{tool}-restore"], input=restore_input([]), text=True, env=environment, check=True)
    wanted: dict[tuple[str, str], list[str]] = {}
    for case in chosen:
        wanted.setdefault(chain_of(case), []).append(case.canonical)
    found = saved_rules(saved)
    if tool.endswith("-legacy"):
        assert found == wanted
    # The nf_tables variant keeps some conditions in its own form: ! --dport 0:1023 comes back as 1024:65535.
    assert meanings(found, family) == meanings(wanted, family)
