"""Every form that is on the list: written and read as iptables-legacy writes and reads it; and what isn't on it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from meshfw_iptc import proven
from meshfw_iptc.backend import IptcBackend
from meshfw_iptc.libraries import library
from meshfw_iptc.lines import Line, carry_out
from meshfw_iptc.making import options_of, standard_name
from meshfw_iptc.tables import opened
from meshfw_iptc.telling import told, tried

from meshfw import Chain, Family, Language, Match, Rule, Ruleset, Site, Target, builtin_extensions, parse_rule
from meshfw.iptables import HeldNamespace, TableKey
from meshfw.model import Table
from meshfw.testing.fixtures import IN_CI
from meshfw.testing.netns import Netns

pytestmark = pytest.mark.kernel

LANGUAGE = Language.of(builtin_extensions())
TOOLS: Final = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}


class Form(NamedTuple):
    """A rule of one family and table, as iptables-save prints it."""

    family: Family
    table: Table
    text: str

    @property
    def rule(self) -> Rule:
        return parse_rule(self.text, family=self.family, language=LANGUAGE)


def forms(text: str) -> Iterator[Form]:
    for line in text.strip().replace("\n  ", " ").splitlines():
        families, table, rule = (*line.split(" ", 2), "")[:3]
        yield from (Form(Family(f"ipv{digit}"), Table(table), rule) for digit in families)


def skip_where_tables_are_hidden(room: Netns) -> None:
    with room.entered():
        if not os.access("/proc/thread-self/net/ip_tables_names", os.R_OK):
            pytest.skip("the list of legacy tables is root's alone in a namespace of an ordinary user")


@pytest.fixture(scope="module")
def room(kernel_room: Callable[[], Netns], requires: Callable[..., None]) -> Iterator[Netns]:
    requires(*(f"{tool}-restore" for tool in TOOLS.values()))
    with kernel_room() as made:
        skip_where_tables_are_hidden(made)
        yield made


def run(room: Netns, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
    with room.entered():
        return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)


def by_table(wanted: list[Form]) -> dict[TableKey, list[tuple[int, Form]]]:
    found: dict[TableKey, list[tuple[int, Form]]] = {}
    for index, form in enumerate(wanted):
        found.setdefault((form.family, form.table), []).append((index, form))
    return found


def written_by_tool(room: Netns, wanted: list[Form]) -> list[str]:
    """Each form in a chain of its own, written by iptables-legacy-restore; those that this host has no module for."""
    refused = []
    for index, form in enumerate(wanted):
        text = f"*{form.table}\n:tool-{index} - [0:0]\n-A tool-{index} {form.text}\nCOMMIT\n"
        done = run(room, f"{TOOLS[form.family]}-restore", "--noflush", "-w", text=text)
        if done.returncode:
            refused.append(f"{form.text}: {done.stderr}")
    return refused


def saved(room: Netns, key: TableKey) -> dict[str, str]:
    """The rule of each chain, as iptables-legacy-save prints it."""
    lines = run(room, f"{TOOLS[key[0]]}-save", "-t", key[1]).stdout.splitlines()
    return {found[1]: found[2] for line in lines if (found := re.match(r"-A (\S+) ?(.*?) ?$", line))}


def test_every_form_is_written_and_read_as_the_tools_do_it(room: Netns) -> None:
    wanted = list(forms(FORMS))
    refused = written_by_tool(room, wanted)
    assert not (refused and IN_CI), refused
    lib, home = library(), HeldNamespace(room.path)
    for key, held in by_table(wanted).items():
        with opened(lib, home, [key]) as tables:
            there = set(tables[key].chains())
            here = [(index, form) for index, form in held if f"tool-{index}" in there]
            for index, form in here:
                lines = (Line("N", f"lib-{index}"), Line("A", f"lib-{index}", rule=form.rule, counters=(7, 300)))
                carry_out(tables[key], lines, LANGUAGE)
            tables[key].commit()
        texts = saved(room, key)
        with opened(lib, home) as tables:
            table = tables[key]
            for index, form in here:
                (ours,), (theirs,) = table.entries(f"lib-{index}"), table.entries(f"tool-{index}")
                assert texts[f"lib-{index}"] == texts[f"tool-{index}"] == form.text
                assert table.raw_rule(ours).body == table.raw_rule(theirs).body, form.text
                assert (ours.counters.pcnt, ours.counters.bcnt) == (7, 300), form.text
                assert told(table.bench, theirs, table.standard(theirs), LANGUAGE) == form.text
                assert tried(table.bench, form.rule, LANGUAGE) is None, form.text
    home.close()


def parts_of(rule: Rule, family: Family) -> Iterator[tuple[str, str]]:
    """Each option of a rule with its match or target; one without any with an empty option."""
    parts: list[Match | Target] = [*rule.matches]
    parts += [] if rule.target is None or standard_name(rule.target) is not None else [rule.target]
    for part in parts:
        extension = LANGUAGE.by_value[type(part)]
        given = [option for option, _ in options_of(extension, part, family)]
        yield from ((extension.name, option) for option in given or [""])


def test_there_is_a_form_for_every_option_on_the_list_in_each_family() -> None:
    tried_here = {(form.family, *part) for form in forms(FORMS) for part in parts_of(form.rule, form.family)}
    listed = {
        (family, extension.name, option)
        for extension in LANGUAGE.by_value.values()
        for family in extension.value.families
        for option in (proven.TARGETS if extension.is_target else proven.MATCHES).get(extension.name) or {""}
        if extension.name in (proven.TARGETS if extension.is_target else proven.MATCHES)
    }
    listed -= {(Family.IPV4, "ah", "ahlen"), (Family.IPV4, "ah", "ahres")}  # ip6tables alone has them
    missing = sorted(f"{family} {name} --{option}" for family, name, option in listed - tried_here)
    assert not missing, "\n".join(missing)


def test_the_readme_counts_the_list() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"of {len(proven.MATCHES)} matches and {len(proven.TARGETS)} targets" in text


def test_no_extension_on_the_list_uses_memory_that_the_library_has_freed() -> None:
    """A match or target with ``udata_size`` gets a buffer that dies before the option is parsed."""
    from iptc.xtables import xtables

    found = []
    for family in (Family.IPV4, Family.IPV6, Family.IPV4):
        known = xtables(2 if family is Family.IPV4 else 10)  # NFPROTO_IPV4, NFPROTO_IPV6
        for extension in LANGUAGE.by_value.values():
            name, is_target = extension.name, extension.is_target
            if family in extension.value.families and name in (proven.TARGETS if is_target else proven.MATCHES):
                library().extensions.require(name, family, is_target=is_target)
                found.append((known.find_target if is_target else known.find_match)(name)[0])
    assert len(found) > 200
    assert [module.name for module in found if module.udata_size] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-j NFLOG --nflog-prefix x", "it may end the process"),
        ("-m hashlimit --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-name a", "it may end the process"),
        ("-m rateest --rateest RE1 --rateest-lt --rateest-bps 1Mbit", "it may end the process"),
        ("-j NOTRACK", "say -j CT --notrack"),
        ("-m set --match-set blocked src -j DROP", "not proven"),
        ("-m policy --dir in --pol ipsec --strict --reqid 1 --next --reqid 2", "not proven"),
        ("-m ipvs --ipvs", "not proven"),
        ("-m nobody --knows this", "no typed value"),
        ("-j NOBODY --knows this", "no typed value"),
        ("-m comment --comment !", "takes the value ! for a negation"),
        ('-j LOG --log-prefix "it\'s"', "doesn't read it back"),
        ("-p tcp -m tcp ! --dport 0:65535", "iptables stores it as met by every packet"),
    ],
)
def test_what_is_not_sure_is_refused_before_anything_is_written(room: Netns, text: str, reason: str) -> None:
    rule = parse_rule(text, family=Family.IPV4, language=LANGUAGE)
    table = Table.RAW if text == "-j NOTRACK" else Table.FILTER
    chain = Chain(family=Family.IPV4, table=table, name="a", rules=(rule,))
    backend = IptcBackend(Site(owner="refusing", language=LANGUAGE, netns=room.path))
    found = [str(finding) for finding in backend.check(Ruleset(chains=(chain,)))]
    backend.close()
    assert len(found) == 1
    assert found[0].startswith(f"ipv4 {table} a, rule 1 (")
    assert reason in found[0]


FORMS: Final = r"""
46 filter -i eth0 -o wg+ -j DROP
46 filter ! -i eth+ -j DROP
46 filter -i a*b -o a*b*+ -j DROP
46 filter ! -p udp -j RETURN
46 filter -p gre -j ACCEPT
4 filter -s 10.4.0.0/16 ! -d 10.4.0.7/32 -j ACCEPT
6 filter -s fd00:4::/32 ! -d fd00:4::7/128 -j ACCEPT
4 filter -d 10.0.7.0/255.0.255.0 -j DROP
6 filter -s ::/ffff::ffff -j DROP
4 filter -f -j DROP
4 filter ! -f
46 filter
46 filter -m comment --comment "a \"quoted\" word, a \\ and -- !" -j ACCEPT
46 filter -j AUDIT --type drop
46 filter -j IDLETIMER --timeout 16 --label bar --alarm
46 filter -j LOG
6 filter -j LOG --log-level 0 --log-uid
46 filter -j LOG --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode
46 filter -j NFQUEUE --queue-balance 1:65535 --queue-bypass --queue-cpu-fanout
46 filter -j NFQUEUE --queue-num 0
46 filter -m addrtype --dst-type LOCAL,ANYCAST --limit-iface-in
46 filter -m addrtype --src-type LOCAL --limit-iface-out
6 filter -m ah
6 filter -m ah ! --ahspi 5 ! --ahlen 120 --ahres
46 filter -m bpf --bytecode "1,6 0 0 1"
46 filter -m comment --comment plain
46 filter -m connbytes --connbytes 0 --connbytes-mode bytes --connbytes-dir reply
46 filter -m connlabel ! --label "41" --set
4 filter -m connlimit --connlimit-above 10 --connlimit-mask 0 --connlimit-saddr
4 filter -m connlimit --connlimit-upto 2 --connlimit-mask 24 --connlimit-daddr
6 filter -m connlimit --connlimit-upto 4294967295 --connlimit-mask 0 --connlimit-saddr
46 filter -m connmark --mark 0x8
46 filter -m conntrack ! --ctproto 17 --ctdir REPLY
4 filter -m conntrack ! --ctreplsrc 10.0.0.1 ! --ctrepldst 10.1.0.0/16
6 filter -m conntrack ! --ctreplsrc fd00::1 ! --ctrepldst fd00:1::/32
46 filter -m conntrack --ctexpire 9:8
4 filter -m conntrack --ctorigsrc 10.0.0.1 --ctorigdst 10.0.0.0/8
6 filter -m conntrack --ctorigsrc fd00::1 --ctorigdst fd00::/8
46 filter -m conntrack --ctproto 17 ! --ctreplsrcport 53 --ctrepldstport 1:9
46 filter -m conntrack --ctstatus NONE
46 filter -m cpu --cpu 16
46 filter -m devgroup ! --src-group 0x5 --dst-group 0x6/0xfe
6 filter -m dscp --dscp 0x00
4 filter -m dscp --dscp 0x02
6 filter -m dst
6 filter -m dst --dst-len 24 --dst-opts 149:92,12
6 filter -m ecn ! --ecn-ip-ect 3
6 filter -m eui64
6 filter -m frag
6 filter -m frag ! --fragid 7 --fragmore
6 filter -m frag ! --fraglen 8
6 filter -m frag --fragfirst --fraglast
6 filter -m frag --fragres
6 filter -m hbh
6 filter -m hbh --hbh-len 16
6 filter -m hbh --hbh-opts 5:2,1,0
46 filter -m helper --helper ftp
6 filter -m hl --hl-eq 255
6 filter -m hl --hl-gt 2
6 filter -m hl --hl-lt 2
6 filter -m iprange ! --src-range fd00::5-fd00::9
4 filter -m iprange --src-range 10.0.0.1-10.0.0.1 ! --dst-range 10.0.0.0-10.0.0.255
6 filter -m ipv6header --header esp --soft
46 filter -m length --length 7
46 filter -m limit --limit 1/sec --limit-burst 7
46 filter -m mac --mac-source aa:bb:cc:0d:ee:ff
46 filter -m owner --gid-owner 5 --suppl-groups
46 filter -m owner --socket-exists --uid-owner 0
46 filter -m physdev --physdev-is-in --physdev-in vnet+ --physdev-is-bridged
46 filter -m pkttype --pkt-type unicast
46 filter -m policy --dir in --pol ipsec --reqid 16 --spi 0x100
6 filter -m policy --dir out --pol ipsec --proto ipcomp --mode tunnel --tunnel-dst fd00::1/32 --tunnel-src ::/0
46 filter -m quota --quota 0
4 filter -m realm ! --realm 0xa
6 filter -m recent ! --set --name x6 --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource
4 filter -m recent --rcheck --seconds 5 --reap --hitcount 3 --rttl --name y --mask 255.255.255.255 --rsource
6 filter -m recent --remove --name y6 --mask ffff:: --rsource
4 filter -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
4 filter -m recent --update --name z --mask 255.0.255.0 --rdest
6 filter -m rt
6 filter -m rt --rt-type 0 ! --rt-segsleft 1:23 ! --rt-len 42
6 filter -m srh
6 filter -m srh ! --srh-hdr-len-gt 8 --srh-segs-left-gt 1 --srh-last-entry-gt 1
6 filter -m srh --srh-hdr-len-lt 8 --srh-segs-left-lt 1 ! --srh-last-entry-lt 1
6 filter -m srh --srh-next-hdr 17 --srh-hdr-len-eq 8 --srh-segs-left-eq 1 --srh-last-entry-eq 4 --srh-tag 0
6 filter -m srh --srh-psid a::/64 ! --srh-nsid b::/128 --srh-lsid c::1/0
46 filter -m state --state NEW
46 filter -m statistic --mode nth --every 1 --packet 0
46 filter -m statistic --mode random --probability 0.79999999981
46 filter -m string ! --string "a\"b \\c" --algo kmp --icase
46 filter -m string --hex-string "|785c|" --algo bm --from 1 --to 20
46 filter -m time --datestart 2020-03-01T05:00:00 --datestop 2037-12-31T00:00:00
46 filter -m time --datestop 2021-01-01T00:00:00 --kerneltz
46 filter -m time --monthdays 1,31 --datestop 2038-01-19T03:14:07
46 filter -m time --timestart 23:00:00 --timestop 01:00:00 --weekdays Fri --datestop 2038-01-19T03:14:07 --contiguous
4 filter -m tos --tos 0x11/0xff
6 filter -m tos --tos 0x88/0xff
4 filter -m ttl --ttl-eq 5
4 filter -m ttl --ttl-lt 9 -m ttl --ttl-gt 5
46 filter -m u32 ! --u32 "0x4=0x5"
4 filter -p ah -m ah
4 filter -p ah -m ah --ahspi 16:4294967295
46 filter -p dccp -m dccp
46 filter -p dccp -m dccp --dccp-option 255
46 filter -p dccp -m dccp --dccp-types REQUEST
46 filter -p dccp -m dccp --sport 1:65535 ! --dport 9
46 filter -p esp -m esp
46 filter -p esp -m esp --espspi 5
4 filter -p icmp -m icmp --icmp-type 8
46 filter -p ipcomp -m ipcomp ! --ipcompspi 4:4294967295 --compres
6 filter -p ipv6-icmp -m icmp6 --icmpv6-type 2
6 filter -p mobility-header -m mh
6 filter -p mobility-header -m mh --mh-type 5
46 filter -p sctp -m sctp ! --sport 1:2 --dport 3:65535
46 filter -p sctp -m sctp --chunk-types any NONE
4 filter -p tcp -j SYNPROXY
4 filter -p tcp -j SYNPROXY --ecn
6 filter -p tcp -j SYNPROXY --timestamp
46 filter -p tcp -m conntrack --ctorigsrcport 1024:65535 --ctorigdstport 80
6 filter -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -m limit --limit 3/sec -j LOG --log-prefix ssh
6 filter -p tcp -m ecn ! --ecn-tcp-cwr
4 filter -p tcp -m ecn ! --ecn-tcp-ece --ecn-tcp-cwr --ecn-ip-ect 2
6 filter -p tcp -m ecn --ecn-tcp-ece
46 filter -p tcp -m multiport --ports 1:9
4 filter -p tcp -m osf ! --genre Linux --ttl 1 --log 2
46 filter -p tcp -m tcp
4 filter -p tcp -m tcp --dport 42 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp
  --wscale 9 --mss 1460
