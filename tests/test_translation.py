"""Laws of translation: whole dumps there and back, streams of requests, and what is said of what can't be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshfw.backends.nft_foreign import listed, objects_of
from meshfw.cli.jsonl import Terms, answers
from meshfw.errors import BackendError
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.dump import Dump, format_dump, parse_dump
from meshfw.languages.nft import read_tables, render_tables
from meshfw.languages.nft.names import RESERVED, spoken_name, unspoken_name
from meshfw.languages.nft.told import told
from meshfw.model import Family, Policy
from meshfw.testing.netns import Netns
from meshfw.translation import Kind, Place, translated
from tests.test_cli import spawned

LANGUAGE = Language.of(builtin_extensions())

DUMP = """\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -i eth0 -p udp -m udp --dport 0:1023 -j DROP
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A OUTPUT -m mark --mark 0x1 -j MARK --set-xmark 0x2/0xff
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:reject - [0:0]
-A PREROUTING -p tcp -m tcp --dport 80 -j reject
-A reject -p tcp -j REDIRECT --to-ports 8080
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:a~b - [0:0]
:unused - [0:0]
[3:180] -A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,80:90 -m comment --comment "a b" -g a~b
-A a~b -m limit --limit 5/min -j LOG --log-prefix "x "
-A a~b -j REJECT --reject-with PORT
-A unused -j RETURN
COMMIT
"""
ANSWERS = {Family.IPV4: "icmp-port-unreachable", Family.IPV6: "icmp6-port-unreachable"}


def dump_of(family: Family, text: str = DUMP) -> Dump:
    return parse_dump(text.replace("PORT\n", f"{ANSWERS[family]}\n"), family=family, language=LANGUAGE)


def printed(dump: Dump) -> str:
    return format_dump(dump, language=LANGUAGE)


@pytest.mark.kernel
@pytest.mark.parametrize("family", Family)
def test_a_dump_comes_back_from_nft_as_it_was(requires: Callable[..., None], family: Family) -> None:
    requires("nft")
    dump = dump_of(family)
    tables = render_tables(dump, language=LANGUAGE)
    assert tables.untold == ()
    assert tables.warnings == (
        "chain reject is called chain.reject: nft's text can't say that name",
        "chain a~b is called a.7eb: nft's text can't say that name",
    )
    found = read_tables(objects_of(tables.text), language=LANGUAGE)
    assert found.unread == ()
    assert list(found.dumps) == [family]
    wanted, got = _sorted(dump), _sorted(found.dumps[family])
    assert got == wanted


def _sorted(dump: Dump) -> dict[str, Any]:
    """Each table's chains by name; a built-in chain without rules or policy says nothing."""
    return {
        f"{table.table} {chain.name}": (chain.policy, [(entry.rule, entry.packets) for entry in chain.rules])
        for table in dump.tables
        for chain in table.chains
        if chain.rules or chain.policy is not Policy.ACCEPT
    }


@pytest.mark.kernel
def test_rules_of_an_inet_table_go_to_the_families_that_can_meet_them(requires: Callable[..., None]) -> None:
    requires("nft")
    text = """
    table inet fw {
        chain in {
            type filter hook input priority filter; policy drop;
            ct state established,related accept
            ip saddr 10.0.0.0/8 tcp dport 22 accept
            ip6 saddr fe80::/10 accept
            meta nfproto ipv4 udp dport 53 jump own
            icmpv6 type nd-neighbor-solicit accept
        }
        chain own { counter packets 7 bytes 700 drop
        }
    }
    """
    found = read_tables(objects_of(text), language=LANGUAGE)
    assert found.unread == ()
    assert printed(found.dumps[Family.IPV4]) == (
        "*filter\n:INPUT DROP [0:0]\n:own - [0:0]\n"
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j ACCEPT\n"
        "-A INPUT -p udp -m udp --dport 53 -j own\n"
        "[7:700] -A own -j DROP\nCOMMIT\n"
    )
    assert "-A INPUT -s fe80::/10 -j ACCEPT" in printed(found.dumps[Family.IPV6])
    assert "-p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT" in printed(found.dumps[Family.IPV6])
    assert "10.0.0.0" not in printed(found.dumps[Family.IPV6])


