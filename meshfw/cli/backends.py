"""The verb ``backends``: every installed backend, whether it can be used here, and which one auto takes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from meshfw.cli.output import print_json, warn
from meshfw.config import Config, find_config, load_config
from meshfw.plugins import AUTO, ListedBackend, Plugins, Verdict


def run(arguments: Namespace) -> int:
    """0, whatever can be used."""
    path = find_config(arguments.config)
    config = Config() if path is None else load_config(path)
    with config.naming_file():
        plugins = Plugins(config.plugins)
    verdict = plugins.automatic()
    listed = plugins.listed()
    configured = arguments.backend or config.backend
    if arguments.json:
        data = {"configured": configured, "auto": verdict, "backends": listed, "problems": plugins.problems}
        print_json(data)
        return 0
    warn(plugins.problems)
    _print_table(listed, verdict)
    chosen = f"auto takes {verdict.name}" if verdict.name else "auto takes none"
    print(f"\n{chosen}: {verdict.reason}")
    if configured != AUTO:
        print(f"configured: {configured}")
    return 0


def _print_table(listed: Sequence[ListedBackend], verdict: Verdict) -> None:
    names = max(len(item.name) for item in listed)
    origins = max(len(item.distribution) for item in listed)
    for item in listed:
        mark = "*" if item.name == verdict.name else " "
        print(f"{mark} {item.name:{names}}  {item.distribution:{origins}}  {item.summary}")
        if item.reason is not None:
            print(f"  {'':{names}}  {'':{origins}}  can't be used here: {item.reason}")
