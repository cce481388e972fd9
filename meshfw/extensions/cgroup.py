"""The cgroup match: the control group of the socket that a packet belongs to (iptables-extensions(8), cgroup)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meshfw.errors import InexpressibleError, ModelError
from meshfw.extensions.codecs import integer, listed, plain, set_nft, sign
from meshfw.extensions.extension import Extension, NftMatch, Option
from meshfw.model import Family, Hook, Match, Not, Rule, byte_length

PATH_BYTES: Final = 511
"""linux/netfilter/xt_cgroup.h, path[512] with the final NUL."""
_LEFT: Final = "socket wildcard . meta cgroup"


class Cgroup(Match, frozen=True):
    """The class of a net_cls control group, or a path of control groups v2 in or below which the socket's is.

    A packet without a full socket, such as the answer to a connection's first packet, meets neither nor its negation.
    """

    path: str | Not[str] | None = None
    class_id: int | Not[int] | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.class_id is None):
            raise ModelError("cgroup needs one of --path and --cgroup")
        if self.path is not None and not 1 <= byte_length(sign(self.path)[1]) <= PATH_BYTES:
            raise ModelError(f"a control group's path has 1 to {PATH_BYTES} bytes")

    def atoms(self) -> Iterable[Any]:
        """Which of both, with its sign."""
        held = self.class_id if self.path is None else self.path
        yield ("cgroup", *sign(held))

    def allowed_hooks(self) -> frozenset[Hook] | None:
        """Where a packet may have a socket (xt_cgroup.c)."""
        return frozenset({Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING})


def _to_nft(value: Cgroup, family: Family, rule: Rule) -> Iterable[str]:
    """The class beside a question that full sockets alone answer: by itself nft asks a listening one for its answers.

    On postrouting nf_tables has no ``socket`` and refuses the rule.
    """
    if value.class_id is None:
        raise InexpressibleError("--path: nft's listing has the control group's number for its path, and no level")
    negated, number = sign(value.class_id)
    yield set_nft(_LEFT, f"{{ 0 . {number}, 1 . {number} }}", negated)


def _read(match: NftMatch, family: Family) -> Cgroup | None:
    pairs = [tuple(item["concat"]) for item in listed(match.right)]
    number = pairs[0][1]
    if match.op not in ("==", "!=") or sorted(pairs) != [(0, number), (1, number)]:
        return None
    return Cgroup(class_id=Not(number) if match.negated else number)


EXTENSIONS: Final = (
    Extension(
        name="cgroup",
        value=Cgroup,
        options=(
            Option("--path", "path", plain("a path below the mount point of control groups v2"), invertible=True),
            Option("--cgroup", "class_id", integer("a class of net_cls, a number of 32 bits"), invertible=True),
        ),
        to_nft=_to_nft,
        from_nft={_LEFT: _read},
    ),
)
