"""The documents in the store: what is published for all and for one node, and what a node says of it.

JSON objects, each with ``format``. One that can't be read is an error with its key, never read as if it were empty.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from meshfw_etcd.errors import DocumentError

FORMAT: Final = 1
"""The format of the documents that this release writes, and the only one that it reads."""

Release = Annotated[int, msgspec.Meta(ge=1)]
"""The number of a release: later ones have higher numbers, also those that bring back an older text."""
OrNone = Annotated[int, msgspec.Meta(ge=0)]
"""The number of a release, or 0."""


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal: what shows that it came whole."""
    return hashlib.sha256(text.encode()).hexdigest()


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of all nodes: ``rules`` is TOML of ``[[chain]]`` and ``[[set]]`` tables, ``release`` its number.

    ``force`` lets a node take it however many rules go with it (the source's ``shrink-limit``).
    """

    release: Release
    rules: str
    digest: str
    force: bool = False
    format: int = FORMAT

    @classmethod
    def of(cls, release: int, rules: str, *, force: bool = False) -> Common:
        """The document of a release."""
        return cls(release=release, rules=rules, digest=digest(rules), force=force)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A release that one node tries in place of the common one, as long as its number is higher than that one's."""

    release: Release
    rules: str
    digest: str
    force: bool = False

    @classmethod
    def of(cls, release: int, rules: str, *, force: bool = False) -> Trial:
        """The trial of a release."""
        return cls(release=release, rules=rules, digest=digest(rules), force=force)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What is of one node alone: rules of its own beside the common ones (empty: none), and what it tries."""

    release: OrNone = 0
    rules: str = ""
    trial: Trial | None = None
    force: bool = False
    format: int = FORMAT


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of a release: ``applied``, or ``failed`` with the ``error``.

    ``release`` is the common or the trial one, 0 where it couldn't even be read, and ``node_release`` that of the
    node's own rules; ``revision`` is the store's, and ``digest`` that of the release's text. ``holds`` is the release
    that the node last applied well, 0 where it knows of none. ``time`` is in seconds since the epoch. ``pulse`` is how
    many seconds after that at most the key is there that shows that its agent lives; 0: it has no agent.
    """

    release: OrNone
    node_release: OrNone = 0
    revision: int = 0
    state: Literal["applied", "failed"]
    error: str = ""
    digest: str = ""
    holds: OrNone = 0
    time: float = 0.0
    pulse: int = 0
    format: int = FORMAT


Document = TypeVar("Document", bound=msgspec.Struct)


def write(document: msgspec.Struct) -> bytes:
    """A document as the store has it."""
    return msgspec.json.encode(document)


def read(value: bytes, kind: type[Document], *, key: str) -> Document:
    """The document of a key.

    Raises:
        DocumentError: it is no such document, is of another format, or its rules aren't whole.
    """
    try:
        said = msgspec.json.decode(value, type=_Format)
        if said.format != FORMAT:
            raise DocumentError(f"it is of format {said.format}", key=key, expected=f"format {FORMAT}; a newer meshfw?")
        document = msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(str(error), key=key, expected=f"a JSON object for {kind.__name__.lower()}") from None
    match document:
        case Common():
            check_whole(document.rules, document.digest, key=key)
        case Node(trial=Trial() as trial):
            check_whole(trial.rules, trial.digest, key=f"{key}: trial")
        case _:
            pass
    return document


class _Format(msgspec.Struct, frozen=True):
    format: int


def check_whole(text: str, stated: str, *, key: str) -> None:
    """DocumentError unless a text has the digest that is stated for it."""
    if digest(text) != stated:
        raise DocumentError("its rules don't have the digest that it states", key=key, expected="SHA-256 of the rules")
