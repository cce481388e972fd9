"""The command line: one module for each verb, imported when it's asked for."""

# An interrupt may come at any time, so all that takes time is imported where main can catch it.
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PENDING = 2
"""The exit code when there is something to do."""
HALF_DONE = 3
"""The exit code when a change is neither made nor put back, or when the kernel doesn't hold what was committed."""
NOT_ACCEPTED = 2
"""The exit code of ``explain`` when the packet is dropped or rejected."""
UNCERTAIN = 4
"""The exit code of ``explain`` when it can't be told what becomes of the packet."""
_SIGNALLED = 128  # as shells count
INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT, as shells count."""
PIPE_CLOSED = 141
"""The exit code when nobody reads the output any more: 128 and the number of SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one command; whatever goes wrong is one message on standard error, without a traceback."""
    try:
        from meshfw.cli.signals import heeded_signals
        from meshfw.cli.streams import guarded_streams

        with heeded_signals(), guarded_streams():
            return _answered(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "number", None)
        try:
            if sys.stderr is not None:  # it is None where it was closed
                sys.stderr.write(f"meshfw: {'interrupted' if number is None else f'ended by signal {number}'}\n")
        except OSError:  # nowhere left to say so
            pass
        return INTERRUPTED if number is None else _SIGNALLED + number


def _answered(argv: list[str]) -> int:
    """The exit code of a command, when its answer was written or couldn't be."""
    from meshfw.cli.streams import OutputError

    stands, failed, code = "", False, 1
    try:
        try:
            from meshfw.cli.arguments import WRITERS, find_verb

            verb = find_verb(argv)
            stands = f"; what {verb} did stands" if verb in WRITERS else ""
            code = _done(argv)
        except (KeyboardInterrupt, OutputError):
            raise
        except Exception as error:  # noqa: BLE001 - the one place that turns whatever happened into a message
            stands, failed = "", True
            code = _failed(error, argv)
        sys.stdout.flush()
    except OutputError as error:
        if isinstance(error.error, BrokenPipeError):
            # That nobody reads any more is no error; but what went wrong before stays one.
            return code if failed else PIPE_CLOSED
        reason = error.error.strerror or error.error
        print(f"meshfw: error: standard output can't be written: {reason}{stands}", file=sys.stderr)
        return 1
    return code


def _done(argv: list[str]) -> int:
    """The exit code of the verb."""
    from importlib import import_module

    from meshfw.cli.arguments import parse

    try:
        arguments = parse(argv)
    except SystemExit as exit_:  # the help, or the version, was asked for
        return exit_.code if isinstance(exit_.code, int) else 0
    module = getattr(arguments, "foreign", None) or import_module(f"meshfw.cli.{arguments.verb.replace('-', '_')}")
    code: int = module.run(arguments)
    return code


def _failed(error: Exception, argv: list[str]) -> int:
    """1, after the message of an error (of a change left half-way, its own code); with ``-v`` after its traceback."""
    from meshfw.cli.arguments import UsageError, flagged
    from meshfw.cli.output import UnfinishedError, error_data, error_message, print_json, printable
    from meshfw.errors import HalfMigratedError, PartialCommitError, VerifyError

    done: dict[str, Any] = {}
    if isinstance(error, UnfinishedError):
        done, error = error.done, error.error
    if isinstance(error, UsageError):
        print(error.usage, file=sys.stderr)
    elif flagged(argv, "-v", "--verbose"):
        import traceback

        traceback.print_exception(error)
    print(f"meshfw: error: {printable(error_message(error))}", file=sys.stderr)
    if flagged(argv, "--json"):
        print_json({**done, "error": error_data(error)})
    return HALF_DONE if isinstance(error, HalfMigratedError | PartialCommitError | VerifyError) else 1
