"""The rule source ``friends``: the hosts of a list may come in.

The list is a file of addresses and networks of both families, one on a line; ``#`` begins a comment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from meshfw import (
    ACCEPT,
    Attachment,
    Chain,
    Changes,
    ConfigError,
    Declaration,
    Family,
    FileChanges,
    Hook,
    ModelError,
    Network,
    ParseError,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Table,
)

CHAIN = "friends"
"""The name of the chain, and of the set of addresses, in each family."""


class FriendsSource:
    """The rules of one file; the protocol is that of ``meshfw.RuleSource``."""

    def __init__(self, declaration: Declaration) -> None:
        # Nothing is read here. Whatever the table says wrong is an error with the configuration's file and the key.
        settings = declaration.settings()
        self.name = declaration.beside(settings.required("file", expected="the path of a list of addresses"))
        settings.finish()
        self._changes: FileChanges | None = None

    def load(self) -> Ruleset:
        """A set of addresses and a chain that accepts them, attached to the input hook, for each family.

        Raises:
            ConfigError: the file can't be read. An empty list is an answer: nobody may come in.
            ParseError: a line is no address, with file and line.
        """
        addresses: dict[Family, list[str]] = {family: [] for family in Family}
        for number, text in self._lines():
            try:
                family = Network.parse(text).family
                Set.of(family, CHAIN, [text])
            except ModelError as error:
                expected = "an address, or an address and a prefix length"
                raise ParseError(error.reason, source=self.name, line=number, expected=expected) from error
            addresses[family].append(text)
        chains, sets, attachments = [], [], []
        rule = Rule(source=SetRef(CHAIN), target=ACCEPT)
        for family, texts in addresses.items():
            sets.append(Set.of(family, CHAIN, texts, intervals=True))  # ... so that a range may come any time
            chains.append(Chain(family=family, table=Table.FILTER, name=CHAIN, rules=(rule,)))
            attachments.append(Attachment(family=family, table=Table.FILTER, hook=Hook.INPUT, chain=CHAIN))
        return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            with open(self.name, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"can't be read: {error}", file=self.name, expected="a list of addresses") from error
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text:
                yield number, text

    def changes(self) -> Changes | None:
        """Word of changes of the file; None where the system can't tell, and the agent looks now and then."""
        if self._changes is None:
            with suppress(OSError):
                self._changes = FileChanges([self.name])
        return self._changes

    def close(self) -> None:
        """Listen no longer."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None
