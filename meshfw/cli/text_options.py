"""The options of the verbs that work on texts and change no kernel: ``translate``, ``diff`` and ``new-plugin``."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable

Name = Callable[[str], str]
"""What takes a name that mustn't be empty."""


def add_translate(parser: ArgumentParser, *, name: Name) -> None:
    """Add the options and the rule of ``translate``."""
    parser.add_argument(
        "rule", nargs="*", metavar="RULE", help="a rule, in one word or in several; - is standard input"
    )
    parser.add_argument(
        "-f", "--file", metavar="FILE", type=name, help="a file with a rule on each line, or with a dump"
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=("rules", "script", "dump", "nft"),
        help="what it is, nft's as text or JSON (default: as it looks)",
    )
    parser.add_argument("--to", choices=("nft", "iptables"), default="nft", help="the language (default: %(default)s)")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="where nft can't say something, print what comes near, if anything does, with a warning",
    )
    parser.add_argument("--resolve", action="store_true", help="look host names up, which are refused otherwise")
    parser.add_argument(
        "--jsonl", action="store_true", help="read one JSON object a line with a rule, and answer each with another"
    )
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", "--ipv4", dest="family", action="store_const", const="ipv4", help="an IPv4 rule")
    family.add_argument("-6", "--ipv6", dest="family", action="store_const", const="ipv6", help="an IPv6 rule")
    parser.add_argument("--table", help="iptables' table of the rule, for the whole nft command")
    parser.add_argument("--chain", help="the rule's chain, for the whole nft command")


def add_diff(parser: ArgumentParser, *, name: Name) -> None:
    """Add the options and the two rulesets of ``diff``."""
    what = "a file with a dump or a ruleset of nft's, - for standard input, live:nft, live:iptables-nft, or "
    parser.add_argument("old", metavar="OLD", type=name, help=f"{what}live:iptables-legacy for everybody's rules here")
    parser.add_argument("new", metavar="NEW", type=name, help="the same")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", "--ipv4", dest="family", action="store_const", const="ipv4", help="IPv4 alone")
    family.add_argument("-6", "--ipv6", dest="family", action="store_const", const="ipv6", help="IPv6 alone")


def add_new_plugin(parser: ArgumentParser, *, name: Name) -> None:
    """Add the options, the kind and the name of ``new-plugin``."""
    parser.add_argument("kind", choices=("backend", "source"), help="what the plugin brings")
    parser.add_argument("name", metavar="NAME", type=name, help="what configurations will call it, such as 'my-fw'")
    parser.add_argument(
        "--directory", metavar="DIR", type=name, default=".", help="where it is put, as meshfw-NAME (default: here)"
    )
