"""Laws of any typed rule, with the real tools as judges: iptables takes it and saves our text, translate agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest

from meshfw.errors import InexpressibleError, ParseError
from meshfw.languages.iptables import parse_rule
from meshfw.languages.nft import NftText, UnreadableError, read_rule, render_rule
from meshfw.model import Family, Rule
from meshfw.testing.netns import Netns
from tests.extensions.case import LANGUAGE
from tests.extensions.judges import (
    Iptables,
    Listed,
    Trap,
    batches,
    beyond_mask,
    canonical,
    check,
    furnish,
    line,
    listed,
    loadable,
    lost,
    sample,
    smaller,
    translated,
)

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", params=["legacy", "nft"])
def iptables(
    request: pytest.FixtureRequest, requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Iptables]:
    variant = request.param
    tools = (f"{tool}-{variant}-{verb}" for tool in ("iptables", "ip6tables") for verb in ("restore", "save"))
    requires(*tools, "ipset")
    with Netns() as room:
        furnish(room)
        yield Iptables(room, variant, tmp_path_factory.mktemp("lock") / "lock")


# --- restore and save --------------------------------------------------------------------------------------


NAMED: Final = (Trap(r"--(?:realm|src-group|dst-group) 0x0(?: |$)", "the name is that of a file of iproute2's"),)
"""Rules that iptables saves with a name out of a file of the host's."""


class Kept:
    """The judge of a variant of iptables: it takes the rule, and saves it as we print it."""

    def __init__(self, iptables: Iptables, family: Family) -> None:
        self._iptables = iptables
        self._family = family

    def __call__(self, held: Sequence[Rule]) -> list[str]:
        """What is wrong with each rule of which we don't say that it gets lost."""
        asked = {index: rule for index, rule in enumerate(held) if not lost(rule, self._iptables.variant)}
        said = dict(zip(asked, self.stored(list(asked.values())), strict=True))
        return [said.get(index, "") for index in range(len(held))]

    def stored(self, held: Sequence[Rule]) -> list[str]:
        """What is wrong with each rule."""
        answers = self._iptables.saved(self._family, [line(rule, self._family) for rule in held])
        return [
            answers.refused[index] if index in answers.refused else self._compared(rule, answers.made.get(index, ""))
            for index, rule in enumerate(held)
        ]

    def _compared(self, rule: Rule, text: str) -> str:
        ours = canonical(rule, self._family)
        if self._iptables.variant == "legacy" and text != ours and not any(trap.holds(ours) for trap in NAMED):
            return f"legacy saves {text!r}"
        # The nf_tables variant keeps some conditions in its own form: ! --dport 0:1023 comes back as 1024:65535.
        try:
            again = parse_rule(text, family=self._family, language=LANGUAGE)
        except ParseError as error:
            return f"{self._iptables.variant} saves {text!r}: {error}"
        return "" if again == rule else f"{self._iptables.variant} saves {text!r}, which isn't equal"


@pytest.mark.parametrize("family", Family)
def test_iptables_takes_any_typed_rule_and_saves_its_canonical_text(iptables: Iptables, family: Family) -> None:
    judge = Kept(iptables, family)
    check(loadable(family, nft=iptables.variant == "nft"), family, judge)


@pytest.mark.parametrize("family", Family)
def test_what_is_said_to_be_lost_is_not_kept(iptables: Iptables, family: Family) -> None:
    judge = Kept(iptables, family)
    lossy = [rule for rule in loadable(family) if lost(rule, iptables.variant)]
    least = [least_lossy(rule, family, iptables.variant) for rule in lossy]
    for part in batches([rule for rule in least if all(loss.shown for loss in rule.losses())]):
        kept = [canonical(rule, family) for rule, said in zip(part, judge.stored(part), strict=True) if not said]
        assert kept == []


def least_lossy(rule: Rule, family: Family, variant: str) -> Rule:
    """The rule without all that can go as long as something is lost."""
    less = next((less for less in smaller(rule, family) if lost(less, variant)), None)
    return rule if less is None else least_lossy(less, family, variant)


# --- nft ---------------------------------------------------------------------------------------------------


def rendered(rule: Rule, family: Family) -> NftText | None:
    """The rule in nft's words; None where there are none."""
    try:
        return render_rule(rule, family=family, language=LANGUAGE)
    except InexpressibleError:
        return None


class Native:
    """The judge that nft is: it takes our text, and lists what we read as the same rule."""

    def __init__(self, room: Netns, family: Family) -> None:
        self._room = room
        self._family = family
        self.compared = 0

    def __call__(self, held: Sequence[Rule]) -> list[str]:
        """What is wrong with each that nft can say."""
        texts = {
            index: text
            for index, rule in enumerate(held)
            if not lost(rule, "native") and (text := rendered(rule, self._family)) is not None
        }
        objects = [held for text in texts.values() for held in text.objects]
        found, refused = listed(self._room, self._family, [str(text) for text in texts.values()], objects)
        self.compared += len(found)
        faults = [""] * len(held)
        for at, (index, text) in enumerate(texts.items()):
            faults[index] = f"{text}\n    {refused[at]}" if at in refused else self._compared(held[index], found[at])
        return faults

    def _compared(self, rule: Rule, answer: Listed) -> str:
        try:
            meant = read_rule(answer.statements, family=self._family, language=LANGUAGE, comment=answer.comment)
        except UnreadableError as error:
            return f"{answer.text!r}: {error}"
        return "" if meant == rule else f"{answer.text!r} reads back as {canonical(meant, self._family)!r}"


