"""The values that go to the store and come back: keys with their revisions, checks, operations, and events."""

from __future__ import annotations

import msgspec


class Pair(msgspec.Struct, frozen=True):
    """A key's value; ``mod_revision`` is the revision of the store that wrote it last."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    create_revision: int = 0
    version: int = 0
    lease: int = 0


class Found(msgspec.Struct, frozen=True):
    """What a range holds at a revision of the store, by key."""

    revision: int
    pairs: tuple[Pair, ...]


class Unchanged(msgspec.Struct, frozen=True):
    """A check: the key was written last at that revision; 0: it isn't there."""

    key: str
    mod_revision: int = 0


class Put(msgspec.Struct, frozen=True):
    """Write a value; with a ``lease`` (0: none) it goes when that one ends."""

    key: str
    value: bytes
    lease: int = 0


class Get(msgspec.Struct, frozen=True):
    """Read a key, or the keys from it up to ``end``, which isn't among them; ``bare``: without their values."""

    key: str
    end: str = ""
    bare: bool = False


class Delete(msgspec.Struct, frozen=True):
    """Take away a key, or the keys from it up to ``end``, which isn't among them."""

    key: str
    end: str = ""


Operation = Put | Get | Delete


class Decided(msgspec.Struct, frozen=True):
    """What a transaction did: ``succeeded`` where every check held, and what each :class:`Get` of that side found."""

    succeeded: bool
    revision: int
    found: tuple[tuple[Pair, ...], ...] = ()


class Change(msgspec.Struct, frozen=True):
    """A write that a watch tells of; ``deleted``: the key is gone, and ``pair`` has its name and the revision alone."""

    pair: Pair
    deleted: bool = False


class Batch(msgspec.Struct, frozen=True):
    """One message of a watch, about one of the watched keys, by its place.

    One without changes that isn't ``opened``, the first of each, is a sign of life: there was nothing to tell up to
    that ``revision`` of the store. Of any other that can't be said.
    """

    watch: int
    revision: int
    changes: tuple[Change, ...] = ()
    opened: bool = False


# --- as the JSON gateway spells them: int64 as strings, bytes as base64, what is zero or false left out ----------


class Header(msgspec.Struct, frozen=True):
    """What heads each answer."""

    revision: int = 0


class RangeAnswer(msgspec.Struct, frozen=True):
    """The answer to a range."""

    header: Header = Header()
    kvs: tuple[Pair, ...] = ()


class PutAnswer(msgspec.Struct, frozen=True):
    """The answer to a put."""

    header: Header = Header()


class OneAnswer(msgspec.Struct, frozen=True):
    """The answer to one operation of a transaction."""

    response_range: RangeAnswer | None = None


class TxnAnswer(msgspec.Struct, frozen=True):
    """The answer to a transaction."""

    header: Header = Header()
    succeeded: bool = False
    responses: tuple[OneAnswer, ...] = ()


class GrantAnswer(msgspec.Struct, frozen=True):
    """The answer to the wish for a lease."""

    ID: int


class Renewal(msgspec.Struct, frozen=True):
    """What became of a lease: the seconds that it has again, 0 where it's gone."""

    TTL: int = 0


class AuthAnswer(msgspec.Struct, frozen=True):
    """The answer to a name and a password."""

    token: str


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The answer that is a refusal; ``code`` is gRPC's."""

    message: str = ""
    error: str = ""
    code: int = 0


class EventAnswer(msgspec.Struct, frozen=True):
    """One event of a watch."""

    kv: Pair
    type: str = "PUT"


class WatchResult(msgspec.Struct, frozen=True):
    """One message of a watch."""

    header: Header = Header()
    watch_id: int = 0
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[EventAnswer, ...] = ()


class StreamError(msgspec.Struct, frozen=True):
    """How a stream says that it ends."""

    message: str = ""
    grpc_code: int = 0


class RenewAnswer(msgspec.Struct, frozen=True):
    """The answer to a renewal, which is a stream of one line."""

    result: Renewal | None = None
    error: StreamError | None = None


class WatchAnswer(msgspec.Struct, frozen=True):
    """A line of the stream of a watch."""

    result: WatchResult | None = None
    error: StreamError | None = None
