"""The arguments of every verb; the options that all verbs have may stand before or behind it."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Final, NoReturn

from meshfw import __version__

VERBS: Final = {
    "plan": "show what apply would change, and change nothing",
    "apply": "make the kernel hold the declared rules, and prove it",
    "check": "tell whether the kernel still holds the declared rules",
    "show": "print the rules of ours that the kernel holds, or with --wanted the declared ones",
    "clean": "take all rules of ours away",
    "translate": "print a rule or a dump in nft's language, or in iptables' canonical form",
    "backends": "list the backends, whether each can be used here, and which one auto takes",
    "demo": "watch rules being kept in place, in a throw-away network namespace",
}
CODES: Final = """\
exit codes:
  plan, check     0 nothing to do, 2 changes pending, 1 error
  everything else 0 done, 1 error
  any             130 interrupted, 141 nobody reads the output

files:
  meshfw.toml in the current directory, else /etc/meshfw/meshfw.toml, unless --config names another
"""
LOCK_TIMEOUT: Final = 10.0
"""Seconds that a writer waits for another one."""


class _Parser(ArgumentParser):
    """A parser whose refusals exit with 1: 2 is the answer "changes pending"."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"meshfw: error: {message}\n")


def parse(argv: Sequence[str]) -> Namespace:
    """The arguments as a namespace: ``verb``, the options of all verbs, and those of the verb."""
    parser = _Parser(
        prog="meshfw",
        description="Keeps this host's firewall the way its owner declared it.",
        epilog=CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"meshfw {__version__}")
    _add_common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        _add_common(verb)
        _OWN.get(name, _add_nothing)(verb)
    defaults = Namespace(config=None, backend=None, netns=None, json=False, verbose=False)
    return parser.parse_args(_marked(argv), defaults)


_FLAGS: Final = frozenset("-h --help -v --verbose --json -4 --ipv4 -6 --ipv6".split())
_VALUED: Final = frozenset("--config --backend --netns -f --file --to --table --chain".split())


def _marked(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--`` before the rule that ``translate`` is to read, whose options aren't ours.

    The rule is what begins with the first word that is no option of the command line, and goes on to the end.
    """
    words = list(argv)
    if "translate" not in words or "--" in words:
        return words
    at = words.index("translate") + 1
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        name, equals, _ = words[at].partition("=")
        if name not in _FLAGS | _VALUED:
            words.insert(at, "--")
            break
        at += 2 if name in _VALUED and not equals else 1
    return words


def _add_common(parser: ArgumentParser) -> None:
    options = parser.add_argument_group("options of all verbs")
    options.add_argument("--config", metavar="FILE", default=SUPPRESS, help="the configuration")
    options.add_argument("--backend", metavar="NAME", default=SUPPRESS, help="the backend, whatever is configured")
    options.add_argument("--netns", metavar="NAME", default=SUPPRESS, help="the network namespace, by name or path")
    options.add_argument("--json", action="store_true", default=SUPPRESS, help="the answer as JSON")
    options.add_argument("-v", "--verbose", action="store_true", default=SUPPRESS, help="more detail; tracebacks")


def _add_nothing(parser: ArgumentParser) -> None:
    pass


def _add_plan(parser: ArgumentParser) -> None:
    parser.add_argument("--transaction", action="store_true", help="print exactly what would run, too")


def _add_writer(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--lock-timeout",
        type=_seconds,
        default=LOCK_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for another meshfw that writes (default: %(default)g)",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument("--wanted", action="store_true", help="the declared rules; asks no kernel")
    parser.add_argument("--nft", action="store_true", help="in nft's language")


def _add_translate(parser: ArgumentParser) -> None:
    parser.add_argument(
        "rule", nargs="*", metavar="RULE", help="a rule, in one word or in several; - is standard input"
    )
    parser.add_argument("-f", "--file", metavar="FILE", help="a file with a rule on each line, or with a dump")
    parser.add_argument("--to", choices=("nft", "iptables"), default="nft", help="the language (default: %(default)s)")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", "--ipv4", dest="family", action="store_const", const="ipv4", help="an IPv4 rule")
    family.add_argument("-6", "--ipv6", dest="family", action="store_const", const="ipv6", help="an IPv6 rule")
    parser.add_argument("--table", help="iptables' table of the rule, for the whole nft command")
    parser.add_argument("--chain", help="the rule's chain, for the whole nft command")


_OWN: Final = {
    "plan": _add_plan,
    "apply": _add_writer,
    "clean": _add_writer,
    "show": _add_show,
    "translate": _add_translate,
}
