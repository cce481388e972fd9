"""What a rule source is: something that can say which rules are wanted. Several are merged into one ruleset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, runtime_checkable

import msgspec

from meshfw.errors import ConfigError
from meshfw.extensions.language import Language
from meshfw.model import DispatcherKey, Policy, Ruleset

if TYPE_CHECKING:  # a start that reads no rules doesn't need it
    from meshfw.backend import Report

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


@runtime_checkable
class Changes(Protocol):
    """Word of changes as they happen: a file descriptor to poll."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when ``load`` may give something else."""
        ...

    def drain(self) -> bool:
        """Take note of what there is, so that the descriptor waits for the next change; never blocks.

        False only where it's sure that ``load`` gives what it gave before.
        """
        ...


@runtime_checkable
class RuleSource(Protocol):
    """Something that says which rules are wanted.

    It may also have ``warnings``, a tuple of what was amiss with what the last load read, such as values passed over,
    for whoever keeps that in order: each is told once for as long as it stays the same. What is amiss with the rules
    themselves, such as that they are old, is said by :class:`Doubting`, and stands in an agent's status meanwhile.
    """

    @property
    def name(self) -> str:
        """What messages call it: a file, an address, or the like."""
        ...

    def load(self) -> Ruleset:
        """All that it wants now, whole in itself: its rules refer to no chain or set of another source.

        Raises:
            MeshfwError: it can't be had, or makes no ruleset. Never an empty ruleset for lack of an answer:
                that would take every rule away.
        """
        ...

    def changes(self) -> Changes | None:
        """Word of changes as they happen; None: load again to know."""
        ...

    def close(self) -> None:
        """Give back files and connections."""
        ...


@runtime_checkable
class Acknowledging(Protocol):
    """What a rule source has as well that wants to know what became of the rules that its last ``load`` gave.

    ``meshfw apply`` and the agent tell it, after each reconcile and from the thread that loads; both members return at
    once, whatever they have to send somewhere. What they raise is a warning.
    """

    def applied(self, report: Report) -> None:
        """The kernel holds them. Told again and again by an agent, also after a look that found nothing to do."""
        ...

    def refused(self, reason: str) -> None:
        """They aren't in place: ``load`` or that of another source raised, they were refused, failed, or were undone.

        Until they are loaded again the agent keeps what stood before. Nothing is told while a change waits to be
        confirmed.
        """
        ...


@runtime_checkable
class Doubting(Protocol):
    """What a rule source has as well that may give rules of which a person should know more."""

    def doubts(self) -> Sequence[str]:
        """What to know of the rules that the last ``load`` gave, such as that nobody could be asked since when."""
        ...


class Settings:
    """A table of the configuration being read: each key is taken once, and :meth:`finish` refuses what is left over.

    ``file`` and ``path`` say in messages where the table stands; keys in a path count from 1.
    """

    def __init__(self, table: Mapping[str, Any], *, file: str = "", path: str = "") -> None:
        self._table = dict(table)
        self._known: list[str] = []
        self.file = file
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def key(self, name: str) -> str:
        """The path of one of its keys."""
        return f"{self.path}.{name}" if self.path else name

    def error(self, reason: str, *, key: str = "", expected: str = "") -> ConfigError:
        """The error of one of its keys, or of the table itself."""
        return ConfigError(reason, file=self.file, key=self.key(key) if key else self.path, expected=expected)

    def take(self, name: str, kind: type[T], default: T, *, expected: str = "") -> T:
        """The value of a key, which must be of that type; ``default`` where it isn't given."""
        value = self.any(name)
        if value is None:
            return default
        # TOML's true is no number, although Python's is an int.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise self.error(f"{shown(value)} is {described(value)}", key=name, expected=expected or _KINDS[kind])
        return value

    def required(self, name: str, *, expected: str) -> str:
        """The value of a key that must be given: a string that isn't empty."""
        value = self.take(name, str, "", expected=expected)
        if not value:
            raise self.error(f"{name} is missing or empty", expected=f"{name} = ..., {expected}")
        return value

    def choice(self, name: str, kind: type[E], default: E | None) -> E:
        """The value of a key that is one of an enumeration's, in any case; without a default it must be given."""
        value = self.any(name)
        allowed = [item.value for item in kind]
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(f"{name} is missing", expected=f"{name} = {alternatives(map(repr, allowed))}")
        if not isinstance(value, str) or value.lower() not in allowed:
            near = suggestion(value.lower(), allowed) if isinstance(value, str) else ""
            raise self.error(f"unknown {name} {shown(value)}{near}", key=name, expected=alternatives(allowed))
        return kind(value.lower())

    def strings(self, name: str) -> tuple[str, ...]:
        """The value of a key that is a list of strings; one string stands for a list of one."""
        value = self.any(name)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            raise self.error(f"{shown(value)} is {described(value)}", key=name, expected="a list of strings")
        for index, item in enumerate(value, 1):
            if not isinstance(item, str):
                raise self.error(f"{shown(item)} is {described(item)}", key=f"{name}[{index}]", expected="a string")
        return tuple(value)

    def tables(self, name: str) -> tuple[Settings, ...]:
        """The value of a key that is a list of tables; one table stands for a list of one."""
        value = self.any(name)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        found = []
        for index, item in enumerate(listed, 1):
            path = self.key(f"{name}[{index}]") if isinstance(value, list) else self.key(name)
            if not isinstance(item, dict):
                raise ConfigError(f"{shown(item)} is {described(item)}", file=self.file, key=path, expected="a table")
            found.append(Settings(item, file=self.file, path=path))
        return tuple(found)

    def any(self, name: str) -> Any:
        """The value of a key, whatever it is; None where it isn't given."""
        self._known.append(name)
        return self._table.pop(name, None)

    def rest(self) -> Mapping[str, Any]:
        """The keys not taken yet, which are taken by this."""
        left, self._table = self._table, {}
        return left

    def finish(self) -> None:
        """Refuse keys that nobody took."""
        for name in self._table:
            near = suggestion(name, self._known)
            raise self.error(f"unknown key{near}", key=name, expected=alternatives(self._known or ["no key"]))


