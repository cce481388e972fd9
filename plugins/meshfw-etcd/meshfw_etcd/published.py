"""What is published for one node, and which rules that makes: the pure half of the source."""

from __future__ import annotations

from typing import Final

import msgspec

from meshfw import Language, Ruleset, merge, parse_ruleset
from meshfw_etcd.client import Client
from meshfw_etcd.documents import Common, Node, read
from meshfw_etcd.errors import UnpublishedError
from meshfw_etcd.keys import Keys
from meshfw_etcd.messages import Get, Pair

_FEW: Final = 10
"""So many rules may go whatever their share is: a share of a few means little."""


class Place(msgspec.Struct, frozen=True):
    """A node's place in the layout of the store."""

    keys: Keys
    node: str

    @property
    def common(self) -> str:
        """The key of the rules of all nodes."""
        return self.keys.common

    @property
    def own(self) -> str:
        """The key of what is of this node alone."""
        return self.keys.node(self.node)


class Published(msgspec.Struct, frozen=True):
    """The two documents as the store has them at a revision; None where a key isn't there."""

    common: Pair | None
    own: Pair | None
    revision: int

    @property
    def written(self) -> int:
        """The revision that wrote the later of them; 0 where neither is there."""
        return max(pair.mod_revision if pair is not None else 0 for pair in (self.common, self.own))


class Chosen(msgspec.Struct, frozen=True):
    """The release that a node is to apply, and its own rules; ``written`` is the revision of the later document."""

    release: int
    rules: str
    digest: str
    trial: bool
    own_release: int
    own_rules: str
    forced: bool
    written: int

    def __str__(self) -> str:
        return f"release {self.release}" + (", on trial" if self.trial else "")


def listed(client: Client, place: Place) -> Published:
    """Both documents, read in one transaction; EtcdError where they can't be."""
    answer = client.txn([], [Get(place.common), Get(place.own)])
    common, own = (pairs[0] if pairs else None for pairs in answer.found)
    return Published(common, own, answer.revision)


def chosen(published: Published, place: Place) -> Chosen:
    """What a node is to apply: the common release, or the trial of its own that is higher than that, and its own rules.

    Raises:
        UnpublishedError: there is no common release, nor a trial; which never means that there are no rules.
        DocumentError: a document can't be used.
    """
    common = None if published.common is None else read(published.common.value, Common, key=place.common)
    node = Node() if published.own is None else read(published.own.value, Node, key=place.own)
    standing = common.release if common is not None else 0
    taken = node.trial if node.trial is not None and node.trial.release > standing else common
    if taken is None:
        expected = "a release, as 'meshfw fleet push' writes it"
        raise UnpublishedError("nothing is published", key=place.common, expected=expected)
    return Chosen(
        release=taken.release,
        rules=taken.rules,
        digest=taken.digest,
        trial=taken is not common,
        own_release=node.release,
        own_rules=node.rules,
        forced=taken.force or node.force,
        written=published.written,
    )


def ruleset_of(taken: Chosen, place: Place, *, language: Language) -> Ruleset:
    """The rules of a release and those of the node's own.

    Raises:
        ConfigError, ParseError, ModelError: a text that makes no ruleset; the message names its key in the store.
    """
    where = f"{place.own}: trial" if taken.trial else place.common
    parts = [
        (where, parse_ruleset(taken.rules, language=language, source=f"etcd key {where}, release {taken.release}"))
    ]
    if taken.own_rules:
        source = f"etcd key {place.own}"
        parts.append((place.own, parse_ruleset(taken.own_rules, language=language, source=source)))
    return merge(parts)


def shrinks(before: Ruleset, after: Ruleset, *, limit: int) -> str:
    """Why a ruleset is too small to be believed where another one stood; ``limit`` is in percent, 100: never."""
    for what, old, new in (
        ("rules", _rules(before), _rules(after)),
        ("elements of sets", _elements(before), _elements(after)),
    ):
        if limit < 100 and old - new > max(_FEW, old * limit / 100):
            return f"it has {new} {what} in place of {old}, and more than {limit} % may not go at once without force"
    return ""


def _rules(ruleset: Ruleset) -> int:
    return sum(len(chain.rules) for chain in ruleset.chains)


def _elements(ruleset: Ruleset) -> int:
    return sum(len(entry.elements) for entry in ruleset.sets)
