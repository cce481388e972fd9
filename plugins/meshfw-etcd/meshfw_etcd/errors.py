"""What can go wrong with the store: one base below meshfw's own, and a flat child for each case that callers part."""

from __future__ import annotations

from collections.abc import Sequence

from meshfw import MeshfwError


class EtcdError(MeshfwError):
    """Something that the store refused or answered wrongly: why, which endpoint, and what to do."""

    def __init__(self, reason: str, *, endpoint: str = "", remedy: str = "") -> None:
        super().__init__(reason, endpoint, remedy)
        self.reason = reason
        self.endpoint = endpoint
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"etcd {self.endpoint}: " if self.endpoint else "etcd: "
        return f"{place}{self.reason}" + (f" ({self.remedy})" if self.remedy else "")


class UnreachableError(EtcdError):
    """No endpoint answers: ``failures`` is what each said, in the order they were tried."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__(f"no endpoint answers: {'; '.join(sorted(failures))}")
        self.failures = tuple(failures)


class WatchEndedError(EtcdError):
    """The stream of a watch ended: which says nothing about the keys, and least of all that they are empty."""


class UncertainError(EtcdError):
    """A transaction was sent and its answer lost: it may have taken place, or not. Read before trying again."""


class DeniedError(EtcdError):
    """The store doesn't let this user do that, or doesn't know him."""


class CompactedError(EtcdError):
    """The history that was asked for is gone: ``oldest`` is the first revision that the store still has."""

    def __init__(self, oldest: int, *, endpoint: str = "") -> None:
        super().__init__(f"the history before revision {oldest} is compacted", endpoint=endpoint)
        self.oldest = oldest


class DocumentError(MeshfwError):
    """A document in the store that can't be used: its key, why, and what was expected."""

    def __init__(self, reason: str, *, key: str, expected: str = "") -> None:
        super().__init__(reason, key, expected)
        self.reason = reason
        self.key = key
        self.expected = expected

    def __str__(self) -> str:
        tail = f"; expected {self.expected}" if self.expected else ""
        return f"etcd key {self.key}: {self.reason}{tail}"


class UnpublishedError(DocumentError):
    """Nothing is published for a node: a key that was never written, or deleted. Never read as an empty ruleset."""


class ConflictError(EtcdError):
    """Somebody else wrote in between, so that what was to be written was not."""


class BusyError(EtcdError):
    """A roll-out is under way, and another can't begin before it ends."""