_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


def described(value: object) -> str:
    """What a value of TOML is, in TOML's words."""
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", dict: "a table", list: "a list"}
    return kinds.get(type(value), "a date or time")


def shown(value: object, *, longest: int = 40) -> str:
    """A value of TOML as a message shows it, shortened."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` where one of the known words is near; empty where none is."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def alternatives(words: Iterable[str]) -> str:
    """The words as ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """One ``[[source]]`` table as its factory gets it.

    ``options`` is the table without ``type``; ``path`` its key path and ``file`` the configuration's file, for messages
    (:meth:`settings` reads the options with both); ``tables`` has the configuration's own ``chain`` and ``set`` tables.
    """

    options: Mapping[str, Any]
    language: Language
    file: str = ""
    path: str = "source"
    tables: Mapping[str, Any] = {}

    def settings(self) -> Settings:
        """The options, to be taken key by key."""
        return Settings(self.options, file=self.file, path=self.path)

    def beside(self, path: str) -> str:
        """A path of a file; a relative one is relative to the configuration's file."""
        import os

        return os.path.normpath(os.path.join(os.path.dirname(self.file), path)) if self.file else path


# --- merging -----------------------------------------------------------------------------------------------


def merge(parts: Sequence[tuple[str, Ruleset]]) -> Ruleset:
    """One ruleset out of those of several sources, each given with its source's name.

    Raises:
        ConfigError: two sources declare one chain or set, or state different policies for one hook and place.
    """
    if len(parts) == 1:
        return parts[0][1]
    owners: dict[str, str] = {}
    policies: dict[DispatcherKey, tuple[Policy, str]] = {}
    for source, ruleset in parts:
        for what in _declared(ruleset):
            other = owners.setdefault(what, source)
            if other != source:
                raise ConfigError(f"{what} is declared in {other} and in {source}", expected="it in one source alone")
        for dispatcher in ruleset.dispatchers():
            _one_policy(policies, dispatcher.key, dispatcher.policy, source)
    rulesets = [ruleset for _, ruleset in parts]
    return Ruleset(
        chains=tuple(chain for ruleset in rulesets for chain in ruleset.chains),
        sets=tuple(entry for ruleset in rulesets for entry in ruleset.sets),
        attachments=tuple(attachment for ruleset in rulesets for attachment in ruleset.attachments),
    )


def _declared(ruleset: Ruleset) -> Iterator[str]:
    for chain in ruleset.chains:
        yield f"chain {chain.key}"
    for entry in ruleset.sets:
        yield f"set {entry.family} {entry.name}"


def _one_policy(
    policies: dict[DispatcherKey, tuple[Policy, str]], key: DispatcherKey, policy: Policy, source: str
) -> None:
    if policy is Policy.RETURN:
        return
    before, other = policies.setdefault(key, (policy, source))
    if before is not policy:
        raise ConfigError(
            f"{other} has policy {before} for {key}, {source} has {policy}", expected="one policy for a hook and place"
        )
