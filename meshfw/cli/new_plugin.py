"""The verb ``new-plugin``: write the distribution of a new backend or rule source, which passes its own tests."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace

from meshfw.authoring.distribution import Kind, NewPlugin
from meshfw.cli.output import print_json, printable
from meshfw.plugins import Plugins


def run(arguments: Namespace) -> int:
    """0 when it's written."""
    made = NewPlugin.named(Kind(arguments.kind), arguments.name, taken=Plugins().names())
    place = made.write(arguments.directory)
    names = list(made.files())
    python = shlex.quote(sys.executable)  # which has meshfw, unlike the pip and pytest that PATH may find
    commands = [f"cd {shlex.quote(place)}", f"{python} -m pip install --editable '.[test]'", f"{python} -m pytest"]
    if arguments.json:
        print_json({"plugin": made.name, "directory": place, "files": names, "next": commands})
        return 0
    print(printable(f"{place}: a {made.kind} called {made.name}, in {len(names)} files"))
    for name in names:
        print(f"  {name}")
    print(f"next: {printable(commands[0])}", *map(printable, commands[1:]), sep="\n      ")
    return 0
