"""The command line of ``meshfw fleet``: its verbs, their options, and what the words behind them say."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any, Final, TypeVar

from meshfw import ConfigError
from meshfw_etcd.stages import Canaries, Size, stages_of

T = TypeVar("T")
_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smh]?)\Z")
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
CODES: Final = """\
exit codes:
  push, rollback  0 all nodes hold it, 2 halted and taken back, 3 published and not all nodes hold it, 1 error
  abort           0 taken back, 1 error
  status          0 all nodes hold what they should and nothing is under way, 2 not so, 1 error
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verbs of ``meshfw fleet`` to its parser."""
    parser.usage = "meshfw fleet [options] push|rollback|abort|status ..."
    actions = parser.add_subparsers(dest="action", metavar="push|rollback|abort|status", required=True)
    _add_push(_action(actions, "push", "[RULES]", "roll a file of rules out, stage by stage"))
    _add_rollback(_action(actions, "rollback", "[RELEASE]", "roll an earlier release out again, as a new one"))
    _add_store(_action(actions, "abort", "", "take back the roll-out that is under way, whoever is at work on it"))
    status = _action(actions, "status", "", "show what the nodes hold, and how far a roll-out is")
    _add_store(status)
    status.add_argument(
        "--older-than",
        type=seconds,
        metavar="TIME",
        help="count nodes as stale, too, whose last word is older than that; one speaks when what it holds changes, "
        "and when it finds the store again",
    )


def _action(actions: Any, name: str, tail: str, summary: str) -> ArgumentParser:
    usage = f"meshfw fleet {name} [options] {tail}".rstrip()
    parser: ArgumentParser = actions.add_parser(
        name, usage=usage, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=CODES
    )
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class = RawDescriptionHelpFormatter
    return parser


def _add_push(parser: ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("rules", nargs="?", metavar="RULES", help="a TOML file of [[chain]] and [[set]] tables")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the roll-out that was left behind, as it was begun"
    )
    _add_way(parser)


def _add_rollback(parser: ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "release", nargs="?", type=_release, metavar="RELEASE", help="its number (default: the one before the last)"
    )
    _add_way(parser)


def _add_way(parser: ArgumentParser) -> None:
    """Add how a release is to be rolled out."""
    way = parser.add_argument_group("the way")
    way.add_argument(
        "--canaries",
        type=_said(Canaries.of),
        default=Canaries(),
        metavar="WHO",
        help="who tries it first: names with commas between, a number, or a percentage (default: the first stage)",
    )
    way.add_argument(
        "--stages",
        type=_said(stages_of),
        default=stages_of("1,10%,100%"),
        metavar="SIZES",
        help="how many nodes have it after each stage, such as 1,10%%,100%% (the default)",
    )
    way.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="TIME",
        help="how long the nodes of a stage have to acknowledge it (default: 60s)",
    )
    way.add_argument(
        "--soak",
        type=seconds,
        default=30.0,
        metavar="TIME",
        help="how long they must hold it before the next stage (default: 30s)",
    )
    way.add_argument(
        "--missing",
        type=_said(lambda text: Size.of(text, key="--missing")),
        default=Size(0),
        metavar="HOW-MANY",
        help="how many nodes of a stage may say nothing, a number or a percentage of all (default: 0)",
    )
    way.add_argument("--now", action="store_true", help="no stages: all nodes at once")
    way.add_argument(
        "--force", action="store_true", help="nodes take it however many rules go with it, and it may be what stands"
    )
    way.add_argument("--message", default="", metavar="TEXT", help="what is kept with the release")
    way.add_argument("--dry-run", action="store_true", help="check the rules, show the stages, and change nothing")


def _add_store(parser: ArgumentParser) -> None:
    """Add where the store is, which the configuration's etcd source says otherwise."""
    store = parser.add_argument_group("the store", "What isn't given is what the configuration's etcd source says.")
    store.add_argument("--endpoints", metavar="URLS", help="such as http://127.0.0.1:2379, with commas between several")
    store.add_argument("--prefix", metavar="KEY", help="below which all keys are")
    store.add_argument("--ca-file", metavar="FILE", help="whose certificates are trusted")
    store.add_argument("--cert-file", metavar="FILE", help="who we are")
    store.add_argument("--key-file", metavar="FILE", help="the key that goes with it")
    store.add_argument("--user", metavar="NAME", help="of etcd")
    store.add_argument("--password-file", metavar="FILE", help="a file that holds the user's password")


def seconds(text: str) -> float:
    """The seconds that a time says: a number, or one with s, m or h."""
    found = _TIME.match(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no time: seconds, or a number with s, m or h")
    return float(found[1]) * _UNITS[found[2]]


def _release(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 11 and int(text)):
        raise ArgumentTypeError(f"{text!r} is no number of a release: 'meshfw fleet status' tells them")
    return int(text)


def _said(read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader of values as argparse takes it: the option's name comes from there."""

    def value(text: str) -> T:
        try:
            return read(text)
        except ConfigError as error:
            raise ArgumentTypeError(f"{error.reason}; expected {error.expected}") from None

    return value
