"""The verb ``translate``: rules, scripts and whole dumps of iptables or nft, in nft's language or iptables'."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from meshfw.cli.arguments import COMMANDS
from meshfw.cli.output import for_tools, print_json, warn
from meshfw.cli.rulesets import STDIN, dumps_of, kind_of, notes_of, read_text, resolving
from meshfw.errors import FamilyParseError, InexpressibleError, ParseError, TranslationError
from meshfw.extensions.language import Language
from meshfw.languages.dump import Dump, format_dump, hook_of, ruleset_of_dump
from meshfw.languages.iptables import format_rule, parse_rules
from meshfw.languages.lexer import Word, refuse_apostrophes, split
from meshfw.languages.nft import FAMILIES, SPOKEN_NAMES, render_rule, render_tables
from meshfw.languages.shell import statements
from meshfw.model import Family, Rule, Table
from meshfw.translation import Place, misplaced
from meshfw.workshop import Workshop

_COMMANDS = dict(zip(COMMANDS, Family, strict=True))


class _Line(msgspec.Struct, frozen=True):
    """One rule to translate: its words, and what its command line said of family, table and chain."""

    words: Sequence[Word]
    text: str = ""
    source: str = ""
    line: int = 0
    family: Family | None = None
    table: str = ""
    chain: str = ""
    command: str = "add"


def run(arguments: Namespace) -> int:
    """0 when all of it could be translated; of a stream, when all of it was answered."""
    language = Workshop(arguments, needed=False, sources=False).language
    if arguments.resolve:
        language = resolving(language)
    family = Family(arguments.family) if arguments.family else None
    if arguments.jsonl:
        return _stream(arguments, language, family)
    text, source = _input(arguments)
    kind = arguments.source or ("rules" if text is None else kind_of(text))
    if text is not None and kind != "rules":
        dumps = dumps_of(text, kind=kind, language=language, family=family, source=source)
        if not any(dump.tables or dump.notes for dump in dumps.values()):
            raise _nothing(source)
        return _whole(dumps, arguments, language)
    lines = _lines(text, source) if text is not None else [_line([Word(word) for word in arguments.rule])]
    translated = [_translated(line, family, arguments, language) for line in lines]
    if arguments.json:
        print_json({"rules": [{"family": found, "text": rule} for found, rule in translated]})
    else:
        print(for_tools("".join(f"{rule}\n" for _, rule in translated)), end="")
    return 0


def _stream(arguments: Namespace, language: Language, family: Family | None) -> int:
    from meshfw.cli import jsonl

    if arguments.rule not in ([], ["-"]):
        raise ParseError(f"{arguments.rule[0]!r} comes beside --jsonl", expected="-f FILE or standard input")
    terms = jsonl.Terms(language=language, nft=arguments.to == "nft", approximate=arguments.approximate, family=family)
    if not arguments.file:
        return jsonl.run(sys.stdin.buffer, terms)
    with open(arguments.file, "rb") as file:
        return jsonl.run(file, terms)


def _input(arguments: Namespace) -> tuple[str | None, str]:
    """The text to translate and its name; no text where the rule came as separate words."""
    if arguments.file:
        if arguments.rule:
            raise ParseError(f"{arguments.rule[0]!r} comes beside a file", expected="a rule or -f FILE, not both")
        return read_text(arguments.file), arguments.file
    if arguments.rule in ([], ["-"]):
        return read_text(STDIN), STDIN
    return (arguments.rule[0].strip(), "") if len(arguments.rule) == 1 else (None, "")


# --- whole rulesets ----------------------------------------------------------------------------------------


def _whole(dumps: Mapping[Family, Dump], arguments: Namespace, language: Language) -> int:
    """Print dumps in the language asked for; ``TranslationError`` for what it can't say."""
    warnings: list[str] = []
    texts: dict[Family, str] = {}
    for dump in dumps.values():
        ruleset_of_dump(dump)  # what can't stand as a whole, such as a jump to nowhere, is refused by its place
    if arguments.to == "iptables":
        texts = {family: format_dump(dump, language=language) for family, dump in dumps.items()}
        if len(texts) > 1 and not arguments.json:
            raise ParseError(
                "it holds rules of both families, and one restore would put the one in place of the other",
                expected="-4 or -6",
            )
        text = "".join(texts.values())
    else:
        rendered = [
            render_tables(dump, language=language, approximate=arguments.approximate) for dump in dumps.values()
        ]
        untold = [item for tables in rendered for item in tables.untold]
        if untold:
            raise TranslationError("nft", untold)
        text = "".join(tables.text for tables in rendered)
        warnings = [warning for tables in rendered for warning in tables.warnings]
    warnings += [*_losses(dumps), *notes_of(dumps)]
    if arguments.json:
        print_json({"text": text, "warnings": warnings, **({"texts": texts} if len(texts) > 1 else {})})
        return 0
    warn(warnings)
    print(for_tools(text), end="")
    return 0


