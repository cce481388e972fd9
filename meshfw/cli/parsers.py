"""The parser that every verb has: the options of all verbs, and what is refused said in one message."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence
from typing import Any, Final, NoReturn

from meshfw import __version__
from meshfw.cli.values import name
from meshfw.errors import MeshfwError

CODES: Final = """\
exit codes:
  plan, check     0 nothing to do, 2 changes pending, 1 error; the same of migrate --dry-run
  diff            0 both mean the same, 2 they differ, 1 error
  status          0 all is well, 2 the agent says that it isn't, 1 error, such as that no agent runs
  explain         0 the packet is accepted, 2 dropped or rejected, 4 it can't be told, 1 error
  confirm         0 kept, or undone with --undo, 1 nothing is on trial, or its time is over, or error
  apply --confirm 0 done, or on trial, or confirmed, 1 undone: not confirmed in time, or n; or error
  everything else 0 done, 1 error
  any that writes 3 a change is half done and couldn't be put back, or the kernel doesn't hold what was written
  any             130 interrupted, 141 nobody reads the output

verbs of plugins:
  'meshfw --verbs' lists those of the plugins that are installed

files:
  meshfw.toml in the current directory, else /etc/meshfw/meshfw.toml, unless --config names another
"""
_OPTION: Final = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


class UsageError(MeshfwError):
    """A command line that isn't one: ``usage`` is the line that shows how it goes."""

    def __init__(self, reason: str, *, usage: str) -> None:
        super().__init__(reason, usage)
        self.reason = reason
        self.usage = usage

    def __str__(self) -> str:
        return f"{self.reason}; {self.usage.removeprefix('usage: ').split(' [')[0]} --help tells more"


class Parser(ArgumentParser):
    """A parser that raises what it refuses, takes options by their whole names only, and has those of all verbs."""

    def __init__(self, **named: Any) -> None:
        super().__init__(allow_abbrev=False, **named)
        add_common(self)

    def add_subparsers(self, **named: Any) -> Any:
        """As of every parser, except that those below are called by the words that lead to them and no more."""
        return super().add_subparsers(**{"prog": self.prog, **named})

    def error(self, message: str) -> NoReturn:
        """Raise what argparse refuses."""
        raise UsageError(message.removeprefix("argument "), usage=self.format_usage().strip())

    def parse_known_args(  # type: ignore[override]  # of its overloads the one that is used
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """As of every parser, except that a verb's own refuses what it doesn't know, with its own usage."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self.prog != PROGRAM:
            self.refuse(unknown[0])
        return found, unknown

    def refuse(self, word: str) -> NoReturn:
        """Refuse a word that this parser doesn't know."""
        if word.startswith("-") and word != "-":
            self.error(f"there is no option {word.partition('=')[0]}{self.suggestion(word)}")
        self.error(f"{self.prog.removeprefix(f'{PROGRAM} ')} takes no {word!r}")

    def suggestion(self, word: str) -> str:
        """The option of this parser that a word was meant to be, as a question; empty where none is near."""
        from meshfw.source import suggestion

        name, options = word.partition("=")[0], _OPTION.findall(self.format_help())
        begun = [option for option in options if option.startswith(name)]
        return f" (did you mean {begun[0]}?)" if begun else suggestion(name, options)


PROGRAM: Final = "meshfw"


def program(built_in: Collection[str]) -> tuple[Parser, Any]:
    """The parser of the command line, and what verbs are added to; ``built_in`` are those of meshfw itself."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options] VERB ...",
        description="Keeps this host's firewall the way its owner declared it.",
        epilog=CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("--verbs", action=_Verbs, const=built_in, help="list the verbs of installed plugins, and exit")
    return parser, parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)


def add_verb(verbs: Any, name: str, *, summary: str, usage: str | None = None) -> Parser:
    """The parser of a verb, added to :func:`program`'s."""
    description = f"{summary[:1].upper()}{summary[1:]}."
    parser: Parser = verbs.add_parser(name, usage=usage, help=summary, description=description)
    return parser


class _Verbs(Action):
    """The option that lists the verbs of plugins, as ``--version`` prints the version."""

    def __init__(self, option_strings: Sequence[str], dest: str, **named: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=SUPPRESS, **named)

    def __call__(self, parser: ArgumentParser, *rest: object) -> NoReturn:
        from meshfw.cli.foreign import print_foreign

        print_foreign(self.const)
        parser.exit()


def add_common(parser: ArgumentParser) -> None:
    """Add the options that all verbs have, which may stand before or behind the verb."""
    options = parser.add_argument_group("options of all verbs")
    options.add_argument("--config", metavar="FILE", type=name, default=SUPPRESS, help="the configuration")
    options.add_argument(
        "--backend", metavar="NAME", type=name, default=SUPPRESS, help="the backend, whatever is configured"
    )
    options.add_argument(
        "--netns", metavar="NAME", type=name, default=SUPPRESS, help="the network namespace, by name or path"
    )
    options.add_argument("--json", action="store_true", default=SUPPRESS, help="the answer as JSON")
    options.add_argument("-v", "--verbose", action="store_true", default=SUPPRESS, help="more detail; tracebacks")
