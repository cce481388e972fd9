"""The command line: one module for each verb, imported when it's asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT, as shells count."""
PIPE_CLOSED = 141
"""The exit code when nobody reads the output any more: 128 and the number of SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one command; whatever goes wrong is one message on standard error, without a traceback."""
    from meshfw.cli.arguments import parse

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a comment of a rule may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        code: int = import_module(f"meshfw.cli.{arguments.verb}").run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("meshfw: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own flush at its end
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the one place that turns whatever happened into a message
        return _failed(error, arguments)
    return code


def _failed(error: Exception, arguments: Namespace) -> int:
    """1, after the message of an error; with ``-v`` after its traceback as well."""
    from meshfw.cli.output import error_data, error_message, print_json

    if arguments.verbose:
        import traceback

        traceback.print_exception(error)
    if arguments.json:
        print_json({"error": error_data(error)})
    print(f"meshfw: error: {error_message(error)}", file=sys.stderr)
    return 1
