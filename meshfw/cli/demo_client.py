"""The other way to keep the same rules: a client that asks iptables for each of them, for comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial

import msgspec

from meshfw import reconcile
from meshfw.backend import Site
from meshfw.cli.demo_story import measured
from meshfw.cli.demo_tell import Step, Teller
from meshfw.cli.output import counted
from meshfw.hookspecs import BackendPlugin
from meshfw.languages.iptables import format_rule
from meshfw.model import Family, Rule, Ruleset
from meshfw.plugins import Plugins
from meshfw.testing.netns import Netns
from meshfw.testing.perrule import Line, PerRuleClient, lines_of


def rule_by_rule(plugins: Plugins, offer: BackendPlugin, place: Site, ruleset: Ruleset, tell: Teller) -> list[Step]:
    """The first sync and one idle pass of such a client, in a namespace of its own.

    It writes what the backend's first transaction would. Empty for a backend whose transactions aren't iptables'.
    """
    with Netns("meshfw-demo-client") as namespace:
        backend = plugins.open_backend(offer, msgspec.structs.replace(place, netns=namespace.path))
        try:
            lines = lines_of(backend.compile(reconcile.plan(backend, ruleset)).steps)
            if not lines:
                return []
            rules = sum(line.letter != "N" for line in lines)
            tell.chapter(
                "The same, rule by rule, as controllers began: a process asks for each (-C), one more writes it (-A)",
                f"{rules} rules and {len(lines) - rules} chains, all that stands in the kernel on {offer.name}",
            )
            steps = _passes(PerRuleClient(namespace, lines), _examples(lines))
            formatted = partial(_formatted, place)
            steps[-1].changes = [str(edit) for edit in reconcile.plan(backend, ruleset).edits(formatted)]
        finally:
            backend.close()
    left = len(steps[-1].changes)
    steps[-1].notes.append(
        f"that is what meshfw would change now: {counted(left, 'thing')} that -C took for done"
        if left
        else "meshfw would change nothing now: the very same rules"
    )
    for step in steps:
        tell.step(step)
    return steps


def _passes(client: PerRuleClient, examples: Sequence[str]) -> list[Step]:
    steps = []
    for title in ("first sync", "once more, with nothing to do"):
        step, written = measured("client", title, client.sync)
        step.outcome = f"{counted(written, 'rule')} written"
        steps.append(step)
    steps[0].commands = examples
    return steps


def _examples(lines: Sequence[Line]) -> list[str]:
    """What it runs for one rule."""
    rule = next(line for line in reversed(lines) if line.letter == "A")
    return [shlex.join(rule.argv("C")), shlex.join(rule.argv())]


def _formatted(place: Site, rule: Rule, family: Family) -> str:
    return format_rule(rule, family=family, language=place.language)