def _losses(dumps: Mapping[Family, Dump]) -> list[str]:
    """What of the dumps iptables itself would store as something else."""
    return [
        f"{table.table} {chain.name} rule {number}: {loss.text}"
        for dump in dumps.values()
        for table in dump.tables
        for chain in table.chains
        for number, entry in enumerate(chain.rules, 1)
        for loss in entry.rule.losses()
    ]


# --- rules by themselves -----------------------------------------------------------------------------------


def _lines(text: str, source: str) -> list[_Line]:
    """The rules of a text, one on each line that isn't empty or a comment."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            found.append(_command(line, source, number if source else 0))
    if not found:
        raise _nothing(source)
    return found


def _nothing(source: str) -> ParseError:
    """The refusal of a text that holds no rules: as good as all of them come of a mistake."""
    return ParseError("there is nothing to translate", source=source, expected="a rule or a dump")


def _command(text: str, source: str, number: int) -> _Line:
    """One line: a rule alone, or behind ``iptables``, ``-t TABLE`` and ``-A CHAIN``."""
    try:
        words = _words(text)
    except ParseError as error:
        raise ParseError(
            error.reason, text=text, source=source, line=number, column=error.column, expected=error.expected
        ) from None
    return _line(words, text, source, number)


def _words(text: str) -> Sequence[Word]:
    """The words of a line: as a shell has them where a command begins it, else as iptables-restore does."""
    head = text.split(None, 1)[:1]
    if head and head[0] in _COMMANDS:
        held = statements(text)
        if len(held) != 1:
            raise ParseError("several commands on one line", expected="one, or --from script")
        return held[0].words
    words = split(text)
    refuse_apostrophes(words)
    return words


def _line(words: Sequence[Word], text: str = "", source: str = "", number: int = 0) -> _Line:
    family, table, chain, command = None, "", "", "add"
    while words:
        head = words[0].text
        if head in _COMMANDS:
            family, words = _COMMANDS[head], words[1:]
        elif head in ("-t", "--table") and len(words) > 1:
            table, words = words[1].text, words[2:]
        elif head in ("-A", "--append", "-I", "--insert") and len(words) > 1:
            chain, words = words[1].text, words[2:]
            command = "add" if head in ("-A", "--append") else "insert"
        else:
            break
    return _Line(words, text, source, number, family, table, chain, command)


def _translated(line: _Line, family: Family | None, arguments: Namespace, language: Language) -> tuple[Family, str]:
    """The rules' family and their text, one on a line for each rule that the line stands for."""
    found, rules = _parsed(line, family or line.family, language)
    chain = arguments.chain or line.chain
    table = arguments.table or line.table or (Table.FILTER if chain else "")
    _refuse_misplaced(line, rules, Place(table, chain))
    losses = [loss.text for rule in rules for loss in rule.losses()]
    if arguments.to == "iptables":
        head = f"-{'A' if line.command == 'add' else 'I'} {chain} " if chain else ""
        warn(losses)
        return found, "\n".join(
            f"{head}{format_rule(rule, family=found, language=language)}".rstrip() for rule in rules
        )
    hook = hook_of(chain, Table(table)) if table else None
    try:
        render = partial(
            render_rule,
            family=found,
            language=language,
            names=SPOKEN_NAMES,
            hook=hook,
            approximate=arguments.approximate,
        )
        said = [render(rule) for rule in rules]
        meters: set[str] = set()
        for text in said:
            text.claim_meters(meters)
    except InexpressibleError as error:
        raise ParseError(
            f"nft has no way to say this: {error.reason}", text=line.text, source=line.source, line=line.line
        ) from None
    warn([*losses, *(told for text in said for told in text.warnings)])
    objects = dict.fromkeys(
        held.command(FAMILIES[found], table or Table.FILTER) for text in said for held in text.objects
    )
    head = f"{line.command} rule {FAMILIES[found]} {table} {SPOKEN_NAMES.chain(chain)} " if chain else ""
    return found, "\n".join((*objects, *(f"{head}{text}" for text in said)))


def _refuse_misplaced(line: _Line, rules: Sequence[Rule], place: Place) -> None:
    for rule in rules:
        why = misplaced(rule, place)
        if why:
            raise ParseError(why, text=line.text, source=line.source, line=line.line)


def _parsed(line: _Line, family: Family | None, language: Language) -> tuple[Family, tuple[Rule, ...]]:
    """The rules in the family asked for, or else in the first that they fit."""
    refusals: list[ParseError] = []
    for candidate in [family] if family else Family:
        try:
            return candidate, parse_rules(line.words, family=candidate, language=language)
        except ParseError as error:
            refusals.append(error)
    # A rule of the other family isn't worth a word where the other family refuses it for a reason of its own.
    first = next((refusal for refusal in refusals if not isinstance(refusal, FamilyParseError)), refusals[0])
    raise type(first)(
        first.reason,
        text=line.text,
        source=line.source,
        line=line.line,
        column=first.column if line.text else 0,
        expected=first.expected,
    )
