"""Packets as judge: random rulesets, loaded by every backend and evaluated, about which all have to say the same."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec
import pytest

from meshfw.extensions.codecs import Ports
from meshfw.extensions.udp import Udp
from meshfw.languages.dump import parse_dump, ruleset_of_dump
from meshfw.model import Chain, Family, Hook, Ruleset
from meshfw.testing.judge.addresses import side
from meshfw.testing.judge.frames import Probe
from meshfw.testing.judge.making import Kind, Pool, RulesetMaker, elements
from meshfw.testing.judge.probing import Aim, ProbeMaker
from meshfw.testing.judge.road import GovernedRoad, Outcome
from meshfw.testing.judge.saying import Opinion, evaluate
from meshfw.testing.judge.trial import Bench, aims
from tests.extensions.case import LANGUAGE
from tests.extensions.cases import CASES, PACKETS
from tests.kernel.test_trials import FULL
from tests.kernel.worlds import BACKENDS

pytestmark = pytest.mark.kernel

FIGURES: Final = logging.getLogger("judge")
"""What was counted, for who asks with --log-cli-level=INFO."""

PROBES: Final = 20_000
TEXTS: Final = (*(case.written for case in CASES), *PACKETS)
SEEDS: Final = range(12) if FULL else range(1)
KINDS: Final = [
    (Family.IPV4, Kind.CONNECTIONS),
    (Family.IPV6, Kind.CONNECTIONS),
    (Family.IPV4, Kind.FRAGMENTS),
    *([(Family.IPV4, Kind.STATELESS), (Family.IPV6, Kind.STATELESS)] if FULL else []),
]


@pytest.fixture(scope="module")
def bench(requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    requires("ip", "nft", *(f"{stem}-{way}-restore" for stem in ("iptables", "ip6tables") for way in ("nft", "legacy")))
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("XTABLES_LOCKFILE", str(tmp_path_factory.mktemp("lock") / "xtables.lock"))
        roads = [stack.enter_context(GovernedRoad(name, make, LANGUAGE)) for name, make in BACKENDS.items()]
        yield Bench(roads, language=LANGUAGE, evaluate=evaluate)


def chance_of(*seed: object) -> random.Random:
    """The same in every run."""
    return random.Random(" ".join(map(str, seed)))  # noqa: S311 - no secrets


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_all_voices_agree_on_every_probe(bench: Bench, family: Family, kind: Kind, seed: int) -> None:
    ruleset, probes = drawn(bench, family, kind, chance_of(seed, family, kind))
    assert len({(probe.packet, probe.start) for probe in probes}) == PROBES
    found = bench.judge(ruleset, probes, family=family, tracked=kind is Kind.CONNECTIONS)
    FIGURES.info("%s, %s abstained, %s crossed", found.outcomes, found.abstained, found.crossed)
    assert "\n".join(map(str, [*found.refusals, *found.disagreements])) == ""
    assert found.differing == 0
    assert len(found.outcomes) >= 3, "the rules tell the packets apart"
    assert found.crossed < PROBES / 100


def drawn(bench: Bench, family: Family, kind: Kind, chance: random.Random) -> tuple[Ruleset, list[Probe]]:
    """A random ruleset that treats its probes differently, and these."""
    pool = Pool.of(TEXTS, family=family, language=LANGUAGE)
    maker = RulesetMaker(pool, language=LANGUAGE, accepted=bench.accepted, chance=chance)
    while True:
        ruleset = maker.make(kind)
        probes = probes_for(ruleset, family, kind, chance)
        opinion = evaluate(ruleset)
        sample = probes[::50]
        ends = Counter(end for probe in sample if (end := end_of(opinion(probe), probe)))
        if len(ends) > 2 and sum(ends.values()) > len(sample) / 2 and max(ends.values()) < len(sample) * 0.9:
            return ruleset, probes


def end_of(opinion: Opinion, probe: Probe) -> tuple[str, str] | None:
    """The verdict of the one end that the evaluation takes for possible, and the place of one that passes."""
    ends = () if opinion.journey is None else opinion.journey.endings
    if len(ends) != 1:
        return None
    (end,) = ends
    return str(end.verdict), side(end.packet.destination or 0, probe.packet.family) if end.passed else ""


def probes_for(ruleset: Ruleset, family: Family, kind: Kind, chance: random.Random) -> list[Probe]:
    maker = ProbeMaker(
        aims(ruleset),
        family=family,
        sets=elements(ruleset, family),
        chance=chance,
        tracked=kind is Kind.CONNECTIONS,
        fragments=kind is Kind.FRAGMENTS,
    )
    return maker.make(PROBES)


# --- the judge judged ---


class Deaf(GovernedRoad):
    """A road whose rules lost the last port of every range of UDP's on the way to the kernel."""

    def run(self, ruleset: Ruleset, probes: Sequence[Probe], *, tracked: bool = True) -> list[Outcome]:
        """What becomes of each probe under rules that are nearly those of the ruleset."""
        chains = [msgspec.structs.replace(chain, rules=tuple(_less(chain))) for chain in ruleset.chains]
        wrong = Ruleset(chains=tuple(chains), attachments=ruleset.attachments, sets=ruleset.sets)
        return super().run(wrong, probes, tracked=tracked)


