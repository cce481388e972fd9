"""The verb ``explain``: the rules that a packet would meet, and what would become of it."""

from __future__ import annotations

from argparse import Namespace

from meshfw.cli import NOT_ACCEPTED, UNCERTAIN
from meshfw.cli.explained import journey_data, journey_text
from meshfw.cli.output import one_line, print_json, warn
from meshfw.cli.question import packet_of, packet_text, ways_of
from meshfw.cli.rulesets import LIVE, ruleset_named
from meshfw.errors import FamilyError
from meshfw.languages.dump import ruleset_of_dump
from meshfw.model import ACCEPTED, Family, Fate, Ruleset
from meshfw.packet import Evaluator, Journey
from meshfw.source import alternatives
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when the packet is accepted, 2 when it is dropped or rejected, 4 when that can't be told."""
    declared = not (arguments.file or arguments.live)
    shop = Workshop(arguments, needed=declared, sources=declared)
    packet, ways = packet_of(arguments, shop.language.hosts), ways_of(arguments)
    evaluator = Evaluator(_ruleset(arguments, shop, packet.family))
    journeys = [evaluator.journey(packet, way=way) for way in ways]
    if arguments.json:
        told = [journey_data(journey, packet.family, shop.language) for journey in journeys]
        print_json({"packet": packet_text(packet), "ways": told, "warnings": shop.warnings})
        return _code(journeys)
    warn(shop.warnings)
    for journey in journeys:
        for line in journey_text(journey, packet, shop.language):
            print(one_line(line))
    return _code(journeys)


def _ruleset(arguments: Namespace, shop: Workshop, family: Family) -> Ruleset:
    """The rules of the configuration, of a file, or ours in the kernel."""
    if arguments.file:
        return _file(arguments.file, shop, family)
    if not arguments.live:
        return shop.rules()
    with shop.backend() as backend:
        snapshot = backend.observe().snapshot
        name = backend.name
    meaning = snapshot.meaning()
    shop.warnings += meaning.notes
    if not snapshot:
        tools = alternatives(f"-f {tool}" for tool in LIVE)
        shop.warnings.append(
            f"no rules of ours stand here (backend {name}), and others' rules aren't looked at: {tools} does that"
        )
    return meaning.ruleset


def _file(name: str, shop: Workshop, family: Family) -> Ruleset:
    """The packet's family of a ruleset that somebody named; of another family's it meets nothing."""
    dumps = ruleset_named(name, language=shop.language, family=family, netns=shop.site.netns)
    if family not in dumps:
        raise FamilyError(f"the packet is {family}, and there are no rules of that family", where=name)
    return ruleset_of_dump(dumps[family], source=name)


def _code(journeys: list[Journey]) -> int:
    verdicts = {verdict for journey in journeys for verdict in journey.verdicts}
    if verdicts == {ACCEPTED}:
        return 0
    return NOT_ACCEPTED if all(verdict.fate is not Fate.ACCEPT for verdict in verdicts) else UNCERTAIN
