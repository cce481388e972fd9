"""Packets as judge of translations: rules that iptables loaded, and what meshfw says of them to nft, met equally often.

The rules are foreign ones, without their targets. Where they name interfaces, a copy names those of the road, so that
packets come by them.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
import pytest

from meshfw.errors import InexpressibleError, MeshfwError, ModelError
from meshfw.languages.dump import hook_of
from meshfw.languages.iptables import parse_rule
from meshfw.languages.nft import render_rule
from meshfw.model import Family, Hook, Interface, Not, Rule, Table
from meshfw.model.placement import hook_problem, interface_problem
from meshfw.testing.judge.counting import Scales, Translated
from meshfw.testing.topology import MESH, WAN
from tests.corpus import Vector, language, needed, saved, typed, vectors
from tests.kernel.test_trials import FULL

pytestmark = pytest.mark.kernel

FIGURES: Final = logging.getLogger("judge")
"""What was counted, for who asks with --log-cli-level=INFO."""

EACH: Final = 60 if FULL else 10
"""Probes for each rule."""
LEFT_OUT: Final[Mapping[str, str]] = {
    "-m set ": "the set stands outside the rule",
    "/sec": "the clock decides",
    "--mode random": "lots are drawn",
    "-m cgroup": "the group has to exist",
    # Of connections that stood before the rule iptables counts the first one that it sees, nf_tables none
    # (nf_conncount.c, insert_tree); and iptables drops what it can't count, so that other rules would see less.
    "-m connlimit": "kernels differ in connections that stood before the rule",
}
"""Parts of a rule that nothing on the road can judge."""
FAR: Final = ", which no packet comes near"
_TARGET: Final = re.compile(r"(?:^|\s)-[jg] \S+.*\Z")
_NAMES: Final = {"-i": (MESH, "wg+"), "-o": (WAN, "e+")}


@pytest.fixture
def scales(
    requires: Callable[..., None], kernel_room: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scales]:
    requires("ip", "nft", "iptables-legacy-restore", "ip6tables-legacy-restore")
    with pytest.MonkeyPatch.context() as patch, Scales() as road:
        patch.setenv("XTABLES_LOCKFILE", str(tmp_path_factory.mktemp("lock") / "xtables.lock"))
        yield road


def pair(name: str, family: Family, hook: Hook, rule: Rule, text: str) -> Translated:
    """A rule's conditions in both languages; ``InexpressibleError`` where nft can't say them."""
    alone = msgspec.structs.replace(rule, target=None)
    nft = str(render_rule(alone, family=family, language=language()))
    return Translated(name=name, family=family, hook=hook, rule=alone, iptables=text, nft=nft)


def near(rule: Rule, text: str) -> tuple[Rule, str]:
    """The rule with the road's interfaces in place of its own."""
    fields = {}
    for field, option in (("in_interface", "-i"), ("out_interface", "-o")):
        held = getattr(rule, field)
        if held is None:
            continue
        value = held.value if isinstance(held, Not) else held
        name = _NAMES[option][value.name.endswith("+")]
        fields[field] = Not(Interface(name)) if isinstance(held, Not) else Interface(name)
        text = re.sub(rf"(^|\s){option} \S+", rf"\g<1>{option} {name}", text)
    return msgspec.structs.replace(rule, **fields), text


def pairs_of(vector: Vector) -> Iterator[Translated]:
    family = Family(vector["family"])
    whole = parse_rule(vector["argv"], family=family, language=language())
    rule = msgspec.structs.replace(whole, target=None)
    text = _TARGET.sub("", saved(vector)).strip()
    hook = seen_best(rule, hook_of(vector["chain"], Table(vector["table"])))
    named = rule.in_interface is not None or rule.out_interface is not None
    yield pair(f"{vector['id']}{FAR if named else ''}", family, hook, rule, text)
    if named:
        yield pair(vector["id"], family, hook, *near(rule, text))


def seen_best(rule: Rule, own: Hook | None) -> Hook:
    """The hook where most packets are seen: before routing, where the rule can stand there, or else its own."""
    hooks: list[Hook] = [Hook.PREROUTING, Hook.FORWARD, own or Hook.FORWARD, *Hook]
    for hook in hooks:
        if not hook_problem(rule, [hook]) and not interface_problem(rule, hook):
            return hook
    raise ModelError("there is no hook where it can stand")


def gathered() -> tuple[list[Translated], dict[str, int]]:
    """Every rule's conditions once, and how many rules were left out, by reason."""
    found: dict[tuple[str, ...], Translated] = {}
    left_out: dict[str, int] = {}
    for vector in vectors("realworld.jsonl"):
        if not vector["legacy_ok"]:
            continue
        reason = next((why for part, why in LEFT_OUT.items() if part in vector["legacy_save"]), "")
        try:
            rule = parse_rule(vector["argv"], family=Family(vector["family"]), language=language())
            reason = reason or ("" if typed(rule) else "not typed")
            for made in () if reason else pairs_of(vector):
                found.setdefault((made.family, made.hook, made.iptables, made.nft), made)
        except InexpressibleError:
            reason = "nft can't say it"
        except MeshfwError:
            reason = "refused"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
    return list(found.values()), left_out


@needed
def test_no_foreign_rule_means_something_else_in_nft(scales: Scales) -> None:
    pairs, left_out = gathered()
    found = scales.weigh(pairs, each=EACH, chance=random.Random("translation"))  # noqa: S311 - the same in every run
    unmet = [held for held in found.unmet if FAR not in held.name]
    FIGURES.info("%s pairs, %s unmet, %s probes; %s", found.compared, len(unmet), found.probes, left_out)
    assert [f"{held.name}: {held.iptables}: {why}" for held, why in found.refused if why.startswith("nft")] == []
    assert "\n".join(map(str, found.differences)) == ""
    assert found.compared > 1000
    assert len(unmet) / found.compared < 0.12, "packets that meet nothing prove nothing"


def test_a_lost_protocol_is_found_with_one_packet(scales: Scales) -> None:
    """What iptables-translate 1.8.9 makes of -p tcp -m tcp without ports."""
    text = "-s 10.0.0.0/8 -p tcp -m tcp"
    rule = parse_rule(text, family=Family.IPV4, language=language())
    right = pair("right", Family.IPV4, Hook.FORWARD, rule, text)
    wrong = msgspec.structs.replace(right, name="wrong", nft="ip saddr 10.0.0.0/8 counter")
    found = scales.weigh([right, wrong], each=40, chance=random.Random(1))  # noqa: S311 - the same in every run
    (difference,) = found.differences
    assert difference.pair is wrong
    assert (difference.on_iptables, difference.on_nft) == (0, 1)
    assert " tcp " not in difference.packet
