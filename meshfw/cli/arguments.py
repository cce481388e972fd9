"""The arguments of every verb; the options that all verbs have may stand before or behind it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshfw.cli.explain_options import VALUED as EXPLAIN
from meshfw.cli.explain_options import add_explain
from meshfw.cli.migrate_options import add_migrate
from meshfw.cli.parsers import PROGRAM, Parser, add_verb, program
from meshfw.cli.parsers import UsageError as UsageError  # noqa: PLC0414 - whoever parses finds it here
from meshfw.cli.text_options import add_diff, add_new_plugin, add_translate
from meshfw.cli.values import duration as _duration
from meshfw.cli.values import interval as _interval
from meshfw.cli.values import name as _name
from meshfw.cli.values import seconds as _seconds
from meshfw.cli.values import state as _state

VERBS: Final = {
    "plan": "show what apply would change, and change nothing",
    "apply": "make the kernel hold the declared rules, and prove it",
    "confirm": "keep a change that is on trial, or with --undo undo it now",
    "check": "tell whether the kernel still holds the declared rules",
    "history": "list the states that were applied, to which a rollback can go back",
    "rollback": "make the kernel hold an earlier state again, the one before the last unless its number is given",
    "restore": "make the kernel hold what was applied last, without reading any source, as at boot",
    "show": "print the rules of ours that the kernel holds, or with --wanted the declared ones",
    "clean": "take all rules of ours away",
    "translate": "print a rule or a dump in nft's language, or in iptables' canonical form",
    "explain": "show which rules a packet would meet, and what would become of it",
    "diff": "compare two rulesets by meaning: dumps, rulesets of nft's, or what a host holds",
    "migrate": "move the rules of ours to another backend while packets flow, which meet all of them throughout",
    "backends": "list the backends, whether each can be used here, what stands there, and which one auto takes",
    "agent": "keep the declared rules in place, woken by events, until it is told to stop",
    "status": "ask the agent how it is: whether the rules stand, what it repaired, and who had changed them",
    "top": "watch which rules of ours count packets, and how fast",
    "graph": "draw the way of packets: hooks, dispatchers, chains and jumps, for Graphviz or as a picture",
    "service": "print the systemd units of the agent and of the restore at boot, or with --install put them in place",
    "new-plugin": "write a new backend or rule source, a whole distribution that passes its own tests",
    "demo": "watch rules being kept in place, in a throw-away network namespace",
}
WRITERS: Final = frozenset({"apply", "confirm", "rollback", "restore", "clean", "migrate"})
"""The verbs that write to the kernel and leave it so."""
COMMANDS: Final = ("iptables", "ip6tables")
"""What a whole command line to translate begins with."""
LOCK_TIMEOUT: Final = 10.0
"""Seconds that a writer waits for another one."""


def parse(argv: Sequence[str]) -> Namespace:
    """The arguments as a namespace: ``verb``, the options of all verbs, and those of the verb.

    Raises:
        UsageError: they make no command.
        SystemExit: the help or the version was asked for, and is printed.
    """
    verb = find_verb(argv)
    helped = any(word in ("-h", "--help") for word in argv)  # which lists all verbs
    parser, verbs = _parsers((verb,) if verb in VERBS and not helped else tuple(VERBS))
    if verb and verb not in VERBS:
        parser, verbs = _foreign_parsers(verb, parser)
    _refuse_early(argv, verb, parser)
    defaults = Namespace(config=None, backend=None, netns=None, json=False, verbose=False)
    arguments, unknown = parser.parse_known_args(_marked(argv), defaults)
    if unknown:
        verbs.get(arguments.verb, parser).refuse(unknown[0])
    if arguments.verb is None:
        parser.error(f"which verb? {', '.join(VERBS)}")
    if arguments.verb == "service" and not arguments.install and (arguments.root is not None or arguments.force):
        verbs["service"].error(f"{'--force' if arguments.root is None else '--root'} goes with --install")
    return arguments


def _refuse_early(argv: Sequence[str], verb: str, parser: Parser) -> None:
    """Refuse an option of a verb that stands before it, where its value would pass for the verb."""
    for word in argv[: argv.index(verb)] if verb else ():
        name = word.partition("=")[0]
        if name in _VALUED - _ANYWHERE:
            parser.error(f"{name} stands behind the verb: meshfw {verb} {name} ...")


def _parsers(names: Sequence[str]) -> tuple[Parser, Mapping[str, Parser]]:
    """The parser of the command line, and those of these verbs in it: of the one that is meant, since each costs."""
    parser, verbs = program(VERBS)
    made = {}
    for name in names:
        summary, tail = VERBS[name], _TAILS.get(name, "")
        made[name] = add_verb(verbs, name, summary=summary, usage=f"{PROGRAM} {name} [options]{tail}")
        _OWN.get(name, _add_nothing)(made[name])
    return parser, made


def _foreign_parsers(name: str, parser: Parser) -> tuple[Parser, Mapping[str, Parser]]:
    """As :func:`_parsers` for a verb that a plugin brings; ``parser`` refuses one that none brings."""
    from meshfw.cli.foreign import find_foreign

    foreign = find_foreign(name, built_in=VERBS, refuse=parser.error)
    parser, verbs = program(VERBS)
    verb = add_verb(verbs, name, summary=foreign.summary)
    verb.set_defaults(foreign=foreign)
    foreign.add_arguments(verb)
    return parser, {name: verb}


_TAILS: Final = {
    "apply": " [PLAN]",
    "rollback": " [NUMBER]",
    "translate": " [RULE ...]",
    "diff": " OLD NEW",
    "new-plugin": " backend|source NAME",
}
_FLAGS: Final = frozenset("-h --help -v --verbose --json -4 --ipv4 -6 --ipv6 --jsonl --resolve --approximate".split())
_ANYWHERE: Final = frozenset("--config --backend --netns".split())
_TRANSLATE: Final = _ANYWHERE | frozenset("-f --file --from --to --table --chain".split())
_VALUED: Final = (
    _TRANSLATE | EXPLAIN | frozenset("--lock-timeout --confirm --out --root --interval --sort --directory".split())
)
"""The options that take a word, which is no verb whatever it says."""


def find_verb(argv: Sequence[str]) -> str:
    """The word of the command line that stands where its verb does; empty where there is none."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 2 if argv[at] in _VALUED else 1
    return argv[at] if at < len(argv) else ""


