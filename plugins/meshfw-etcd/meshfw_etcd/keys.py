"""The layout of the store: which key holds what, all below one prefix."""

from __future__ import annotations

from typing import Final

import msgspec

PREFIX: Final = "/meshfw/v1/"
"""Below which everything is, unless the configuration says otherwise."""


class Keys(msgspec.Struct, frozen=True):
    """The keys below a prefix, which ends with a slash."""

    prefix: str = PREFIX

    @property
    def common(self) -> str:
        """The rules of all nodes: :class:`meshfw_etcd.documents.Common`."""
        return f"{self.prefix}common"

    @property
    def rollout(self) -> str:
        """The state of the roll-out that is under way."""
        return f"{self.prefix}rollout"

    def node(self, name: str) -> str:
        """The rules of one node, and what it tries: :class:`meshfw_etcd.documents.Node`."""
        return f"{self.nodes}{name}"

    def ack(self, name: str) -> str:
        """What a node says of the rules that it was given: :class:`meshfw_etcd.documents.Ack`."""
        return f"{self.acks}{name}"

    def pulse(self, name: str) -> str:
        """What is there while a node's agent lives (:mod:`meshfw_etcd.pulse`)."""
        return f"{self.pulses}{name}"

    def release(self, number: int) -> str:
        """The text of a release; padded, so that the keys are in the order of their numbers."""
        return f"{self.releases}{number:010d}"

    @property
    def nodes(self) -> str:
        """What the keys of all nodes begin with."""
        return f"{self.prefix}nodes/"

    @property
    def acks(self) -> str:
        """What the keys of all acknowledgements begin with."""
        return f"{self.prefix}acks/"

    @property
    def pulses(self) -> str:
        """What the keys of all living agents begin with."""
        return f"{self.prefix}alive/"

    @property
    def releases(self) -> str:
        """What the keys of all releases begin with."""
        return f"{self.prefix}releases/"


def behind(prefix: str) -> str:
    """The first key behind all that begin with a prefix: the ``end`` of their range."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
