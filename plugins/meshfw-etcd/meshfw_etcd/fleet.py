"""The fleet as the store tells of it: what is published, what is being tried, and what each node said last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from meshfw_etcd.client import Client
from meshfw_etcd.documents import Ack, Common, check_whole, read
from meshfw_etcd.errors import DocumentError
from meshfw_etcd.keys import Keys, behind
from meshfw_etcd.messages import Get, Pair
from meshfw_etcd.releases import ReleaseText, Rollout

Document = TypeVar("Document", bound=msgspec.Struct)


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one ``revision`` of the store; a document's own revision is 0 where it isn't there.

    ``acks`` has the last word of each node that ever said one, ``nodes`` those that have a key of their own, ``living``
    those whose agents live, and ``releases`` the numbers of the releases that are kept.
    """

    revision: int
    common: Common | None
    common_revision: int
    rollout: Rollout | None
    rollout_revision: int
    acks: Mapping[str, Ack]
    nodes: frozenset[str]
    living: frozenset[str]
    releases: tuple[int, ...]

    @property
    def release(self) -> int:
        """The number of the release that stands, 0 where nothing is published."""
        return self.common.release if self.common is not None else 0

    @property
    def next_release(self) -> int:
        """The number of the next release: higher than any that was ever tried or published."""
        tried = self.rollout.release if self.rollout is not None else 0
        return max((self.release, tried, *self.releases)) + 1

    def wanted(self, node: str) -> int:
        """The release that a node is to hold: the one it tries, or that of all."""
        if self.rollout is not None and node in self.rollout.trying and self.rollout.phase == "trying":
            return self.rollout.release
        return self.release

    def away(self, node: str) -> bool:
        """Whether a node's agent, where it has one, has given no sign of life for longer than its pulse lasts."""
        ack = self.acks.get(node)
        if ack is None or not ack.pulse or node in self.living:
            return False
        return time.time() - ack.time > ack.pulse  # it may only just have begun

    def healthy(self) -> tuple[str, ...]:
        """The nodes to try the next release: those that live and hold the one that stands; before the first, all."""
        return tuple(
            sorted(
                name
                for name, ack in self.acks.items()
                if ack.release == self.release and (ack.state == "applied" or not self.release) and not self.away(name)
            )
        )


def read_fleet(client: Client, keys: Keys) -> Fleet:
    """The fleet as it is.

    Raises:
        DocumentError: what is published or the state of the roll-out can't be read. EtcdError: as every request.
    """
    prefixes = (keys.acks, keys.nodes, keys.pulses, keys.releases)
    gets = [Get(keys.common), Get(keys.rollout)]
    gets += [Get(prefix, behind(prefix), bare=prefix != keys.acks) for prefix in prefixes]
    decided = client.txn([], gets)
    common, rollout, acks, nodes, pulses, releases = decided.found
    return Fleet(
        revision=decided.revision,
        common=_only(common, Common, keys.common),
        common_revision=common[0].mod_revision if common else 0,
        rollout=_only(rollout, Rollout, keys.rollout),
        rollout_revision=rollout[0].mod_revision if rollout else 0,
        acks=_acks(acks, keys),
        nodes=frozenset(_name(pair, keys.nodes) for pair in nodes),
        living=frozenset(_name(pair, keys.pulses) for pair in pulses),
        releases=tuple(sorted(int(name) for pair in releases if (name := _name(pair, keys.releases)).isdecimal())),
    )


def read_acks(client: Client, keys: Keys) -> Mapping[str, Ack]:
    """The last word of each node; one that can't be understood is a failure of that node."""
    return _acks(client.range(keys.acks, behind(keys.acks)).pairs, keys)


def read_release(client: Client, keys: Keys, number: int) -> ReleaseText | None:
    """A release that is kept; None where it's gone or never was."""
    pair = client.get(keys.release(number))
    if pair is None:
        return None
    release = read(pair.value, ReleaseText, key=keys.release(number))
    check_whole(release.rules, release.digest, key=keys.release(number))
    return release


def _acks(pairs: tuple[Pair, ...], keys: Keys) -> Mapping[str, Ack]:
    found = {}
    for pair in pairs:
        name = _name(pair, keys.acks)
        try:
            found[name] = read(pair.value, Ack, key=keys.ack(name))
        except DocumentError as error:
            found[name] = Ack(release=0, state="failed", error=str(error))
    return found


def _only(pairs: tuple[Pair, ...], kind: type[Document], key: str) -> Document | None:
    return read(pairs[0].value, kind, key=key) if pairs else None


def _name(pair: Pair, prefix: str) -> str:
    """The last part of a key, whatever bytes a stranger gave it."""
    return pair.key.decode("utf-8", "backslashreplace")[len(prefix) :]