def flagged(argv: Sequence[str], *names: str) -> bool:
    """Whether one of these flags is given, in a command line that needn't be right otherwise."""
    marked = _marked(argv)
    return any(name in (marked[: marked.index("--")] if "--" in marked else marked) for name in names)


def _marked(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--`` before the rule that ``translate`` is to read, whose options aren't ours.

    The rule is what begins with the first word that is no option of the command line, and goes on to the end. A word
    that holds a whole rule ends it, unless it begins with a dash.
    """
    words = list(argv)
    if find_verb(words) != "translate" or "--" in words:
        return words
    at = words.index("translate") + 1
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        name, equals, _ = words[at].partition("=")
        if name not in _FLAGS | _TRANSLATE:
            words.insert(at, "--")
            return words
        at += 2 if name in _TRANSLATE and not equals else 1
    if words[at : at + 1] and words[at] in COMMANDS:
        words.insert(at, "--")
    return words


def _add_nothing(parser: ArgumentParser) -> None:
    pass


def _add_plan(parser: ArgumentParser) -> None:
    parser.add_argument("--transaction", action="store_true", help="print exactly what would run, and nothing else")
    parser.add_argument(
        "--out", metavar="FILE", type=_name, help="keep the plan in a file as well, for 'meshfw apply FILE'"
    )


def _add_apply(parser: ArgumentParser) -> None:
    _add_writer(parser)
    parser.add_argument(
        "plan",
        nargs="?",
        metavar="PLAN",
        type=_name,
        help="a file of 'meshfw plan --out': make its changes, or none if anything has moved",
    )
    parser.add_argument(
        "--confirm",
        type=_duration,
        metavar="DURATION",
        help="undo what is changed unless it's confirmed within so long, such as 60s, 5m or 1h",
    )


def _add_rollback(parser: ArgumentParser) -> None:
    _add_writer(parser)
    parser.add_argument("number", nargs="?", metavar="NUMBER", type=_state, help="a state of 'meshfw history'")


def _add_writer(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--lock-timeout",
        type=_seconds,
        default=LOCK_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for another meshfw that writes (default: %(default)g)",
    )


def _add_confirm(parser: ArgumentParser) -> None:
    _add_writer(parser)
    parser.add_argument("--undo", action="store_true", help="undo the change now")


def _add_clean(parser: ArgumentParser) -> None:
    _add_writer(parser)
    parser.add_argument("--all-backends", action="store_true", help="out of every backend in which any of ours stand")


def _add_service(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--install", action="store_true", help="write them to /etc/systemd/system, and say what is next"
    )
    parser.add_argument(
        "--root", metavar="DIR", type=_name, help="with --install, below this directory, as of an image"
    )
    parser.add_argument(
        "--force", action="store_true", help="with --install, in place of units that somebody changed, too"
    )


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument("--wanted", action="store_true", help="the declared rules; asks no kernel")
    parser.add_argument("--nft", action="store_true", help="in nft's language")


def _add_status(parser: ArgumentParser) -> None:
    parser.add_argument("--dashboard", action="store_true", help="print a dashboard for Grafana instead; asks no agent")


def _add_top(parser: ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="print one table, of the time between two looks, and end")
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="time between two looks (default: %(default)g)",
    )
    parser.add_argument("--sort", choices=("packets", "bytes"), default="packets", help="(default: %(default)s)")


def _add_graph(parser: ArgumentParser) -> None:
    parser.add_argument("--wanted", action="store_true", help="the declared rules; asks no kernel")
    parser.add_argument("--svg", action="store_true", help="a picture, drawn by Graphviz's dot, instead of its text")


_OWN: Final[Mapping[str, Callable[[ArgumentParser], None]]] = {
    "plan": _add_plan,
    "apply": _add_apply,
    "confirm": _add_confirm,
    "rollback": _add_rollback,
    "restore": _add_writer,
    "clean": _add_clean,
    "migrate": lambda parser: add_migrate(parser, name=_name, writer=_add_writer),
    "service": _add_service,
    "show": _add_show,
    "translate": lambda parser: add_translate(parser, name=_name),
    "explain": lambda parser: add_explain(parser, name=_name),
    "diff": lambda parser: add_diff(parser, name=_name),
    "status": _add_status,
    "top": _add_top,
    "graph": _add_graph,
    "new-plugin": lambda parser: add_new_plugin(parser, name=_name),
}