6 filter -p tcp -m tcp --dport 9 ! --tcp-option 6
46 filter -p tcp -m tcp --sport 7
6 filter -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 0 --connlimit-mask 64
  --connlimit-saddr -j REJECT --reject-with tcp-reset
4 filter -p tcp -m tcp --tcp-option 5 --tcp-flags SYN SYN
46 filter -p tcp -m tcpmss --mss 0:42
4 filter -p udp -m multiport --dports 53,853 -m mark --mark 0x1 -m udp --sport 1024:65535 -j REJECT
  --reject-with icmp-port-unreachable
6 filter -p udp -m multiport --dports 53,853 -m mark --mark 0x1 -m udp --sport 1024:65535 -j REJECT
  --reject-with icmp6-port-unreachable
46 filter -p udp -m udp
46 filter -p udplite -m multiport --sports 5
46 mangle -j CLASSIFY --set-class 0001:0002
46 mangle -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff
46 mangle -j CONNMARK --save-mark --nfmask 0xf --ctmask 0xffffffff --left-shift-mark 4
46 mangle -j CONNMARK --set-xmark 0x5/0x7 --right-shift-mark 3
46 mangle -j CONNSECMARK --restore
6 mangle -j DNPT --src-pfx fd00:1::/64 --dst-pfx 2001:db8::/48
4 mangle -j DSCP --set-dscp 0x00
6 mangle -j DSCP --set-dscp 0x2e
6 mangle -j HL --hl-dec 2
6 mangle -j HL --hl-inc 9
6 mangle -j HL --hl-set 0
46 mangle -j HMARK --hmark-spi-mask 0x000000ff --hmark-spi 0x00000007 --hmark-rnd 0x00000004 --hmark-mod 42
46 mangle -j HMARK --hmark-sport-mask 0x0003 --hmark-dport-mask 0x0004 --hmark-sport 0x0005 --hmark-dport 0x0006
  --hmark-proto-mask 0x05 --hmark-rnd 0x00000004 --hmark-mod 42
