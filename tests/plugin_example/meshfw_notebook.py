"""An example of a plugin, made of meshfw's public names alone: one of everything that a plugin can bring.

The backend ``notebook`` keeps the rules in a file instead of a kernel, the source ``blocklist`` drops what comes from
the addresses of a text file, the match ``link`` adds a condition, the verb ``leaf`` prints the file, and every
reconcile is noted in a journal.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterable

from meshfw import (
    DROP,
    Attachment,
    BackendPlugin,
    Cache,
    Capabilities,
    Chain,
    Codec,
    CommandPlugin,
    Committed,
    ConfigError,
    Declaration,
    Extension,
    Family,
    Fingerprint,
    Hook,
    ListKey,
    Match,
    MemoryBackend,
    MemoryKernel,
    ModelError,
    NftMatch,
    Observed,
    Option,
    ParseContext,
    Plan,
    Report,
    Rule,
    Ruleset,
    Set,
    SetRef,
    Site,
    SourcePlugin,
    Table,
    Transaction,
    Unsupported,
    find_config,
    hookimpl,
    load_config,
)

# --- a backend ---------------------------------------------------------------------------------------------


class Notebook:
    """A backend that keeps what the memory backend holds in a JSON file, one text for each family."""

    api_version = 1
    name = "notebook"

    def __init__(self, site: Site) -> None:
        file = site.options.get("file")
        if not isinstance(file, str):
            raise ConfigError("no file is named", key="backend.notebook.file", expected="the path of a file to write")
        self._file = file
        self._kernel = MemoryKernel()
        if os.path.exists(file):
            with open(file, encoding="utf-8") as page:
                for family, text in json.load(page).items():
                    self._kernel.write(Family(family), text)
        options = {"kernel": self._kernel}
        self._memory = MemoryBackend(Site(owner=site.owner, language=site.language, options=options))

    @property
    def capabilities(self) -> Capabilities:
        return self._memory.capabilities

    @property
    def cache(self) -> Cache:
        return self._memory.cache

    def check(self, ruleset: Ruleset) -> tuple[Unsupported, ...]:
        return self._memory.check(ruleset)

    def fingerprint(self) -> Fingerprint | None:
        return self._memory.fingerprint()

    def observe(self, keys: Collection[ListKey | tuple[Family, str]] | None = None) -> Observed:
        return self._memory.observe(keys)

    def compile(self, plan: Plan) -> Transaction:
        return self._memory.compile(plan)

    def commit(self, transaction: Transaction, *, based_on: Fingerprint | None) -> Committed:
        committed = self._memory.commit(transaction, based_on=based_on)
        new = f"{self._file}.new"
        with open(new, "w", encoding="utf-8") as page:
            json.dump({family.value: self._kernel.text(family) for family in Family}, page)
        os.replace(new, self._file)
        return committed

    def watch(self) -> None:
        return None

    def close(self) -> None:
        self._memory.close()


# --- a source of rules -------------------------------------------------------------------------------------


class Blocklist:
    """A source that drops whatever comes from the addresses of a text file, one on each line."""

    def __init__(self, declaration: Declaration) -> None:
        settings = declaration.settings()
        self.name = declaration.beside(settings.required("file", expected="the path of a list of addresses"))
        settings.finish()

    def load(self) -> Ruleset:
        try:
            with open(self.name, encoding="utf-8") as lines:
                addresses = [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"can't be read: {error}", file=self.name, expected="a list of addresses") from error
        rule = Rule(source=SetRef("blocked"), target=DROP)
        chains, sets, attachments = [], [], []
        for family in Family:
            own = [text for text in addresses if (":" in text) is (family is Family.IPV6)]
            try:
                sets.append(Set.of(family, "blocked", own))
            except ModelError as error:
                raise ConfigError(error.reason, file=self.name, expected="an address on each line") from error
            chains.append(Chain(family=family, table=Table.RAW, name="blocked", rules=(rule,)))
            attachments.append(Attachment(family=family, table=Table.RAW, hook=Hook.PREROUTING, chain="blocked"))
        return Ruleset(chains=tuple(chains), sets=tuple(sets), attachments=tuple(attachments))

    def changes(self) -> None:
        return None

    def close(self) -> None:
        pass


# --- an extension of the language --------------------------------------------------------------------------


class Link(Match, frozen=True):
    """The type of the link that the packet came by, as linux/if_arp.h has them (nft(8), meta iiftype)."""

    link: int


def _number(text: str, context: ParseContext) -> int:
    if not text.isdigit():
        raise ModelError(f"{text!r} is no number")
    return int(text)


def _nft(left: str, value: int, negated: bool) -> str:
    return f"{left} != {value}" if negated else f"{left} {value}"


def _read(match: NftMatch) -> int:
    return int(match.right)


LINK = Extension(
    name="link",
    value=Link,
    options=(
        Option(
            "--link",
            "link",
            Codec(_number, str, "a link type's number", _nft, _read),
            invertible=True,
            nft="meta iiftype",
        ),
    ),
)


# --- a verb of the command line ----------------------------------------------------------------------------


def _add_leaf(parser: ArgumentParser) -> None:
    parser.add_argument("--family", choices=[family.value for family in Family], default="ipv4", help="which rules")


def _leaf(arguments: Namespace) -> int:
    path = find_config(arguments.config)
    options = load_config(path).options.get("notebook", {}) if path else {}
    file = options.get("file")
    if not isinstance(file, str) or not os.path.exists(file):
        raise ConfigError("no page is written yet", key="backend.notebook.file", expected="'meshfw apply' first")
    with open(file, encoding="utf-8") as page:
        text = json.load(page)[arguments.family]
    sys.stdout.write(json.dumps({"text": text}) if arguments.json else text)
    return 0


# --- the hooks ---------------------------------------------------------------------------------------------


@hookimpl
def meshfw_backends() -> Iterable[BackendPlugin]:
    return (
        BackendPlugin(name="notebook", factory=Notebook, summary="rules in a file, for a look at them", api_version=1),
    )


@hookimpl
def meshfw_sources() -> Iterable[SourcePlugin]:
    return (SourcePlugin(name="blocklist", factory=Blocklist, summary="addresses to drop", api_version=1),)


@hookimpl
def meshfw_extensions() -> Iterable[Extension]:
    return (LINK,)


@hookimpl
def meshfw_commands() -> Iterable[CommandPlugin]:
    return (CommandPlugin(name="leaf", run=_leaf, add_arguments=_add_leaf, summary="print the page", api_version=1),)


@hookimpl
def meshfw_reconciled(report: Report) -> None:
    journal = os.environ.get("MESHFW_NOTEBOOK_JOURNAL")
    if journal is not None:
        with open(journal, "a", encoding="utf-8") as page:
            page.write(f"{report.backend}: {report.outcome}\n")
