"""What texts of iptables mean to one owner: spellings of opaque rules, names of chains, and what is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshfw.backends.iptables_lexicon import Lexicon, is_opaque
from meshfw.backends.iptables_raw import RawRule
from meshfw.backends.layout import iptables_chain
from meshfw.backends.spellings import KnownTexts
from meshfw.extensions import Language, builtin_extensions
from meshfw.languages.iptables import parse_rule
from meshfw.model import Chain, ChainKey, Family, Goto, Jump, OpaqueTarget, Rule, Table

LANGUAGE = Language.of(builtin_extensions())
FAMILY = Family.IPV4
KEY = ChainKey(FAMILY, Table.FILTER, "a")
LONG = "a-name-of-more-than-28-characters"


@pytest.fixture
def lexicon() -> Lexicon:
    return Lexicon("meshfw", LANGUAGE, apart=True)


@pytest.fixture
def spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownTexts:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return KnownTexts("test")


def rule(text: str) -> Rule:
    return parse_rule(text, family=FAMILY, language=LANGUAGE)


def meant(lexicon: Lexicon, *texts: str | None) -> list[Rule | None]:
    return lexicon.rules(KEY, texts)


def raw(text: str) -> RawRule:
    return RawRule(text.encode(), 0, 0)


# --- bytes and texts ---


def test_a_text_is_known_by_the_bytes_it_was_printed_for(lexicon: Lexicon) -> None:
    rules = (raw("1"), raw("2"), raw("3"))
    assert lexicon.unknown(FAMILY, rules) == [*rules]
    lexicon.remember(FAMILY, rules, ("-j ACCEPT", None, "-j DROP"))
    assert lexicon.unknown(FAMILY, rules) == [raw("2")]
    assert lexicon.text(FAMILY, raw("3")) == "-j DROP"
    assert lexicon.text(Family.IPV6, raw("3")) is None
    lexicon.forget()
    assert lexicon.unknown(FAMILY, rules) == [*rules]


def test_what_does_not_fit_is_a_defect(lexicon: Lexicon) -> None:
    with pytest.raises(ValueError, match="zip"):
        lexicon.remember(FAMILY, (raw("1"),), ("-j ACCEPT", "-j DROP"))


# --- texts and rules ---


@pytest.mark.parametrize("text", ["", "-j ACCEPT", "-s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j meshfw-a", "-g meshfw-b"])
def test_a_rule_is_known_by_the_text_that_it_was_given(lexicon: Lexicon, text: str) -> None:
    (found,) = meant(lexicon, text)
    assert found is not None
    assert lexicon.written(found, FAMILY) == text
    assert meant(lexicon, text) == [found]


def test_what_is_no_rule_means_nothing(lexicon: Lexicon) -> None:
    assert meant(lexicon, None, "-s nowhere", "-m comment --comment", "-s") == [None] * 4


def test_jumps_lead_to_the_owners_chains_by_their_logical_names(lexicon: Lexicon) -> None:
    (jump, goto, stranger, strange_goto) = meant(lexicon, "-j meshfw-b", "-g meshfw-b", "-j THEIRS", "-g THEIRS")
    assert jump == Rule(target=Jump("b"))
    assert goto == Rule(target=Goto("b"))
    assert stranger == Rule(target=OpaqueTarget("THEIRS"))
    assert strange_goto is None


def test_a_shortened_name_is_known_once_it_was_told(lexicon: Lexicon) -> None:
    name = iptables_chain("meshfw", LONG)
    assert meant(lexicon, f"-j {name}") != [Rule(target=Jump(LONG))], "the hash doesn't tell the name"
    lexicon.named(name, ChainKey(FAMILY, Table.FILTER, LONG))
    assert meant(lexicon, f"-j {name}") == [Rule(target=Jump(LONG))]


def test_a_shortened_name_is_known_as_soon_as_it_was_written(lexicon: Lexicon) -> None:
    name = iptables_chain("meshfw", LONG)
    assert lexicon.written(Rule(target=Jump(LONG)), FAMILY) == f"-j {name}"
    assert meant(lexicon, f"-j {name}") == [Rule(target=Jump(LONG))]


# --- spellings of opaque rules ---

WRITTEN = "-m frob --algo bm --frob foo -j DROP"
PRINTED = '-m frob --frob "foo" --algo bm --to 65535 -j DROP'


def test_another_spelling_is_taken_for_the_rule_that_was_written(lexicon: Lexicon, spellings: KnownTexts) -> None:
    opaque = rule(WRITTEN)
    assert is_opaque(opaque)
    lexicon.want((Chain(family=FAMILY, table=Table.FILTER, name="a", rules=(opaque,)),), spellings)
    assert lexicon.unsure(KEY)
    assert meant(lexicon, PRINTED) != [opaque]
    assert lexicon.learn(FAMILY, opaque, PRINTED)
    assert meant(lexicon, PRINTED) == [opaque]


@pytest.mark.parametrize(
    "text",
    [
        '-m frob --frob "foo" --algo bm -j ACCEPT',
        '-s 10.0.0.0/8 -m frob --frob "foo" --algo bm -j DROP',
        '-m frob --frob "foo" --algo bm',
        "-j DROP",
        '-m other --frob "foo" -j DROP',
        "-s nowhere",
    ],
)
def test_a_text_that_says_something_else_is_no_spelling(lexicon: Lexicon, text: str) -> None:
    assert not lexicon.learn(FAMILY, rule(WRITTEN), text)
    assert meant(lexicon, text) != [rule(WRITTEN)]


def test_a_rule_with_typed_values_alone_has_one_spelling(lexicon: Lexicon) -> None:
    assert not lexicon.learn(FAMILY, rule("-s 10.0.0.1 -j DROP"), "-s 10.0.0.2/32 -j DROP")


def test_rules_that_are_printed_alike_are_told_apart_by_what_is_wanted(lexicon: Lexicon, spellings: KnownTexts) -> None:
    one, other = rule(WRITTEN), rule("-m frob --frob foo --algo bm -j DROP")
    assert one != other
    for opaque in (one, other):
        lexicon.learn(FAMILY, opaque, PRINTED)
    for wanted in ((one, other), (other, one), (one, one)):
        chain = Chain(family=FAMILY, table=Table.FILTER, name="a", rules=wanted)
        lexicon.want((chain,), spellings)
        assert meant(lexicon, PRINTED, PRINTED) == [*wanted]
    assert meant(lexicon, PRINTED, PRINTED, PRINTED)[2] is not None


def test_a_spelling_of_one_family_is_none_of_the_other(lexicon: Lexicon) -> None:
    lexicon.learn(FAMILY, rule(WRITTEN), PRINTED)
    (found,) = lexicon.rules(ChainKey(Family.IPV6, Table.FILTER, "a"), [PRINTED])
    assert found != rule(WRITTEN)


# --- what is wanted ---


def test_a_text_that_is_written_for_a_wanted_rule_is_that_rule_and_never_parsed(
    lexicon: Lexicon, spellings: KnownTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(family=FAMILY, table=Table.FILTER, name="a", rules=(rule("-s 10.0.0.1 -j ACCEPT"), rule("-j DROP")))
    lexicon.want([chain], spellings)
    parsed: list[str] = []

    def parse(text: str, *, family: Family, language: Language) -> Rule:
        parsed.append(text)
        return parse_rule(text, family=family, language=language)

    monkeypatch.setattr("meshfw.backends.iptables_lexicon.parse_rule", parse)
    found = meant(lexicon, "-j DROP", "-s 10.0.0.1/32 -j ACCEPT", "-s 10.0.0.2/32 -j ACCEPT")
    assert found[0] is chain.rules[1]
    assert found[1] is chain.rules[0]
    assert found[2] == rule("-s 10.0.0.2 -j ACCEPT")
    assert parsed == ["-s 10.0.0.2/32 -j ACCEPT"]