FOLDED = """
table ip fw {
    set near { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.5-192.168.1.9 } }
    chain in {
        type filter hook input priority filter;
        iif "lo" accept
        iifname { "a", "b" } ip saddr @near tcp dport { 22, 80-90 } counter packets 3 bytes 180 jump there
        ct state vmap { established : accept, invalid : drop }
        ct state { new, related } accept
        ct state != { new, related } accept
        ct state != untracked accept
        meta l4proto { tcp, udp } th dport 53 goto there
        meta mark { 1, 2 } accept
    }
    chain there { }
}
"""
UNFOLDED = """\
*filter
:INPUT ACCEPT [0:0]
:there - [0:0]
-A INPUT -i lo -j ACCEPT
[3:180] -A INPUT -s 10.0.0.0/8 -i a -p tcp -m multiport --dports 22,80:90 -j there
-A INPUT -i a -p tcp -m iprange --src-range 192.168.1.5-192.168.1.9 -m multiport --dports 22,80:90 -j there
-A INPUT -s 10.0.0.0/8 -i b -p tcp -m multiport --dports 22,80:90 -j there
-A INPUT -i b -p tcp -m iprange --src-range 192.168.1.5-192.168.1.9 -m multiport --dports 22,80:90 -j there
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate NEW,RELATED -j ACCEPT
-A INPUT -m conntrack ! --ctstate NEW,RELATED -j ACCEPT
-A INPUT -m conntrack ! --ctstate UNTRACKED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 53 -g there
-A INPUT -p udp -m udp --dport 53 -g there
-A INPUT -m mark --mark 0x1 -j ACCEPT
-A INPUT -m mark --mark 0x2 -j ACCEPT
COMMIT
"""


@pytest.mark.kernel
def test_a_rule_over_sets_and_maps_becomes_as_few_as_can_be(requires: Callable[..., None]) -> None:
    requires("nft")
    found = read_tables(objects_of(FOLDED), language=LANGUAGE)
    assert found.unread == ()
    assert len(found.warnings) == 1
    assert printed(found.dumps[Family.IPV4]) == UNFOLDED


ANSWERED = [
    ("reject", "icmp-port-unreachable", "icmp6-port-unreachable"),
    ("reject with icmpx admin-prohibited", "icmp-admin-prohibited", "icmp6-adm-prohibited"),
    ("reject with icmpx no-route", "icmp-net-unreachable", "icmp6-no-route"),
    ("reject with icmpx host-unreachable", "icmp-host-unreachable", "icmp6-addr-unreachable"),
    ("meta l4proto tcp reject with tcp reset", "tcp-reset", "tcp-reset"),
]


@pytest.mark.kernel
@pytest.mark.parametrize(("text", "ipv4", "ipv6"), ANSWERED)
def test_an_answer_of_both_families_is_that_of_each(
    requires: Callable[..., None], text: str, ipv4: str, ipv6: str
) -> None:
    requires("nft")
    found = read_tables(objects_of(f"table inet t {{ chain c {{ {text}\n }}\n }}"), language=LANGUAGE)
    assert found.unread == ()
    for family, answer in zip(Family, (ipv4, ipv6), strict=True):
        assert f"-j REJECT --reject-with {answer}\n" in printed(found.dumps[family])


