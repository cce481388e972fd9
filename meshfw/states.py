"""States: a ruleset as it was applied, as a document that outlasts a run, and the digest of what it means.

A document's tables have the shape of the configuration's own ``[[chain]]`` and ``[[set]]`` tables, each for one family.
What a rule's text can't say exactly (a jump to a chain that is called like a target, words of an opaque match that look
like options) stands beside the text. Names that a host gives to numbers aren't used, so another host reads the same.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec

from meshfw.errors import ModelError, ParseError, StateError
from meshfw.extensions.extension import HostTables
from meshfw.extensions.language import Language
from meshfw.languages.iptables import OPAQUE_TARGETS, format_rule, parse_rule
from meshfw.model import (
    Attachment,
    Chain,
    ElementType,
    Family,
    Hook,
    Jump,
    OpaqueMatch,
    OpaqueTarget,
    Place,
    Policy,
    Rule,
    Ruleset,
    Set,
    Table,
)
from meshfw.sealed import seal, unseal
from meshfw.snapshot import Snapshot

KIND: Final = "state"
VERSION: Final = 1
"""The version of the document; another one is refused."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A ruleset that was applied: whose, by which backend, in which namespace (as named; None: the caller's), and why.

    ``time`` is in seconds since the epoch. An empty ruleset says that nothing is wanted.
    """

    owner: str
    backend: str
    netns: str | None = None
    ruleset: Ruleset = Ruleset()
    time: float = 0.0
    reason: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a state's document says of itself, readable without its rules; ``digest`` is its ruleset's."""

    owner: str
    backend: str
    netns: str | None
    time: float
    reason: str
    rules: int
    digest: str


class _Opaque(msgspec.Struct, frozen=True, kw_only=True):
    """An opaque match and its index among the matches of its rule, or an opaque target."""

    name: str
    words: tuple[str, ...] = ()
    at: int = 0


class _Exact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rule whose text alone would be read as another one: the text of the rest, and what isn't in it."""

    text: str = ""
    matches: tuple[_Opaque, ...] = ()
    target: _Opaque | None = None
    jump: str = ""


_Text = str | _Exact


class _Attach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    hook: Hook
    place: Place = Place.FIRST
    rank: int = 0
    policy: Policy = Policy.RETURN
    when: _Text = ""


class _Chain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    name: str
    table: Table
    families: Family
    attach: tuple[_Attach, ...] = ()
    rules: tuple[_Text, ...] = ()