def _less(chain: Chain) -> Iterator[object]:
    for rule in chain.rules:
        matches = [
            Udp(dport=Ports(match.dport.low, match.dport.high - 1))
            if isinstance(match, Udp) and isinstance(match.dport, Ports) and match.dport.low < match.dport.high
            else match
            for match in rule.matches
        ]
        yield msgspec.structs.replace(rule, matches=tuple(matches))


DUMP: Final = """*mangle
:PREROUTING ACCEPT
-A PREROUTING -s 10.4.0.0/16 -j MARK --set-mark 7
COMMIT
*filter
:FORWARD ACCEPT
:inner -
-A FORWARD -p tcp -m tcp --dport 22 -j DROP
-A FORWARD -m mark --mark 7 -j inner
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A inner -p tcp -m tcp --dport 80:90 -j RETURN
-A inner -p udp -m udp --dport 100:200 -m conntrack --ctstate NEW -j DROP
-A inner -p icmp -j ACCEPT
COMMIT
"""


def test_a_disagreement_is_shrunk_to_one_rule_and_one_packet(
    bench: Bench, kernel_room: object, requires: Callable[..., None]
) -> None:
    ruleset = ruleset_of_dump(parse_dump(DUMP, family=Family.IPV4, language=LANGUAGE))
    chance = chance_of("deaf")
    probes = ProbeMaker(aims(ruleset), family=Family.IPV4, sets={}, chance=chance).make(600)
    with Deaf("deaf", BACKENDS["nft"], LANGUAGE) as deaf, GovernedRoad("nft", BACKENDS["nft"], LANGUAGE) as whole:
        pair = Bench([whole, deaf], language=LANGUAGE, evaluate=evaluate, reported=1)
        found = pair.judge(ruleset, probes, family=Family.IPV4)
    told = found.disagreements[0]
    assert [line for line in told.rules if "-A" in line] == ["filter: -A inner -p udp -m udp --dport 100:200 -j DROP"]
    assert ":200 udp" in told.packet
    assert told.voices["nft"] == "gone"
    assert told.voices["deaf"].startswith("delivered to the")
    assert told.voices["packet.py"].startswith("drop")


def test_the_states_of_probes_are_what_kernels_say(bench: Bench) -> None:
    """One rule for each state, each with an answer of its own; the evaluation goes by the state that a probe claims."""
    lines = [
        f"-A FORWARD -m conntrack --ctstate {state} -j REJECT --reject-with icmp-{answer}"
        for state, answer in (
            ("NEW", "net-unreachable"),
            ("ESTABLISHED", "host-unreachable"),
            ("RELATED", "proto-unreachable"),
            ("INVALID", "net-prohibited"),
            ("UNTRACKED", "host-prohibited"),
        )
    ]
    text = "\n".join(["*filter", ":FORWARD ACCEPT", *lines, "COMMIT", ""])
    ruleset = ruleset_of_dump(parse_dump(text, family=Family.IPV4, language=LANGUAGE))
    probes = ProbeMaker(aims(ruleset), family=Family.IPV4, sets={}, chance=chance_of("states")).make(3000)
    found = bench.judge(ruleset, probes, family=Family.IPV4)
    assert "\n".join(map(str, found.disagreements)) == ""
    assert {f"rejected with icmp 3/{code}" for code in (0, 1, 9, 10)} <= set(found.outcomes)
    assert found.outcomes["gone"] > 0, "an error about a connection is related, and is answered by none"


HEADERS: Final = ("-p udp ! --dport 5", "-p icmp ! --icmp-type 8", "-p udp -m multiport ! --dports 1,2")


@pytest.mark.parametrize("text", HEADERS)
def test_what_nf_tables_reads_in_a_later_fragment_is_the_one_known_difference(bench: Bench, text: str) -> None:
    """The reason for leaving such rules out where fragments go: iptables-legacy and the evaluation say the same."""
    dump = f"*filter\n:FORWARD ACCEPT\n-A FORWARD {text} -j DROP\nCOMMIT\n"
    ruleset = ruleset_of_dump(parse_dump(dump, family=Family.IPV4, language=LANGUAGE))
    aim = Aim(ruleset.chains[0].rules[0], Hook.FORWARD)
    maker = ProbeMaker([aim], family=Family.IPV4, sets={}, chance=chance_of(text), fragments=True)
    probes = [
        probe for probe in maker.make(200) if probe.packet.fragment and probe.packet.protocol == aim.rule.protocol
    ]
    (probe, *_) = probes
    said = bench.said(ruleset, probe, tracked=False)
    assert {name for name, words in said.items() if words == "gone"} == {"nft", "iptables-nft"} - KNOWS[text]
    assert said["packet.py"].startswith("accept")


KNOWS: Final[dict[str, set[str]]] = {
    "-p udp ! --dport 5": set(),
    "-p icmp ! --icmp-type 8": {"iptables-nft"},  # it holds iptables' own match
    "-p udp -m multiport ! --dports 1,2": {"iptables-nft"},
}