PARTED = """
table inet fw {
    set near { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 } }
    chain in {
        type filter hook input priority filter;
        log prefix "x " drop
        tcp dport { 22, 80 } log prefix "x" level info counter packets 3 bytes 180 drop
        ip saddr @near meta mark set 5 log group 2 accept
        ip daddr 10.0.0.1 meta mark set 1 ct mark set meta mark
        tcp dport 9 log prefix "y" ip saddr 10.0.0.9 limit rate 5/second drop
        iifname "a" log prefix "z" tcp dport vmap { 1 : accept, 2 : drop }
        udp dport 9 log prefix "w" reject
        udp dport 9 log prefix "v"
    }
}
"""
RULES_OF_PARTS = """\
*filter
:INPUT ACCEPT [0:0]
-A INPUT -j LOG --log-prefix "x "
-A INPUT -j DROP
[3:180] -A INPUT -p tcp -m multiport --dports 22,80 -j LOG --log-prefix x --log-level 6
-A INPUT -p tcp -m multiport --dports 22,80 -j DROP
-A INPUT -s 10.0.0.1/32 -j MARK --set-xmark 0x5/0xffffffff
-A INPUT -s 10.0.0.2/32 -j MARK --set-xmark 0x5/0xffffffff
-A INPUT -s 10.0.0.1/32 -j NFLOG --nflog-group 2
-A INPUT -s 10.0.0.2/32 -j NFLOG --nflog-group 2
-A INPUT -s 10.0.0.1/32 -j ACCEPT
-A INPUT -s 10.0.0.2/32 -j ACCEPT
-A INPUT -d 10.0.0.1/32 -j MARK --set-xmark 0x1/0xffffffff
-A INPUT -d 10.0.0.1/32 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A INPUT -p tcp -m tcp --dport 9 -j LOG --log-prefix y
-A INPUT -s 10.0.0.9/32 -p tcp -m tcp --dport 9 -m limit --limit 5/sec -j DROP
-A INPUT -i a -j LOG --log-prefix z
-A INPUT -i a -p tcp -m tcp --dport 1 -j ACCEPT
-A INPUT -i a -p tcp -m tcp --dport 2 -j DROP
-A INPUT -p udp -m udp --dport 9 -j LOG --log-prefix w
-A INPUT -p udp -m udp --dport 9 -j REJECT --reject-with icmp-port-unreachable
-A INPUT -p udp -m udp --dport 9 -j LOG --log-prefix v
COMMIT
"""


@pytest.mark.kernel
def test_a_rule_of_several_statements_becomes_one_for_each(requires: Callable[..., None]) -> None:
    requires("nft")
    found = read_tables(objects_of(PARTED), language=LANGUAGE)
    assert found.unread == ()
    assert printed(found.dumps[Family.IPV4]) == RULES_OF_PARTS


# Conditions that would answer otherwise when they are asked again.
UNPARTED = [
    "limit rate 5/second log drop",
    "quota 5 bytes log drop",
    "numgen inc mod 2 0 log drop",
    "numgen inc mod 2 vmap { 0 : accept, 1 : drop }",
    "numgen random mod 2 { 0, 1 } drop",
    "meta mark 1 meta mark set 5 accept",
    "meta mark & 0xf == 1 meta mark set 5 log",
    "ct mark 1 ct mark set 5 accept",
    "ct state new notrack accept",
    "ip dscp cs1 ip dscp set cs2 accept",
    "@nh,8,8 7 ip dscp set cs2 accept",
    "@nh,8,8 { 7, 8 } ip dscp set cs2",
    "tcp option maxseg size 1-500 tcp option maxseg size set 400 accept",
    "fib saddr . mark oif 0 meta mark set 1 drop",
]


@pytest.mark.kernel
@pytest.mark.parametrize("text", UNPARTED)
def test_a_rule_that_asks_what_can_not_be_asked_twice_is_told(requires: Callable[..., None], text: str) -> None:
    requires("nft")
    found = read_tables(objects_of(f"table ip t {{ chain c {{ {text}\n }}\n }}"), language=LANGUAGE)
    (unread,) = found.unread
    assert str(unread).startswith("ipv4 rule 1 of chain c of table ip t: iptables has nothing for ")
    assert "'" not in str(unread)


TOLD = [
    ("tcp sequence 5", "tcp sequence 5"),
    ("ip saddr . tcp dport { 1.1.1.1 . 5 } accept", "ip saddr . tcp dport 1.1.1.1 . 5"),
    ("ip saddr != { 1.1.1.1, 2.2.2.0/24 } drop", "ip saddr != { 1.1.1.1, 2.2.2.0/24 }"),
    ("meta mark 1 meta mark set 5 accept", "accept as a second target of one rule"),
    ("limit rate over 5 mbytes/second drop", "limit rate over 5 mbytes/second"),
    ("numgen inc mod 2 vmap { 0 : accept, 1 : jump d }", "numgen inc mod 2 vmap { 0 : accept, 1 : jump d }"),
]


@pytest.mark.kernel
@pytest.mark.parametrize(("text", "words"), TOLD)
def test_what_can_not_be_read_is_told_in_words_or_as_json(requires: Callable[..., None], text: str, words: str) -> None:
    requires("nft")
    found = read_tables(objects_of(f"table ip t {{ chain c {{ {text}\n }}\n chain d {{ }}\n }}"), language=LANGUAGE)
    assert str(found.unread[0]).partition("nothing for ")[2] == words


