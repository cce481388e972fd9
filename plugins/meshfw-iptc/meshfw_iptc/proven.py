"""What python-iptables is trusted with: a list of matches, targets and options that were proven, and nothing else.

A form is on the list when it went both ways without a difference: written through the library it had the bytes that
iptables-legacy-restore writes and was what iptables-legacy-save prints, and what the tool wrote was read back equal. It
was made from the whole language of rules, 1,070 of them, each written in a process that may die; a test holds a rule
for each form. What isn't there is refused before anything is made of it, since a wrong form here doesn't only fail: it
may end the interpreter, or be written as a rule that lets more through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshfw import Family, Language, OpaqueMatch, OpaqueTarget, Rule
from meshfw.model import Match, Target
from meshfw_iptc.making import options_of, standard_name

_FREED: Final = (
    "python-iptables frees the memory that it needs for its options, and then uses it: it may end the process"
)
_UNPROVEN: Final = "it was not proven that python-iptables writes it as it is meant"
_NO_TYPE: Final = "there is no typed value for it, so nothing can be proven"

REASONS: Final[Mapping[str, str]] = {
    "hashlimit": _FREED,
    "NFLOG": _FREED,
    "RATEEST": _FREED,
    "rateest": _FREED,
    "NOTRACK": "python-iptables would write it as -j CT, without --notrack: say -j CT --notrack",
}
"""Why what isn't on the list isn't, where more is known than that it wasn't proven."""


def findings(rule: Rule, family: Family, language: Language) -> Iterator[str]:
    """What of a rule isn't on the list, and why."""
    parts: list[Match | Target] = [*rule.matches]
    if rule.target is not None and standard_name(rule.target) is None:
        parts.append(rule.target)
    for part in parts:
        if isinstance(part, OpaqueMatch | OpaqueTarget):
            yield f"{part.name}: {_NO_TYPE}"
            continue
        name = language.by_value[type(part)].name
        known = (TARGETS if isinstance(part, Target) else MATCHES).get(name)
        if known is None:
            yield f"{name}: {REASONS.get(name, _UNPROVEN)}"
            continue
        try:
            given = list(options_of(language.by_value[type(part)], part, family))
        except ValueError as error:
            yield str(error)
            continue
        for option, words in given:
            if option not in known:
                yield f"{name} --{option}: {_UNPROVEN}"
            elif words == ["!"] and language.by_value[type(part)].named[f"--{option}"].words:
                yield f"{name} --{option}: python-iptables takes the value ! for a negation"


def listed(matches: Iterable[str], target: str, *, family: Family, language: Language) -> bool:
    """Whether all of a rule's extensions, by name and none for a verdict, are on the list for the family."""
    wanted = [(name, MATCHES, language.matches) for name in matches]
    wanted += [(target, TARGETS, language.targets)] if target else []
    return all(
        name in known and name in extensions and family in extensions[name].value.families
        for name, known, extensions in wanted
    )


def _listed(text: str) -> Mapping[str, frozenset[str]]:
    """The options by name; a line that begins with a space goes on."""
    lines = text.strip().replace("\n ", " ").splitlines()
    return {name: frozenset(options.split()) for name, _, options in (line.partition(":") for line in lines)}


MATCHES: Final = _listed("""
addrtype: dst-type limit-iface-in limit-iface-out src-type
ah: ahlen ahres ahspi
bpf: bytecode
cgroup: cgroup path
cluster: cluster-hash-seed cluster-local-nodemask cluster-total-nodes
comment: comment
connbytes: connbytes connbytes-dir connbytes-mode
connlabel: label set
connlimit: connlimit-above connlimit-daddr connlimit-mask connlimit-saddr connlimit-upto
connmark: mark
conntrack: ctdir ctexpire ctorigdst ctorigdstport ctorigsrc ctorigsrcport ctproto ctrepldst ctrepldstport ctreplsrc
  ctreplsrcport ctstate ctstatus
cpu: cpu
dccp: dccp-option dccp-types dport sport
devgroup: dst-group src-group
dscp: dscp
dst: dst-len dst-opts
ecn: ecn-ip-ect ecn-tcp-cwr ecn-tcp-ece
esp: espspi
eui64:
frag: fragfirst fragid fraglast fraglen fragmore fragres
hbh: hbh-len hbh-opts
helper: helper
hl: hl-eq hl-gt hl-lt
icmp: icmp-type
icmp6: icmpv6-type
ipcomp: compres ipcompspi
iprange: dst-range src-range
ipv6header: header soft
length: length
limit: limit limit-burst
mac: mac-source
mark: mark
mh: mh-type
multiport: dports ports sports
osf: genre log ttl
owner: gid-owner socket-exists suppl-groups uid-owner
physdev: physdev-in physdev-is-bridged physdev-is-in physdev-is-out physdev-out
pkttype: pkt-type
policy: dir mode pol proto reqid spi tunnel-dst tunnel-src
quota: quota
realm: realm
recent: hitcount mask name rcheck rdest reap remove rsource rttl seconds set update
rpfilter: accept-local invert loose validmark
rt: rt-len rt-segsleft rt-type
sctp: chunk-types dport sport
socket: nowildcard restore-skmark transparent
srh: srh-hdr-len-eq srh-hdr-len-gt srh-hdr-len-lt srh-last-entry-eq srh-last-entry-gt srh-last-entry-lt srh-lsid
  srh-next-hdr srh-nsid srh-psid srh-segs-left-eq srh-segs-left-gt srh-segs-left-lt srh-tag
state: state
statistic: every mode packet probability
string: algo from hex-string icase string to
tcp: dport sport tcp-flags tcp-option
tcpmss: mss
time: contiguous datestart datestop kerneltz monthdays timestart timestop weekdays
tos: tos
ttl: ttl-eq ttl-gt ttl-lt
u32: u32
udp: dport sport
""")
"""The matches, each with its options."""

TARGETS: Final = _listed("""
AUDIT: type
CHECKSUM: checksum-fill
CLASSIFY: set-class
CONNMARK: ctmask left-shift-mark nfmask restore-mark right-shift-mark save-mark set-xmark
CONNSECMARK: restore save
CT: ctevents expevents helper notrack timeout zone zone-orig zone-reply
DNAT: persistent random to-destination
DNPT: dst-pfx src-pfx
DSCP: set-dscp
ECN: ecn-ip-ect ecn-tcp-cwr ecn-tcp-ece ecn-tcp-remove
HL: hl-dec hl-inc hl-set
HMARK: hmark-dport hmark-dport-mask hmark-dst-prefix hmark-mod hmark-offset hmark-proto-mask hmark-rnd hmark-spi
  hmark-spi-mask hmark-sport hmark-sport-mask hmark-src-prefix hmark-tuple
IDLETIMER: alarm label timeout
LOG: log-ip-options log-level log-macdecode log-prefix log-tcp-options log-tcp-sequence log-uid
MARK: set-xmark
MASQUERADE: random random-fully to-ports
NETMAP: to
NFQUEUE: queue-balance queue-bypass queue-cpu-fanout queue-num
REDIRECT: random to-ports
REJECT: reject-with
SNAT: persistent random random-fully to-source
SNPT: dst-pfx src-pfx
SYNPROXY: ecn mss sack-perm timestamp wscale
TCPMSS: clamp-mss-to-pmtu set-mss
TCPOPTSTRIP: strip-options
TEE: gateway oif
TOS: set-tos
TPROXY: on-ip on-port tproxy-mark
TRACE:
TTL: ttl-dec ttl-inc ttl-set
""")
"""The targets, each with its options; verdicts, jumps and gotos need none."""
