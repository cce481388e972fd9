"""A meshfw plugin: the rule source ``friends``, by which the hosts of a list may come in."""

from __future__ import annotations

from collections.abc import Iterable

from meshfw import Declaration, RuleSource, SourcePlugin, hookimpl


@hookimpl
def meshfw_sources() -> Iterable[SourcePlugin]:
    """The one kind of source; nothing of it is imported before a configuration asks for it."""
    return (
        SourcePlugin(
            name="friends",
            factory=_made,
            summary="the hosts of a list may come in",
            api_version=1,
        ),
    )


def _made(declaration: Declaration) -> RuleSource:
    from meshfw_friends.source import FriendsSource

    return FriendsSource(declaration)
