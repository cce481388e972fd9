"""What became of a packet, as text and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from meshfw.cli.question import packet_text
from meshfw.extensions.language import Language
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Fate, OpaqueMatch, Packet
from meshfw.packet import Ending, Journey, Passage, Step, Unknown


def journey_text(journey: Journey, packet: Packet, language: Language) -> Iterator[str]:
    """The lines: the packet, each hook with the rules that are met, and what it comes to."""
    yield f"{journey.way}: {packet_text(packet)}{_interfaces(packet)}"
    for passage in journey.passages:
        yield from _passage_text(passage, packet.family, language)
    verdicts = _verdicts(journey.endings)
    yield f"verdict: {verdicts}"
    translations = [frozenset(ending.translations) for ending in journey.endings]
    for translation in dict.fromkeys(held for ending in journey.endings for held in ending.translations):
        perhaps = "" if all(translation in held for held in translations) else "perhaps "
        yield f"  {perhaps}{translation.text(packet.family)}"
    if any(ending.verdict.fate is Fate.ACCEPT for ending in journey.endings):
        yield "  (accepted is what nothing here holds up; what rules of others do isn't told)"
    matters = "it depends on" if len(journey.verdicts) > 1 else "unknown, but it comes to the same:"
    asked: dict[str, list[str]] = {}
    for unknown in journey.unknowns:
        asked.setdefault(unknown_text(unknown, packet.family, language), []).append(str(unknown.spot))
    for what, spots in asked.items():
        yield f"  {matters} {what} ({', '.join(spots)})"


def _interfaces(packet: Packet) -> str:
    comes = f" by {packet.in_interface}" if packet.in_interface else ""
    return comes + (f" to {packet.out_interface}" if packet.out_interface else "")


def _passage_text(passage: Passage, family: Family, language: Language) -> Iterator[str]:
    shown = [step for step in passage.path if _worth_a_line(step)]
    yield f"  {passage.hook}{'' if shown else ': no rule is met'}"
    for step in shown:
        told = "" if step.rule is None else f": {format_rule(step.rule, family=family, language=language)}"
        perhaps = "" if step.sure else "perhaps "
        did = "" if step.did.startswith(("jump to ", "goto ")) else f" => {step.did}"
        yield f"    {'  ' * max(step.depth - 1, 0)}{perhaps}{step.spot}{told}{did}"
    for note in passage.notes:
        yield f"    ({note})"


def _worth_a_line(step: Step) -> bool:
    """Whether it is more than a dispatcher's jump that every packet takes."""
    rule = step.rule
    return step.spot.place is None or rule is None or rule != msgspec.structs.replace(type(rule)(), target=rule.target)


def _verdicts(endings: Iterable[Ending]) -> str:
    texts = dict.fromkeys(
        f"{ending.verdict} by {ending.spot}" if ending.spot is not None else str(ending.verdict) for ending in endings
    )
    return ", or ".join(sorted(texts))


def unknown_text(unknown: Unknown, family: Family, language: Language) -> str:
    """What can't be told, as the rule that asks has it."""
    match = unknown.what
    if isinstance(match, str):
        return match
    if isinstance(match, OpaqueMatch):
        return " ".join((match.name, *match.words))
    extension = language.by_value.get(type(match))
    return (
        type(match).__name__.lower()
        if extension is None
        else " ".join((extension.name, *extension.words(match, family)))
    )


def journey_data(journey: Journey, family: Family, language: Language) -> dict[str, Any]:
    """The same for programs."""
    return {
        "way": journey.way,
        "verdicts": [str(verdict) for verdict in journey.verdicts],
        "hooks": [
            {
                "hook": passage.hook,
                "path": [_step_data(step, family, language) for step in passage.path],
                "notes": passage.notes,
            }
            for passage in journey.passages
        ],
        "endings": [_ending_data(ending, family) for ending in journey.endings],
        "unknowns": [
            {"what": unknown_text(unknown, family, language), **_spot_data(unknown)} for unknown in journey.unknowns
        ],
    }


def _spot_data(held: Step | Unknown) -> dict[str, Any]:
    spot = held.spot
    return {
        "hook": spot.hook,
        "table": spot.table,
        "chain": spot.chain or None,
        "place": spot.place,
        "number": spot.number or None,
    }


def _step_data(step: Step, family: Family, language: Language) -> dict[str, Any]:
    rule = None if step.rule is None else format_rule(step.rule, family=family, language=language)
    return {**_spot_data(step), "depth": step.depth, "rule": rule, "sure": step.sure, "did": step.did}


def _ending_data(ending: Ending, family: Family) -> dict[str, Any]:
    return {
        "verdict": ending.verdict.fate,
        "answer": ending.verdict.answer or None,
        "by": None if ending.spot is None else str(ending.spot),
        "translations": [translation.text(family) for translation in ending.translations],
        "packet": packet_text(ending.packet),
    }
