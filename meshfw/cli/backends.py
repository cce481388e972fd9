"""The verb ``backends``: every installed backend, what is known of it here, and which one auto takes and why."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

import msgspec

from meshfw.backend import Site
from meshfw.backends.instance import require_namespace
from meshfw.backends.remembered import recall
from meshfw.cli.output import one_line, print_json, warn
from meshfw.config import Config, find_config, load_config
from meshfw.extensions.language import Language
from meshfw.hookspecs import BackendPlugin
from meshfw.plugins import AUTO, ListedBackend, Plugins, Verdict


def run(arguments: Namespace) -> int:
    """0, whatever can be used."""
    path = find_config(arguments.config)
    config = Config() if path is None else load_config(path)
    with config.naming_file():
        plugins = Plugins(config.plugins)
    require_namespace(arguments.netns)
    bare = Site(owner=config.owner, language=Language.of(()), netns=arguments.netns)

    def site_of(offer: BackendPlugin) -> Site:
        return msgspec.structs.replace(bare, options=config.options.get(offer.name, {}))

    remembered, odd = recall(config.owner, arguments.netns)
    verdict = plugins.automatic(plugins.look(site_of), remembered=remembered)
    listed = plugins.listed(site_of)
    configured = arguments.backend or config.backend
    warnings = [*config.warnings, *([odd] if odd else []), *verdict.warnings]
    if verdict.doubt:
        warnings.append(f"auto isn't sure: {verdict.doubt}")
    if arguments.json:
        data = {
            "configured": configured,
            "owner": config.owner,
            "auto": {"name": verdict.name, "reason": verdict.reason},
            "remembered": remembered or None,
            "backends": [_data(item) for item in listed],
            "problems": plugins.problems,
            "warnings": warnings,
        }
        print_json(data)
        return 0
    warn([*plugins.problems, *warnings])
    _print_table(listed, verdict, remembered)
    print(f"\n{f'auto takes {verdict.name}' if verdict.name else 'auto takes none'}: {verdict.reason}")
    if configured != AUTO:
        print(f"configured: {configured}")
    return 0


def _data(item: ListedBackend) -> dict[str, object]:
    presence = item.presence
    return {
        "name": item.name,
        "distribution": item.distribution,
        "summary": item.summary,
        "reason": item.reason,
        "automatic": item.automatic,
        "own": presence.own or None,
        "others": presence.others or None,
        "rules_of_others": presence.rules,
        "unread": item.unread or None,
    }


def _print_table(listed: Sequence[ListedBackend], verdict: Verdict, remembered: str) -> None:
    names = max(len(item.name) for item in listed)
    origins = max(len(item.distribution) for item in listed)
    for item in listed:
        mark = "*" if item.name == verdict.name else " "
        print(f"{mark} {item.name:{names}}  {item.distribution:{origins}}  {item.summary}")
        for line in _known(item, remembered):
            print(f"  {'':{names}}  {'':{origins}}  {one_line(line)}")


def _known(item: ListedBackend, remembered: str) -> Iterator[str]:
    """What is known of a backend here, a line each."""
    if item.reason is not None:
        yield f"can't be used here: {item.reason}"
    if item.presence.own:
        yield f"rules of ours: {item.presence.own}"
    if item.presence.others:
        yield f"others use it: {item.presence.others}"
    if item.unread:
        yield f"what stands there can't be told: {item.unread}"
    if item.name == remembered:
        yield "auto took it last time"
