"""What an extension is: one match or target, its iptables options and its nft expression, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshfw.errors import ModelError
from meshfw.model import Family, Hook, Match, Not, Rule, Target

Resolve = Callable[[str, Family], tuple[int, ...]]
"""The addresses of a host or network by its name, none where it has none; ``ModelError`` where it can't be asked."""


class HostTables(msgspec.Struct, frozen=True):
    """Names that a host gives to numbers (services(5), protocols(5)); passed in, never looked up."""

    services: Mapping[tuple[str, str], int] = {}
    """(service or alias, protocol name) to port."""
    protocols: Mapping[str, int] = {}
    """Protocol name or alias, lower case, to number."""
    users: Mapping[str, int] = {}
    """User name to number (passwd(5))."""
    groups: Mapping[str, int] = {}
    """Group name to number (group(5))."""
    resolve: Resolve | None = None
    """What gives the addresses of host names in rules; None: such names are refused."""


class ParseContext(msgspec.Struct, frozen=True):
    """What the meaning of a word depends on: the family, the rule's protocol so far, and the host's names."""

    family: Family
    protocol: int | None = None
    hosts: HostTables = HostTables()


class NftMatch(msgspec.Struct, frozen=True):
    """One ``match`` statement of nft's JSON (libnftables-json(5)), taken apart.

    ``key`` is the left side as nft writes it (``tcp dport``, ``ct state``, ``@nh,64,32``), ``mask`` what it is and-ed
    with, and ``bits`` what it is or-ed with then.
    """

    key: str
    right: Any
    family: Family
    negated: bool = False
    op: str = "=="
    mask: Any = None
    bits: int = 0
    detail: Mapping[str, Any] = {}
    """What more the left side states, such as the modulus of ``numgen inc``."""


class NftObject(msgspec.Struct, frozen=True, gc=False, order=True):
    """A stateful object of nft that a statement refers to by name (nft(8), STATEFUL OBJECTS), as ``ct helper``."""

    kind: str
    name: str
    body: str

    def command(self, family: str, table: str) -> str:
        """The command that adds it to a table."""
        return f"add {self.kind} {family} {table} {self.name} {{ {self.body} }}"


class Codec(msgspec.Struct, frozen=True):
    """How one kind of value is read and written in both languages.

    ``parse`` raises :class:`~meshfw.errors.ModelError`; ``nft`` gives a whole condition from left side, value
    and sign, and raises :class:`~meshfw.errors.InexpressibleError`; ``read`` is its way back.
    """

    parse: Callable[[str, ParseContext], Any]
    format: Callable[[Any], str]
    expected: str
    nft: Callable[[str, Any, bool], str] | None = None
    read: Callable[[NftMatch], Any] | None = None
    orders: bool = False
    """``read`` takes the comparisons ``<=``, and ``>`` for its negation, as well."""


