"""The cache: the documents that a node applied last, kept on disk for a start while the store is away."""

from __future__ import annotations

import hashlib
import time
from typing import Final

import msgspec

from meshfw import KeptFile, StateError, state_directory
from meshfw_etcd.messages import Pair
from meshfw_etcd.published import Place, Published

_FORMAT: Final = 1


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says; ``place`` is whose documents these are, and ``digest`` shows that it's whole."""

    format: int = _FORMAT
    place: str
    time: float
    revision: int
    common: Pair
    own: Pair | None
    digest: str = ""

    def sealed(self) -> str:
        """The digest of all the rest."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, digest=""))).hexdigest()


class Cached(msgspec.Struct, frozen=True):
    """Documents that were applied, and when, in seconds since the epoch."""

    published: Published
    time: float


class Cache:
    """The file of one node; an empty path means one in meshfw's own state directory."""

    def __init__(self, path: str, place: Place) -> None:
        self._place = f"{place.keys.prefix} {place.node}"
        if not path:
            name = hashlib.sha256(self._place.encode()).hexdigest()[:16]
            path = f"{state_directory()}/etcd-{name}.json"
        self._file = KeptFile(path)

    @property
    def path(self) -> str:
        """Where it is."""
        return self._file.path

    def read(self) -> Cached | None:
        """What is kept; None where nothing is.

        Raises:
            StateError: it can't be read, is damaged, or is another node's.
        """
        content = self._file.read()
        if content is None:
            return None
        try:
            kept = msgspec.json.decode(content, type=_Kept)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateError(f"it can't be read: {error}", source=self.path) from error
        if kept.format != _FORMAT or kept.sealed() != kept.digest:
            raise StateError("it's damaged, or another release's", source=self.path)
        if kept.place != self._place:
            raise StateError(
                f"it's of {kept.place}, not of {self._place}", source=self.path, remedy="give each its own"
            )
        return Cached(Published(kept.common, kept.own, kept.revision), kept.time)

    def write(self, published: Published) -> None:
        """Keep documents that were applied.

        Raises:
            StateError: they can't be kept; what was kept before stays.
        """
        if published.common is None:
            return
        kept = _Kept(
            place=self._place,
            time=time.time(),
            revision=published.revision,
            common=published.common,
            own=published.own,
        )
        self._file.write(msgspec.json.encode(msgspec.structs.replace(kept, digest=kept.sealed())))