46 mangle -j HMARK --hmark-src-prefix 1 --hmark-dst-prefix 2 --hmark-sport-mask 0xffff --hmark-dport-mask 0xffff
  --hmark-proto-mask 0xffff --hmark-rnd 0x00000004 --hmark-mod 42 --hmark-offset 1 --hmark-tuple ct
4 mangle -j LOG --log-prefix "dropped: " --log-level 6
46 mangle -j MARK --set-xmark 0x5/0x3
6 mangle -j SNPT --src-pfx fe00::/7 --dst-pfx fd00::/16
4 mangle -j TEE --gateway 192.0.2.1 --oif lo
6 mangle -j TEE --gateway 2001:db8::1
46 mangle -j TOS --set-tos 0x12/0xff
4 mangle -j TTL --ttl-dec 255
4 mangle -j TTL --ttl-inc 1
4 mangle -j TTL --ttl-set 64
46 mangle -m cgroup ! --cgroup 0
46 mangle -m cgroup --path "/"
46 mangle -m cluster --cluster-local-nodemask 0x00000002 --cluster-total-nodes 2 --cluster-hash-seed 0xfeedcafe
46 mangle -m physdev --physdev-is-out --physdev-out eth2 ! --physdev-is-bridged
46 mangle -m rpfilter --loose --validmark --accept-local --invert -j DROP
46 mangle -m socket
46 mangle -m socket --nowildcard --restore-skmark
46 mangle -m socket --transparent --nowildcard
4 mangle -p tcp -j ECN --ecn-tcp-ece 0 --ecn-tcp-cwr 0 --ecn-ip-ect 1
4 mangle -p tcp -j ECN --ecn-tcp-remove
46 mangle -p tcp -j TCPOPTSTRIP
46 mangle -p tcp -j TCPOPTSTRIP --strip-options 2,3,19,253
4 mangle -p tcp -j TPROXY --on-port 8080 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0
46 mangle -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCPMSS --clamp-mss-to-pmtu
46 mangle -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCPMSS --set-mss 90
6 mangle -p udp -j TPROXY --on-port 0 --on-ip :: --tproxy-mark 0x0/0x0
46 mangle -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
6 nat -j DNAT --to-destination 2001:db8::1
46 nat -j MASQUERADE
46 nat -j MASQUERADE --random --random-fully
4 nat -j NETMAP --to 10.0.0.0/8
6 nat -j NETMAP --to fd00::/64
46 nat -j REDIRECT
4 nat -j SNAT --to-source 192.0.2.1-192.0.2.9 --persistent
6 nat -j SNAT --to-source 2001:db8::1-2001:db8::9 --random
4 nat -p tcp -j DNAT --to-destination 192.0.2.1-192.0.2.3:80-90 --random --persistent
4 nat -p tcp -j SNAT --to-source 192.0.2.1:1025-65535 --random-fully
46 nat -p udp -j REDIRECT --to-ports 5353 --random
46 nat -p udp -m udp --dport 53 -j MASQUERADE --to-ports 40000 --random
46 raw -j CT
46 raw -j CT --ctevents new,destroy,secmark --expevents new --zone 1
46 raw -j CT --notrack --timeout long
46 raw -j CT --zone-orig 5
46 raw -j CT --zone-reply 65535
46 raw -j TRACE
46 raw -m rpfilter -j ACCEPT
46 raw -p tcp -j CT --helper ftp --zone 5
46 security -j CONNSECMARK --save
4 nat -j SNAT --to-source 192.0.2.1 --random
6 nat -p tcp -j SNAT --to-source [2001:db8::1]:1025-65535 --random-fully --persistent
6 nat -p tcp -j DNAT --to-destination [2001:db8::1]:80 --random --persistent
4 filter -m policy --dir out --pol ipsec --proto esp --mode tunnel --tunnel-dst 192.0.2.0/24 --tunnel-src 10.0.0.1
4 filter -m recent --remove --name DEFAULT --mask 255.255.255.255 --rsource
6 filter -m recent --rcheck --seconds 5 --reap --hitcount 3 --rttl --name y6
  --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rdest
6 filter -m recent --update --name z6 --mask ffff:: --rsource
6 filter -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --wscale 9 --mss 1460 --ecn
6 mangle -j TEE --gateway 2001:db8::1 --oif lo
6 filter -m connlimit --connlimit-upto 2 --connlimit-mask 64 --connlimit-daddr
6 filter -m iprange ! --dst-range fd00::1-fd00::9
"""