class _Set(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    type: ElementType
    families: Family
    intervals: bool
    elements: tuple[str, ...] = ()


class _Content(Summary, frozen=True, kw_only=True, forbid_unknown_fields=True):
    set: tuple[_Set, ...] = ()
    chain: tuple[_Chain, ...] = ()


# --- writing -----------------------------------------------------------------------------------------------


def format_state(state: State, language: Language, *, said: str = "") -> bytes:
    """The document of a state; ``said`` is its ruleset's digest where that is known already.

    Raises:
        StateError: the language has no words for a rule of it.
    """
    ruleset = state.ruleset
    writer = _Writer(msgspec.structs.replace(language, hosts=HostTables()))
    content = _Content(
        **{name: getattr(state, name) for name in State.__struct_fields__ if name != "ruleset"},
        rules=sum(len(chain.rules) for chain in ruleset.chains),
        digest=said or digest(ruleset),
        set=tuple(map(_written_set, ruleset.sets)),
        chain=writer.chains(ruleset),
    )
    return seal(content, kind=KIND, version=VERSION)


def _written_set(entry: Set) -> _Set:
    elements = tuple(entry.text(low, high) for low, high in entry.elements)
    return _Set(name=entry.name, type=entry.type, families=entry.family, intervals=entry.intervals, elements=elements)


class _Writer:
    """The words of rules."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._targets = frozenset(language.targets) | OPAQUE_TARGETS

    def chains(self, ruleset: Ruleset) -> tuple[_Chain, ...]:
        attached: dict[Any, list[_Attach]] = {}
        for item in ruleset.attachments:
            written = _Attach(
                hook=item.hook,
                place=item.place,
                rank=item.rank,
                policy=item.policy,
                when=self._text(item.when, item.family),
            )
            attached.setdefault((item.family, item.table, item.chain), []).append(written)
        return tuple(
            _Chain(
                name=chain.name,
                table=chain.table,
                families=chain.family,
                attach=tuple(attached.get((chain.family, chain.table, chain.name), ())),
                rules=tuple(self._text(rule, chain.family) for rule in chain.rules),
            )
            for chain in ruleset.chains
        )

    def _text(self, rule: Rule, family: Family) -> _Text:
        try:
            text = format_rule(rule, family=family, language=self._language)
        except KeyError as error:
            raise StateError(f"no extension has words for {error.args[0]!r}") from None
        if not self._doubtful(rule) or self._reads_as(text, rule, family):
            return text
        return self._exact(rule, family)

    def _doubtful(self, rule: Rule) -> bool:
        """Whether its text might be read as another rule."""
        target = rule.target
        named = isinstance(target, OpaqueTarget) or (isinstance(target, Jump) and target.chain in self._targets)
        return named or any(isinstance(match, OpaqueMatch) for match in rule.matches)

    def _reads_as(self, text: str, rule: Rule, family: Family) -> bool:
        try:
            return parse_rule(text, family=family, language=self._language) == rule
        except ParseError:
            return False

    def _exact(self, rule: Rule, family: Family) -> _Exact:
        opaque = tuple(
            _Opaque(name=match.name, words=match.words, at=index)
            for index, match in enumerate(rule.matches)
            if isinstance(match, OpaqueMatch)
        )
        target = rule.target
        apart = isinstance(target, Jump | OpaqueTarget)
        rest = msgspec.structs.replace(
            rule,
            matches=tuple(match for match in rule.matches if not isinstance(match, OpaqueMatch)),
            target=None if apart else target,
        )
        return _Exact(
            text=format_rule(rest, family=family, language=self._language),
            matches=opaque,
            target=_Opaque(name=target.name, words=target.words) if isinstance(target, OpaqueTarget) else None,
            jump=target.chain if isinstance(target, Jump) else "",
        )


# --- reading -----------------------------------------------------------------------------------------------


def parse_state(document: bytes, language: Language, *, owner: str = "") -> State:
    """The state of a document; ``owner`` is whose it must be, where that matters.

    Raises:
        StateError: it is cut off, damaged, of another version or owner, or holds a rule that can't be read here.
    """
    content = _content(document, _Content, owner)
    try:
        ruleset = _Reader(language).ruleset(content)
    except (ModelError, ParseError) as error:
        raise StateError(f"a rule of it can't be read here: {error}") from None
    said = {name: getattr(content, name) for name in State.__struct_fields__ if name != "ruleset"}
    return State(ruleset=ruleset, **said)


def parse_summary(document: bytes, *, owner: str = "") -> Summary:
    """What a state's document says of itself; StateError as for :func:`parse_state`, but its rules aren't read."""
    return _content(document, Summary, owner)


_C = TypeVar("_C", bound=Summary)


def _content(document: bytes, kind: type[_C], owner: str) -> _C:
    try:
        content = msgspec.json.decode(unseal(document, kind=KIND, version=VERSION), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"it holds no state: {error}") from None
    if owner and content.owner != owner:
        raise StateError(f"it is a state of owner {content.owner!r}, not of {owner!r}")
    return content


class _Reader:
    """The rules of texts; one that stands there often is read once."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._read: dict[tuple[Family, str], Rule] = {}

    def ruleset(self, content: _Content) -> Ruleset:
        return Ruleset(
            chains=tuple(
                Chain(
                    family=chain.families,
                    table=chain.table,
                    name=chain.name,
                    rules=tuple(self._rule(rule, chain.families) for rule in chain.rules),
                )
                for chain in content.chain
            ),
            sets=tuple(
                Set.of(entry.families, entry.name, entry.elements, type=entry.type, intervals=entry.intervals)
                for entry in content.set
            ),
            attachments=tuple(
                Attachment(
                    family=chain.families,
                    table=chain.table,
                    hook=item.hook,
                    chain=chain.name,
                    place=item.place,
                    rank=item.rank,
                    policy=item.policy,
                    when=self._rule(item.when, chain.families),
                )
                for chain in content.chain
                for item in chain.attach
            ),
        )

    def _rule(self, written: _Text, family: Family) -> Rule:
        text = written if isinstance(written, str) else written.text
        rule = self._read.get((family, text))
        if rule is None:
            rule = self._read[family, text] = parse_rule(text, family=family, language=self._language)
        return rule if isinstance(written, str) else _completed(rule, written)


def _completed(rule: Rule, written: _Exact) -> Rule:
    """The rule with what its text couldn't say."""
    matches = list(rule.matches)
    for opaque in written.matches:
        matches.insert(opaque.at, OpaqueMatch(opaque.name, opaque.words))
    target = rule.target
    if written.target is not None:
        target = OpaqueTarget(written.target.name, written.target.words)
    elif written.jump:
        target = Jump(written.jump)
    return msgspec.structs.replace(rule, matches=tuple(matches), target=target)


# --- digests -----------------------------------------------------------------------------------------------


def digest(ruleset: Ruleset) -> str:
    """A short text that is the same for equal rulesets, in any process, and different for others."""
    told = _Teller()
    told.tell(*((chain.key, len(chain.rules)) for chain in ruleset.chains))
    for chain in ruleset.chains:
        told.rules(chain.rules)
    told.tell(*ruleset.sets)
    for item in ruleset.attachments:
        told.tell(item.dispatcher, item.chain, item.rank, item.policy)
        told.rules((item.when,))
    return told.digest()


def snapshot_digest(snapshot: Snapshot) -> str:
    """A short text that is the same for snapshots of which every plan is the same; counters and handles don't count."""
    told = _Teller()
    for key in sorted(snapshot.lists, key=lambda key: (type(key).__name__, key)):
        held = snapshot.lists[key]
        told.tell(key, len(held.rules), held.policies, held.faults)
        for entry in held.rules:
            if entry.rule is None:
                told.tell(entry.text)
            else:
                told.rules((entry.rule,))
    told.tell(*(snapshot.sets[key] for key in sorted(snapshot.sets)))
    told.tell(sorted(snapshot.broken.items()))
    told.tell(sorted((str(key), where) for key, where in snapshot.strangers.items()))
    return told.digest()


class _Teller:
    """A hash over values, each told in one way however sets are ordered in this process."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._told: dict[Any, str] = {}

    def tell(self, *values: Any) -> None:
        for value in values:
            self._hash.update(_canonical(value).encode("utf-8", "surrogatepass"))
        self._hash.update(b"\n")

    def rules(self, rules: tuple[Rule, ...]) -> None:
        """Rules by their meaning; the parts of most rules are those of others too."""
        for rule in rules:
            text = ";".join(map(self._part, rule.key()))
            self._hash.update(text.encode("utf-8", "surrogatepass"))
            self._hash.update(b"\n")

    def _part(self, part: Any) -> str:
        if type(part) is frozenset:
            return f"{{{','.join(sorted(map(self._part, part)))}}}"
        told = self._told.get((type(part), part))
        if told is None:
            told = self._told[type(part), part] = _canonical(part)
        return told

    def digest(self) -> str:
        return self._hash.hexdigest()


def _canonical(value: Any) -> str:
    """The one text of a value of the model, the same for equal ones."""
    kind = type(value)
    if kind is str or kind is int:
        return repr(value)
    if kind is tuple:
        return f"[{','.join([_canonical(item) for item in value])}]"
    if isinstance(value, bool):
        return repr(int(value))
    if isinstance(value, Enum):
        return repr(value.value)
    if isinstance(value, msgspec.Struct):
        fields = ",".join([_canonical(getattr(value, field)) for field in value.__struct_fields__])
        return f"{kind.__qualname__}({fields})"
    if isinstance(value, list):
        return _canonical(tuple(value))
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_canonical, value)))}}}"
    return repr(value)