def test_what_has_no_simple_words_is_told_as_json() -> None:
    assert told({"set": {"op": "add", "elem": 1, "set": "@x"}}) == '{"set":{"op":"add","elem":1,"set":"@x"}}'
    assert told([{"accept": None}, {"jump": {"target": "a"}}]) == "accept jump a"
    assert told({"odd": True}) == '{"odd":true}'
    assert told({}) == "{}"


# What an element or the number of a packet decides can't be repeated: each copy would count by itself.
UNREAD = [
    ("table ip t { set s { type ipv4_addr; timeout 5m; }\n }", "set s of table ip t"),
    ("table ip t { chain c { ip saddr { 1.1.1.1, 2.2.2.2 } limit rate 5/second\n }\n }", "rule 1 of chain c"),
    ("table ip t { chain c { meta mark { 1, 2 } meta mark set 2\n }\n }", "rule 1 of chain c"),
    ("table ip t { chain c { ip saddr != { 1.1.1.1, 2.2.2.2 } drop\n }\n }", "rule 1 of chain c"),
    ("table ip t { chain c { ct state == established,new drop\n }\n }", "rule 1 of chain c"),
    ("table arp t { }", "table arp t"),
    ("table ip t { chain INPUT { }\n chain c { BASE 0; jump INPUT\n }\n }", "name of a built-in chain"),
    ("table ip t { chain c { type filter hook prerouting priority 0; }\n }", "no chain on prerouting at priority 0"),
    ("table ip t { chain c { tcp sequence 5\n }\n }", "rule 1 of chain c of table ip t"),
    ("table ip t { chain c { BASE 0; }\n chain d { BASE 1; }\n }", "one chain INPUT"),
    (
        "table ip t { chain c { accept\n }\n }\ntable ip u { chain c { drop\n }\n }",
        "one chain c, and that of table ip t",
    ),
    ("table ip t { chain c { meta mark { 1, 2 } jump d\n }\n chain d { }\n }", "rule 1 of chain c"),
    ("table ip t { chain c { ip dscp vmap { cs1 : jump d, cs2 : jump d }\n }\n chain d { }\n }", "rule 1 of chain c"),
]


@pytest.mark.kernel
@pytest.mark.parametrize(("text", "where"), UNREAD)
def test_what_iptables_has_nothing_for_is_told_by_its_place(
    requires: Callable[..., None], text: str, where: str
) -> None:
    requires("nft")
    found = read_tables(objects_of(text.replace("BASE", "type filter hook input priority")), language=LANGUAGE)
    assert any(where in str(item) for item in found.unread), found.unread


MAPPED = """\
*nat
:PREROUTING ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:a -
:b -
%s-A a -j b
-A b -j NETMAP --to 10.0.0.0/8
COMMIT
"""


@pytest.mark.parametrize(
    ("chains", "words"),
    [
        (("PREROUTING",), "counter dnat prefix to 10.0.0.0/8"),
        (("PREROUTING", "OUTPUT"), "counter dnat prefix to 10.0.0.0/8"),
        (("POSTROUTING",), "counter snat prefix to 10.0.0.0/8"),
        (
            ("POSTROUTING", "OUTPUT"),
            "packets come here from OUTPUT and from POSTROUTING, and nft says another thing for",
        ),
        ((), "NETMAP where it isn't known from which hook packets come"),
    ],
)
def test_the_chains_that_lead_to_a_chain_tell_its_hooks(chains: tuple[str, ...], words: str) -> None:
    text = MAPPED % "".join(f"-A {chain} -j a\n" for chain in chains)
    tables = render_tables(parse_dump(text, family=Family.IPV4, language=LANGUAGE), language=LANGUAGE)
    assert words in (tables.untold[0].reason if tables.untold else tables.text)


@pytest.mark.parametrize("flags", ["dormant", "no text at all", ["owner", "dormant"]])
def test_a_dormant_table_is_never_read_as_if_packets_met_it(flags: Any) -> None:
    table = {"family": "ip", "name": "t", "handle": 1, "flags": flags}
    (told,) = read_tables([{"table": table}], language=LANGUAGE).unread
    assert str(told).startswith("table ip t: ")
    assert read_tables([{"table": table | {"flags": ["owner"]}}], language=LANGUAGE).unread == ()
    with pytest.raises(BackendError, match="nft printed nothing"):
        listed("\n")


