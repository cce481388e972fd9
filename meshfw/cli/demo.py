"""The verb ``demo``: a mesh gateway's rules, broken by others and repaired, in throw-away network namespaces."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from meshfw.backend import Site
from meshfw.backends.instance import host_families
from meshfw.cli.demo_client import rule_by_rule
from meshfw.cli.demo_story import Story
from meshfw.cli.demo_tell import Step, Teller, comparison, totals
from meshfw.cli.output import counted, print_json
from meshfw.config import Ipv6, parse_config
from meshfw.errors import BackendError
from meshfw.extensions.language import Language
from meshfw.hookspecs import BackendPlugin
from meshfw.plugins import Plugins
from meshfw.testing import netns
from meshfw.testing.breakage import TOOLS
from meshfw.testing.gateway import FILE, gateway_toml
from meshfw.testing.rootless import own_xtables_lock, run_inside
from meshfw.wanted import fit_families, load_rules

OWNER: Final = "meshfw"
Told = dict[str, Sequence[Step]]


def run(arguments: Namespace) -> int:
    """0 when everything went as it should, else 1."""
    reason = netns.available()
    if reason is not None:
        named = ("--backend", arguments.backend) if arguments.backend else ()
        options = (*(("--json",) if arguments.json else ()), *(("--verbose",) if arguments.verbose else ()), *named)
        run_inside((sys.executable, "-m", "meshfw", "demo", *options), reason=reason)
    plugins = Plugins()
    with own_xtables_lock():
        language = plugins.language()
        offers, skipped = _offers(plugins, language, arguments.backend)
        tell = Teller(silent=arguments.json)
        told, clients = _tell(plugins, language, offers, tell)
    wrong = [line for steps in told.values() for step in steps for line in step.wrong]
    if arguments.json:
        data = {"backends": told, "rule_by_rule": clients, "skipped": skipped, "ok": bool(told) and not wrong}
        print_json(data)
    for table in (totals(told), comparison(told, clients)):
        if table:
            tell.chapter(*table)
    tell.line()
    for name, why in skipped.items():
        tell.line(f"not shown: {name}: {why}")
    tell.line(f"! {counted(len(wrong), 'thing')} went wrong" if wrong else "everything went as it should")
    return 0 if told and not wrong else 1


def _offers(plugins: Plugins, language: Language, named: str | None) -> tuple[list[BackendPlugin], dict[str, str]]:
    """The backends to show, and why each of the others isn't shown."""
    if named is not None:
        return [plugins.backend(named, key="--backend")], {}
    offers, skipped = [], {}
    for entry in plugins.listed():
        if entry.automatic is None:
            skipped[entry.name] = "only whoever names it gets it (--backend)"
        elif entry.reason is not None:
            skipped[entry.name] = entry.reason
        elif entry.name not in TOOLS:
            skipped[entry.name] = "nobody here knows how to break its rules"
        else:
            offer = plugins.backend(entry.name)
            obstacle = _obstacle(plugins, offer, language)
            if obstacle is None:
                offers.append(offer)
            else:
                skipped[entry.name] = obstacle
    if not offers:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise BackendError(f"no backend can be shown here: {why}")
    return offers, skipped


def _obstacle(plugins: Plugins, offer: BackendPlugin, language: Language) -> str | None:
    """Why a backend can't read its rules in a namespace of ours, and what to do; None where it can."""
    try:
        with netns.Netns("meshfw-demo-probe") as namespace:
            backend = plugins.open_backend(offer, Site(owner=OWNER, language=language, netns=namespace.path))
            try:
                backend.observe()
            finally:
                backend.close()
    except BackendError as error:
        return str(error)
    return None


def _tell(plugins: Plugins, language: Language, offers: Sequence[BackendPlugin], tell: Teller) -> tuple[Told, Told]:
    """The story of each backend, and what clients that keep its rules one by one did."""
    text = gateway_toml()
    declared = load_rules(parse_config(text, file=FILE), plugins=plugins, language=language)
    ruleset, _ = fit_families(declared, host_families(), ipv6=Ipv6.AUTO)
    tell.chapter(
        f"A mesh gateway's firewall: {FILE}, {counted(len(text.splitlines()), 'line')}",
        "client - gateway - server are three network namespaces; this host's own rules are not touched",
    )
    place = Site(owner=OWNER, language=language)
    known: dict[tuple[str, ...], str] = {}
    told: Told = {offer.name: Story(plugins, offer, place, tell, known).told(ruleset) for offer in offers}
    clients: Told = {}
    for offer in offers:
        steps = rule_by_rule(plugins, offer, place, ruleset, tell)
        if steps:
            clients[offer.name] = steps
    return told, clients
