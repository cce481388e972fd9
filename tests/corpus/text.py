"""The figures of iptables' language, which need no kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshfw.errors import MeshfwError
from meshfw.languages.iptables import parse_rule
from meshfw.model import Family
from tests.corpus import Figure, Vector, canonical, counted, language, parsed, placed, saved, typed, vectors


def loaded(name: str, chosen: Callable[[Vector], bool]) -> Iterator[Vector]:
    """The vectors that iptables-legacy took."""
    return (vector for vector in vectors(name) if vector["legacy_ok"] and vector["legacy_save"] and chosen(vector))


def parse_results(name: str, chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether each rule that loads is parsed without an opaque part."""
    for vector in loaded(name, chosen):
        try:
            rule = parsed(vector["argv"], vector["family"])
        except MeshfwError as error:
            yield False, f"{vector['id']} refused: {vector['argv']}: {error}"
        else:
            yield typed(rule), f"{vector['id']} opaque: {vector['argv']}"


def loses_meaning(vector: Vector, text: str) -> bool:
    """Whether iptables stored the rule as another one, and ours is what newer iptables prints."""
    expected = vector.get("expected_save") or text
    return saved(vector) != expected == text


def canonical_results(name: str, chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether each rule that loads prints as iptables-legacy saves it."""
    for vector in loaded(name, chosen):
        try:
            text = canonical(parsed(vector["argv"], vector["family"]), vector["family"])
        except MeshfwError:
            yield False, f"{vector['id']} refused: {vector['argv']}"
            continue
        if not loses_meaning(vector, text):
            yield text == saved(vector), f"{vector['id']} {vector['argv']}\n    saved {saved(vector)}\n    ours  {text}"


def meaning_results(name: str, chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether what iptables saved means what was written."""
    for vector in loaded(name, chosen):
        try:
            rule = parsed(vector["argv"], vector["family"])
        except MeshfwError:
            continue
        if not loses_meaning(vector, canonical(rule, vector["family"])):
            again = parse_rule(saved(vector), family=Family(vector["family"]), language=language())
            yield again == rule, f"{vector['id']} {vector['argv']}\n    saved {saved(vector)}"


def refusal_results(name: str, chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether each rule that upstream says is refused, and both iptables refuse, is refused here."""
    for vector in vectors(name):
        if vector.get("legacy_ok") or vector.get("nft_ok") or vector.get("expect_legacy", "FAIL") != "FAIL":
            continue
        if not chosen(vector):
            continue
        try:
            placed(vector)
        except MeshfwError:
            yield True, ""
        else:
            why = (vector["legacy_err"] or "").strip().splitlines()
            yield False, f"{vector['id']} {vector['table']} {vector['chain']} {vector['argv']}: {why[:1]}"


def equal_results(chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether the forms that iptables saves alike are equal."""
    for vector in vectors("equiv.jsonl"):
        try:
            rules = [parsed(form, vector["family"]) for form in vector["forms"]]
        except MeshfwError as error:
            yield False, f"{vector['id']} {error}"
        else:
            kept = [rule for rule in rules if not rule.losses()]  # of the others iptables stores another meaning
            same = all(rule == kept[0] and hash(rule) == hash(kept[0]) for rule in kept)
            yield same, f"{vector['id']} {vector['forms']}"


def different_results(chosen: Callable[[Vector], bool]) -> Iterator[tuple[bool, str]]:
    """Whether rules that iptables saves differently are different."""
    for vector in vectors("nearmiss.jsonl"):
        try:
            one, other = (parsed(vector[side], vector["family"]) for side in ("a", "b"))
        except MeshfwError as error:
            yield False, f"{vector['id']} {error}"
        else:
            yield one != other, f"{vector['id']} {vector['a']} {vector['b']}"


def language_figures(chosen: Callable[[Vector], bool] = lambda vector: True) -> Iterator[Figure]:
    """The figures that need no kernel."""
    for name, parse, text in (("realworld", 0.995, 0.998), ("iptables_t", 0.99, 0.99)):
        file = f"{name}.jsonl"
        yield counted(f"{name}: parsed without opaque", parse, parse_results(file, chosen))
        yield counted(f"{name}: canonical text is what iptables saves", text, canonical_results(file, chosen))
        yield counted(f"{name}: what iptables saves means the same", 1.0, meaning_results(file, chosen))
    yield counted("iptables_t: refused as upstream and kernel do", 0.95, refusal_results("iptables_t.jsonl", chosen))
    yield counted("realworld_rejects: refused", 0.95, refusal_results("realworld_rejects.jsonl", chosen))
    yield counted("equiv: equal", 1.0, equal_results(chosen))
    yield counted("nearmiss: different", 1.0, different_results(chosen))