WRONG_JSON = [
    "{",
    "{}",
    '{"nftables": [{"rule": {}}]}',
    '{"nftables": [{"rule": 5}, 7]}',
    '{"nftables": [{"table": "x"}]}',
    '{"nftables": [{"add": {"table": {"family": "ip", "name": "t"}}}]}',
    '{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "nope", "expr": 5}}]}',
]


@pytest.mark.parametrize("text", WRONG_JSON, ids=range(len(WRONG_JSON)))
def test_json_that_nft_never_prints_is_one_message(tmp_path: Path, text: str) -> None:
    done = spawned("translate", "--from", "nft", "--to", "iptables", input=text, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nft -j list ruleset" in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.kernel
def test_nft_takes_every_name_that_is_spoken(requires: Callable[..., None]) -> None:
    requires("nft")
    names = [*sorted(RESERVED), "a b", "1x", "a~b", "%%", "a.2eb", "chain.x", "ü", "-x", "_x", "a/b", "INPUT"]
    lines = ["table ip t {", *(f"chain {spoken_name(name)} {{\n}}" for name in names), "chain meshfw {"]
    lines += [*(f"counter jump {spoken_name(name)}" for name in names), "}", "}", ""]
    with Netns() as room, room.entered():
        done = subprocess.run(["nft", "-f", "-"], input="\n".join(lines), text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [unspoken_name(spoken_name(name)) for name in names] == names
    assert len({spoken_name(name) for name in names}) == len(names)


# --- rules and scripts ---------------------------------------------------------------------------------------

SCRIPT = """\
#!/bin/sh
iptables -P INPUT DROP
iptables -N web
iptables -A INPUT -p tcp --dport 80 -j web
ip6tables -I INPUT -s fd00::1,fd00::2 -j ACCEPT
"""


def test_a_script_is_folded_into_what_it_leaves(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPT, encoding="utf-8")
    texts = json.loads(spawned("translate", "--to", "iptables", "--json", "-f", "script", cwd=tmp_path).stdout)["texts"]
    assert texts["ipv4"].startswith("*filter\n:INPUT DROP [0:0]")
    assert "-A INPUT -p tcp -m tcp --dport 80 -j web" in texts["ipv4"]
    assert "-A INPUT -s fd00::1/128 -j ACCEPT\n" in texts["ipv6"]
    assert spawned("translate", "--to", "iptables", "-6", "-f", "script", cwd=tmp_path).stdout == texts["ipv6"]
    both = spawned("translate", "--to", "iptables", "-f", "script", cwd=tmp_path)
    assert (both.returncode, both.stdout) == (1, "")
    assert "both families" in both.stderr
    text = spawned("translate", "-f", "script", cwd=tmp_path).stdout
    assert "table ip filter {" in text
    assert "ip6 saddr fd00::2 counter accept" in text
    assert "table ip6" not in spawned("translate", "-4", "-f", "script", cwd=tmp_path).stdout


def test_a_command_has_the_words_that_a_shell_gives_it(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("iptables -A INPUT -j LOG --log-prefix 'x: '\n", encoding="utf-8")
    assert 'log prefix "x: "' in spawned("translate", "-f", "one", cwd=tmp_path).stdout
    (tmp_path / "rule").write_text("-j LOG --log-prefix 'x:'\n", encoding="utf-8")
    refused = spawned("translate", "-f", "rule", cwd=tmp_path)
    assert refused.returncode == 1
    assert "an apostrophe is a letter here" in refused.stderr


def test_dumps_of_both_families_in_one_file_are_told_apart_by_their_heads(tmp_path: Path) -> None:
    four = "# Generated by iptables-save v1.8.9\n*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
    six = "# Generated by ip6tables-save v1.8.9\n*filter\n:INPUT DROP [0:0]\n-A INPUT -s fd00::1 -j ACCEPT\nCOMMIT\n"
    (tmp_path / "both").write_text(four + six, encoding="utf-8")
    text = spawned("translate", "-f", "both", cwd=tmp_path).stdout
    assert "table ip filter" in text
    assert "ip6 saddr fd00::1 counter accept" in text
    (tmp_path / "wrong").write_text(four + six.replace("fd00::1", "x"), encoding="utf-8")
    assert "wrong, line 8" in spawned("translate", "-f", "wrong", cwd=tmp_path).stderr


def test_a_listing_is_read_as_table_filter(tmp_path: Path) -> None:
    (tmp_path / "listing").write_text("-P INPUT DROP\n-N a\n-A INPUT -j a\n", encoding="utf-8")
    done = spawned("translate", "--to", "iptables", "-f", "listing", cwd=tmp_path)
    assert done.stdout == "*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n-A INPUT -j a\nCOMMIT\n"
    assert "taken for filter" in done.stderr


MISPLACED = [
    ("iptables -A INPUT -j MASQUERADE", "table nat only"),
    ("iptables -A INPUT -o eth0 -j DROP", "no output interface"),
    ("iptables -t bogus -A INPUT -j DROP", "no table bogus"),
    ("*filter\n:INPUT ACCEPT\n-A INPUT -j nowhere\nCOMMIT\n", "no such chain"),
    ("*filter\n:INPUT ACCEPT\n-A INPUT -j MASQUERADE\nCOMMIT\n", "table nat only"),
]


@pytest.mark.parametrize(("text", "told"), MISPLACED)
def test_what_can_not_stand_there_is_refused(tmp_path: Path, text: str, told: str) -> None:
    done = spawned("translate", input=text, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr


def test_a_rule_of_several_addresses_is_several_rules(tmp_path: Path) -> None:
    done = spawned("translate", "iptables", "-A", "a", "-s", "10.0.0.1,10.0.0.2", "-j", "DROP", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "add rule ip filter a ip saddr 10.0.0.1 counter drop",
        "add rule ip filter a ip saddr 10.0.0.2 counter drop",
    ]
    (found,) = answered({"rule": "-s 10.0.0.1,10.0.0.2 -j DROP"})
    assert found["canonical"] == ["-s 10.0.0.1/32 -j DROP", "-s 10.0.0.2/32 -j DROP"]
    assert found["nft"] == ["ip saddr 10.0.0.1 counter drop", "ip saddr 10.0.0.2 counter drop"]


def test_host_names_are_looked_up_only_when_that_is_asked_for(tmp_path: Path) -> None:
    refused = spawned("translate", "-4", "-s", "localhost", cwd=tmp_path)
    assert refused.returncode == 1
    assert "localhost" in refused.stderr
    found = spawned("translate", "-4", "--resolve", "-s", "localhost", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, "ip saddr 127.0.0.1 counter\n")


# --- streams ------------------------------------------------------------------------------------------------


def answered(*requests: Any, nft: bool = True, approximate: bool = False) -> list[dict[str, Any]]:
    lines = [request if isinstance(request, bytes) else json.dumps(request).encode() for request in requests]
    return [json.loads(line) for line in answers(lines, Terms(language=LANGUAGE, nft=nft, approximate=approximate))]


def test_a_request_is_answered_in_both_languages() -> None:
    (found,) = answered({"id": 7, "family": "ipv4", "rule": "-s 10.1.2.3 -p tcp --dport 22 -j ACCEPT"})
    assert found == {
        "id": 7,
        "canonical": ["-s 10.1.2.3/32 -p tcp -m tcp --dport 22 -j ACCEPT"],
        "nft": ["ip saddr 10.1.2.3 tcp dport 22 counter accept"],
        "error": None,
        "warnings": [],
    }
    (same,) = answered({"family": "ipv4", "argv": ["-s", "10.1.2.3", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]})
    assert {**same, "id": 7} == found
    (without,) = answered({"id": "x", "rule": "-j DROP"}, nft=False)
    assert (without["canonical"], without["nft"]) == (["-j DROP"], [])


WRONG: list[tuple[Any, Kind, str]] = [
    (b"{", Kind.INPUT, "expected an object"),
    (b"[1]", Kind.INPUT, "expected an object"),
    (b'{"id": 3, "family": "arp", "rule": ""}', Kind.INPUT, "family"),
    (b"[" * 5000, Kind.INPUT, "expected an object"),
    ({"id": 3}, Kind.INPUT, "neither rule nor argv"),
    ({"id": 3, "rule": "", "argv": []}, Kind.INPUT, "both rule and argv"),
    ({"id": 3, "rule": "-p tcp --dprt 1"}, Kind.SYNTAX, "--dprt"),
    ({"id": 3, "family": "ipv6", "rule": "-s 10.0.0.1"}, Kind.FAMILY, "ipv4 address"),
    ({"id": 3, "table": "filter", "chain": "INPUT", "rule": "-j MASQUERADE"}, Kind.PLACEMENT, "table nat only"),
    ({"id": 3, "table": "filter", "chain": "INPUT", "rule": "-o lo"}, Kind.PLACEMENT, "output interface"),
    ({"id": 3, "table": "filter", "chain": "OUTPUT", "rule": "-m mac --mac-source 0:0:0:0:0:1"}, Kind.PLACEMENT, "mac"),
    ({"id": 3, "table": "filter", "chain": "a", "rule": "-j INPUT"}, Kind.PLACEMENT, "built-in"),
    ({"id": 3, "table": "what", "chain": "a", "rule": "-j DROP"}, Kind.PLACEMENT, "no table what"),
]


@pytest.mark.parametrize(("request_", "kind", "told"), WRONG)
def test_a_wrong_request_is_answered_and_the_next_one_too(request_: Any, kind: Kind, told: str) -> None:
    found, after = answered(request_, {"rule": "-j DROP"})
    assert (found["canonical"], found["nft"], found["error"]["kind"]) == ([], [], kind)
    assert told in found["error"]["message"]
    assert after["canonical"] == ["-j DROP"]
    if isinstance(request_, dict) or b"3" in request_:
        assert found["id"] == 3


def test_a_list_of_addresses_is_answered_by_a_rule_for_each() -> None:
    found = translated("-s 10.0.0.1,10.1/16 -j DROP", family=Family.IPV4, language=LANGUAGE)
    assert found.canonical == ("-s 10.0.0.1/32 -j DROP", "-s 10.1.0.0/16 -j DROP")
    assert found.nft == ("ip saddr 10.0.0.1 counter drop", "ip saddr 10.1.0.0/16 counter drop")


def test_a_script_is_translated_as_what_it_leaves(tmp_path: Path) -> None:
    script = "iptables -N a; iptables -A a -s 10.0.0.1,10.0.0.2 -j DROP\nip6tables -t raw -P OUTPUT DROP\n"
    done = spawned("translate", "--from", "script", "--to", "iptables", "-4", input=script, cwd=tmp_path)
    assert done.stdout.endswith(":a - [0:0]\n-A a -s 10.0.0.1/32 -j DROP\n-A a -s 10.0.0.2/32 -j DROP\nCOMMIT\n")
    wrong = spawned("translate", "--from", "script", input="iptables -D a 1\n", cwd=tmp_path)
    assert "line 1: table filter has no chain a" in wrong.stderr


def test_what_nft_can_not_say_has_its_canonical_text() -> None:
    inexpressible, opaque = answered({"rule": "-j CHECKSUM --checksum-fill"}, {"rule": "-m nosuch --x 1 -j DROP"})
    assert inexpressible["canonical"] == ["-j CHECKSUM --checksum-fill"]
    assert (inexpressible["nft"], inexpressible["error"]["kind"]) == ([], Kind.INEXPRESSIBLE)
    assert opaque["canonical"] == ["-m nosuch --x 1 -j DROP"]
    assert (opaque["nft"], opaque["error"]["kind"]) == ([], Kind.OPAQUE)


NEAR = [
    ("-m recent --set --name bad -j DROP", "update @recent-bad { ip saddr }"),
    ("-m recent --update --seconds 60 --name bad -j DROP", "ip saddr @recent-bad update @recent-bad { ip saddr }"),
    ("-m set --match-set trusted src -j ACCEPT", "ip saddr @trusted"),
    ("-m set ! --match-set trusted dst -j DROP", "ip daddr != @trusted"),
    ("-m owner ! --uid-owner 1000 -j DROP", "meta skuid != 1000"),
    ("-m conntrack ! --ctstate DNAT -j DROP", "ct status ! dnat"),
    ("-m rpfilter --invert -j DROP", "fib saddr . iif oif missing"),
    ("-p tcp -j TPROXY --on-port 8080", "tproxy to :8080 accept"),
    ("-m socket --transparent", "socket wildcard 0 socket transparent 1"),
    ("-p tcp --syn -j TCPMSS --set-mss 500", "tcp option maxseg size set 500"),
]


@pytest.mark.kernel
@pytest.mark.parametrize(("rule", "near"), NEAR)
def test_what_comes_near_loads_and_is_never_called_a_translation(
    requires: Callable[..., None], rule: str, near: str
) -> None:
    requires("nft")
    (strict,), (found,) = answered({"rule": rule}), answered({"rule": rule}, approximate=True)
    assert (strict["nft"], strict["error"]["kind"]) == ([], Kind.INEXPRESSIBLE)
    *objects, statement = found["nft"]
    assert near in statement
    assert found["error"] == {"message": strict["error"]["message"], "kind": Kind.APPROXIMATED}
    assert [told for told in found["warnings"] if told.startswith("approximated: ")]
    script = ["add table ip filter", *objects, "add chain ip filter c", f"add rule ip filter c {statement}", ""]
    with Netns() as room, room.entered():
        subprocess.run(["nft", "-f", "-"], input="\n".join(script), text=True, check=True)


def test_rules_that_iptables_counts_together_are_refused_where_nft_would_count_them_apart() -> None:
    rule = "-A INPUT -m hashlimit --hashlimit-upto 5/sec --hashlimit-mode srcip --hashlimit-name web -j ACCEPT\n"
    dump = parse_dump(f"*filter\n:INPUT ACCEPT\n{rule}{rule}COMMIT\n", family=Family.IPV4, language=LANGUAGE)
    (untold,) = render_tables(dump, language=LANGUAGE).untold
    assert untold.number == 2
    assert "another rule's as well" in untold.reason


def test_rules_of_one_line_that_would_share_a_meter_are_no_translation(tmp_path: Path) -> None:
    rule = "-s 10.0.0.1,10.0.0.2 -m hashlimit --hashlimit-upto 5/s --hashlimit-mode srcip --hashlimit-name a"
    answer = translated(rule, family=Family.IPV4, language=LANGUAGE)
    assert len(answer.canonical) == 2
    assert answer.nft == ()
    assert answer.error is not None
    assert answer.error.kind is Kind.INEXPRESSIBLE
    assert "hashlimit-a is another rule's" in answer.error.message
    done = spawned("translate", rule, cwd=tmp_path)
    assert done.returncode == 1
    assert "hashlimit-a is another rule's" in done.stderr


def test_an_at_sign_in_a_name_is_no_set() -> None:
    found = translated("-m helper --helper a@b", family=Family.IPV4, language=LANGUAGE)
    assert found.nft == ('ct helper "a@b" counter',)
    found = translated("-s @a~b -p tcp --dport @a~b", family=Family.IPV4, language=LANGUAGE)
    assert found.nft == ("ip saddr @a.7eb tcp dport @a.7eb counter",)


def test_placement_is_not_checked_without_a_table() -> None:
    assert translated("-j MASQUERADE", family=Family.IPV4, language=LANGUAGE).error is None
    wrong = translated("-j MASQUERADE", family=Family.IPV4, language=LANGUAGE, place=Place("raw", "a"))
    assert wrong.error is not None


def test_a_comment_that_nft_can_not_hold_is_warned_of() -> None:
    found = translated(["-m", "comment", "--comment", "x" * 200], family=Family.IPV4, language=LANGUAGE)
    assert found.error is None
    assert len(found.nft[0]) < 200
    assert "128 bytes" in found.warnings[0]


def test_a_name_that_nft_can_not_say_is_warned_of() -> None:
    found = translated("-j reject", family=Family.IPV4, language=LANGUAGE)
    assert found.nft == ("counter jump chain.reject",)
    assert "chain.reject" in found.warnings[0]


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    path = tmp_path / "requests"
    path.write_bytes(b"".join(msgspec.json.encode({"id": n, "rule": "-j DROP"}) + b"\n" for n in range(2500)))
    return path


def test_a_stream_is_read_from_a_file_or_standard_input(requests_file: Path, tmp_path: Path) -> None:
    of_file = spawned("translate", "--jsonl", "-f", str(requests_file), cwd=tmp_path)
    assert of_file.returncode == 0
    assert [json.loads(line)["id"] for line in of_file.stdout.splitlines()] == list(range(2500))
    text = requests_file.read_text(encoding="utf-8")
    assert spawned("translate", "--jsonl", input=text, cwd=tmp_path).stdout == of_file.stdout
    beside = spawned("translate", "--jsonl", "-j", "DROP", cwd=tmp_path)
    assert beside.returncode == 1
    assert "comes beside --jsonl" in beside.stderr