class Option(msgspec.Struct, frozen=True):
    """One option of an extension: its name in iptables, the field it fills, and how its value is written.

    ``words`` is how many words follow it; more than one are given to the codec joined by a space, and with none the
    field becomes ``preset``. A second option that fills the same field is another spelling, read but never printed.
    Where the word is ``optional``, a field without one becomes ``preset`` too.
    ``nft`` is the left side of nft's condition, where the table alone is enough to translate it. With ``many`` it may
    be given again: the field becomes the pairs of option and value that fill it, in the order of the words.
    """

    name: str
    field: str
    codec: Codec | None = None
    aliases: tuple[str, ...] = ()
    words: int = 1
    invertible: bool = False
    preset: Any = True
    nft: str = ""
    many: bool = False
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every spelling."""
        return (self.name, *self.aliases)


Fields = dict[str, Any]


class Extension(msgspec.Struct, frozen=True, kw_only=True):
    """One match or target of iptables: a row in a :class:`Language`.

    The callables are for what a table of options can't say; left out, the options drive everything:

    * ``build`` makes the value from the fields that the options filled (default: ``value(**fields)``).
    * ``save`` gives the words after ``-m NAME`` or ``-j NAME``, in the order the kernel tools print.
    * ``to_nft`` gives the nft statements of a match or target; it sees the rule, whose protocol names the header. A
      statement that refers to a stateful object gives that object before it.
    * ``to_nft_on`` gives them for what depends on the hook that packets come from, None where that isn't known.
    * ``from_nft`` reads back: by left side of a match statement, or by name of any other statement. A target of several
      statements is read by the names of all behind the counter, joined by `` + ``, and gets the list of their bodies.
    """

    name: str
    value: type[Match] | type[Target]
    options: tuple[Option, ...] = ()
    aliases: tuple[str, ...] = ()
    implied_by: int | None = None
    """The protocol number that loads the match when one of its options is met (iptables(8), --protocol)."""
    build: Callable[[Fields, ParseContext], Match | Target] | None = None
    save: Callable[[Any, Family], Iterable[str]] | None = None
    to_nft: Callable[[Any, Family, Rule], Iterable[str | NftObject]] | None = None
    to_nft_on: Callable[[Any, Family, Rule, Hook | None], Iterable[str | NftObject]] | None = None
    from_nft: Mapping[str, Callable[[Any, Family], Match | Target | None]] = {}

    printed: tuple[Option, ...] = ()
    """The options that canonical text uses, one for each field; worked out from ``options``."""
    named: Mapping[str, Option] = {}
    """The options by every spelling; worked out from ``options``."""
    required: tuple[Option, ...] = ()
    """The options whose fields the value can't do without; worked out from ``options``."""

    def __post_init__(self) -> None:
        fields: dict[str, Option] = {}
        for option in self.options:
            fields.setdefault(option.field, option)
        named = {name: option for option in reversed(self.options) for name in option.names}
        required = tuple(option for option in self.options if _required(self.value, option.field))
        msgspec.structs.force_setattr(self, "printed", tuple(fields.values()))
        msgspec.structs.force_setattr(self, "named", named)
        msgspec.structs.force_setattr(self, "required", required)

    @property
    def is_target(self) -> bool:
        """Whether it is a target rather than a match."""
        return issubclass(self.value, Target)

    def make(self, fields: Fields, context: ParseContext) -> Match | Target:
        """The value of the fields; ``ModelError`` where they make none."""
        if self.build is not None:
            return self.build(fields, context)
        missing = [option.name for option in self.required if option.field not in fields]
        if missing:
            raise ModelError(f"{self.name} needs {' or '.join(missing)}")
        return self.value(**fields)

    def words(self, value: Match | Target, family: Family) -> list[str]:
        """The words of its options in iptables' canonical form."""
        if self.save is not None:
            return list(self.save(value, family))
        words: list[str] = []
        for option in self.printed:
            held = getattr(value, option.field)
            if held is None or held is False:
                continue
            if type(held) is Not:
                words.append("!")
                held = held.value
            words.append(option.name)
            if option.codec is not None and option.words:
                text = option.codec.format(held)
                words.extend(text.split(" ", option.words - 1) if option.words > 1 else (text,))
        return words

    def nft_statements(
        self, value: Match | Target, family: Family, rule: Rule, *, hook: Hook | None = None
    ) -> tuple[str | NftObject, ...] | None:
        """Its nft statements in the order of evaluation; None where nft has no way to say it."""
        if self.to_nft_on is not None:
            return tuple(self.to_nft_on(value, family, rule, hook))
        if self.to_nft is not None:
            return tuple(self.to_nft(value, family, rule))
        statements: list[str | NftObject] = []
        for option in self.printed:
            held = getattr(value, option.field)
            if held is None or held is False:
                continue
            if not option.nft or option.codec is None or option.codec.nft is None:
                return None
            negated = type(held) is Not
            statements.append(option.codec.nft(option.nft, held.value if negated else held, negated))
        return tuple(statements)

    def nft_readers(self) -> dict[str, Callable[[Any, Family], Match | Target | None]]:
        """Its readers of nft's JSON by key, those of its options first."""
        readers: dict[str, Callable[[Any, Family], Match | Target | None]] = {}
        for option in self.options:
            if option.nft and option.codec is not None and option.codec.read is not None:
                readers[option.nft] = _OptionReader(self.value, option.field, option.codec)
        readers.update(self.from_nft)
        return readers


class _OptionReader:
    """A reader that fills one field of a value from one nft condition."""

    def __init__(self, value: type[Match] | type[Target], field: str, codec: Codec) -> None:
        self._value = value
        self._field = field
        self._codec = codec

    def __call__(self, match: NftMatch, family: Family) -> Match | Target | None:
        if match.op not in ("==", "!=") and not (self._codec.orders and match.op in ("<=", ">")):
            return None
        held = self._codec.read(match) if self._codec.read is not None else None
        return self._value(**{self._field: Not(held) if match.negated or match.op == ">" else held})


def _required(value: type[msgspec.Struct], field: str) -> bool:
    fields = value.__struct_fields__
    return field in fields[: len(fields) - len(value.__struct_defaults__)]