@pytest.mark.parametrize("family", Family)
def test_nft_keeps_any_rule_as_it_was_written(requires: Callable[..., None], family: Family) -> None:
    requires("nft", "ipset", "iptables-legacy-restore", "ip6tables-legacy-restore")
    with Netns() as room:
        judge = Native(room, family)
        check(loadable(family, nft=True), family, judge)
        assert judge.compared >= len(sample(family)) / 4


# --- iptables-translate ------------------------------------------------------------------------------------

WRONG: Final = (
    Trap(
        r"-m (?:tcp|udp|esp|ah|rt|hbh|dst|frag|mh|dccp|sctp|ipcomp)(?: -[mjg]|$)",
        "it says nothing for a match without options",
    ),
    Trap(r"-m frag (?:! )?--fraglen \S+(?: -[mjg]|$)", "it says nothing for a length alone, which no kernel looks at"),
    Trap(r"--(?:rt-|hbh-|dst-|ah)len ", "it takes a number of octets for the header's own count"),
    Trap(r"-m udp (?:! --sport \S+ --dport|--sport \S+ ! --dport|! --dport) \d", "a --dport takes the sign of --sport"),
    Trap(
        r"-p \S+ .*-m (?:limit|hashlimit|statistic|quota) .*-m ttl --ttl-eq", "nft looks at both header fields at once"
    ),
    Trap(r"--timestart (\S+) --timestop (\S+)", "a day turned round is without its ends", lambda at: at[1] > at[2]),
    Trap(r"--tcp-flags NONE (?!NONE)", "nft keeps no flag outside the mask"),
    Trap(r"-m addrtype .*--src-type \S+ .*--dst-type", "it loses --dst-type behind --src-type"),
    Trap(r"--(?:src|dst)-type \S*(?:THROW|NAT|XRESOLVE)", "it loses the types that nft has no name for"),
    Trap(r"devgroup (?:! --src-group \S+ --dst|--src-group \S+ ! --dst)", "--dst-group takes the sign of --src-group"),
    Trap(r"-group (0x\w+)/(0x\w+)", "it compares bits outside the mask, which kernels don't", beyond_mask),
    Trap(r"TOS --set-tos 0x\w\w/0x\w[^048c]", "it loses the bits of congestion notification"),
    Trap(r"CONNMARK --set-xmark 0x\w+/0x(?!0 |0$|f{8})", "nft reads its 'xor VALUE and MASK' with the mask on VALUE"),
    Trap(r"-j TOS", "it loses the lower two bits and the mask"),
    Trap(r"-m devgroup ! --src-group \S+ --dst-group", "--dst-group takes the sign of --src-group"),
    Trap(r"--ahlen", "it takes a length in octets for the header's own, which counts words"),
)
"""Where iptables-translate 1.8.9 means something else."""


class Translator:
    """The judge that iptables-translate is: where it says all of a rule in words that nft takes, and that we read."""

    def __init__(self, room: Netns, family: Family) -> None:
        self._room = room
        self._family = family
        self.compared = 0
        self.sayable = 0

    def __call__(self, held: Sequence[Rule]) -> list[str]:
        """What it says otherwise of each."""
        texts = [canonical(rule, self._family) for rule in held]
        ours = [rendered(rule, self._family) for rule in held]
        theirs = translated(self._family, [line(rule, self._family) for rule in held]).made
        asked = [
            index
            for index in theirs
            if ours[index] and not held[index].losses() and not any(trap.holds(texts[index]) for trap in WRONG)
        ]
        found, _ = listed(self._room, self._family, [theirs[index] for index in asked])
        self.sayable += sum(text is not None for text in ours)
        faults = [""] * len(held)
        for at, answer in found.items():
            index = asked[at]
            faults[index] = self._compared(held[index], answer.text, answer.statements)
        return faults

    def _compared(self, rule: Rule, text: str, statements: Sequence[dict[str, object]]) -> str:
        try:
            meant = read_rule(statements, family=self._family, language=LANGUAGE, comment=rule.comment)
        except UnreadableError:
            return ""  # said in words that we never use
        self.compared += 1
        return "" if meant == rule else f"says {text!r},\n    we '{rendered(rule, self._family)}'"


@pytest.mark.parametrize("family", Family)
def test_what_iptables_translate_says_in_full_means_the_same(requires: Callable[..., None], family: Family) -> None:
    requires("nft", "iptables-restore-translate", "ip6tables-restore-translate")
    with Netns() as room:
        furnish(room)
        judge = Translator(room, family)
        check(sample(family), family, judge)
        assert judge.compared >= judge.sayable / 5
