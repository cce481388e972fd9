"""The hooks that a plugin implements, and what each of them returns: small frozen values, never a registration.

A plugin is a module (or any object) that an entry point of group ``meshfw`` names. It marks its functions with
:data:`hookimpl`. Every hook of every plugin is called by itself, so a broken one takes no other down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec
import pluggy

from meshfw.backend import Backend, Report, Site
from meshfw.extensions.extension import Extension
from meshfw.source import Declaration, RuleSource

if TYPE_CHECKING:  # programs that keep a firewall read no command line
    from argparse import ArgumentParser, Namespace

GROUP: Final = "meshfw"
"""The entry-point group of plugins, and the name that pluggy's markers carry."""

hookspec: Final = pluggy.HookspecMarker(GROUP)
hookimpl: Final = pluggy.HookimplMarker(GROUP)
"""The mark of a plugin's functions that implement a hook."""


def always() -> str | None:
    """No reason against: the ``unavailable`` of a plugin that works wherever it's installed."""
    return None


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What stands where a backend keeps its rules, in words; empty where nothing does.

    ``own`` is what the owner has there, such as ``2 chains in ipv4 filter``. ``others`` is what shows that this is the
    way others go here, such as ``17 rules in ipv4 nat``; what meshfw wrote, for whichever owner, never shows that.
    ``rules`` is about how many rules those are, and ``tool`` the command they are made with, where it has several ways
    to store them.
    """

    own: str = ""
    others: str = ""
    rules: int = 0
    tool: str = ""


def nothing(site: Site) -> Presence:  # noqa: ARG001 - the site is what every presence gets
    """Nothing known: the ``presence`` of a plugin that gives none."""
    return Presence()


class BackendPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A backend on offer.

    ``unavailable`` says in one sentence why it can't be used here, None where it can; it's asked when ``auto``
    chooses and when backends are listed. ``automatic`` is its rank for ``backend = "auto"``, the lowest is tried first;
    None, as it should be for all but a host's usual firewall: only whoever names it gets it.

    ``presence`` tells what stands where it keeps its rules; it starts no process, loads no module, makes no table and
    changes nothing. ``place`` names that place where it isn't the backend's alone: two backends of one place see each
    other's rules, so neither is in the other's way.
    """

    name: str
    factory: Callable[[Site], Backend]
    summary: str
    api_version: int = 1
    """The version of the plugin interface it was written for: the number itself, not ``meshfw.API_VERSION``."""
    unavailable: Callable[[], str | None] = always
    automatic: int | None = None
    presence: Callable[[Site], Presence] = nothing
    place: str = ""


class SourcePlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of rule source on offer; ``name`` is what a ``[[source]]`` table gives as its ``type``."""

    name: str
    factory: Callable[[Declaration], RuleSource]
    summary: str
    api_version: int = 1
    """The version of the plugin interface it was written for: the number itself, not ``meshfw.API_VERSION``."""


def no_arguments(parser: ArgumentParser) -> None:
    """Nothing added: the ``add_arguments`` of a verb that has the options of all verbs alone."""


class CommandPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A verb of the command line on offer: ``meshfw NAME ...``.

    ``add_arguments`` gets the verb's parser, which has the options of all verbs (``config``, ``backend``, ``netns``,
    ``json``, ``verbose``), as have all parsers that it adds below it. ``run`` gets what was parsed and returns the exit
    code: 0 for done, 1 is meshfw's own for errors. What is wrong it raises as a MeshfwError, which is printed as one
    message, with ``--json`` as JSON.
    """

    name: str
    run: Callable[[Namespace], int]
    summary: str
    """What it does, on one line and without a full stop."""
    add_arguments: Callable[[ArgumentParser], object] = no_arguments
    api_version: int = 1
    """The version of the plugin interface it was written for: the number itself, not ``meshfw.API_VERSION``."""


@hookspec
def meshfw_backends() -> Iterable[BackendPlugin]:  # type: ignore[empty-body]  # a specification has no body
    """The backends that the plugin brings; none is made before it's chosen."""


@hookspec
def meshfw_sources() -> Iterable[SourcePlugin]:  # type: ignore[empty-body]  # a specification has no body
    """The kinds of rule source that the plugin brings; none is made before a configuration asks for it."""


@hookspec
def meshfw_extensions() -> Iterable[Extension]:  # type: ignore[empty-body]  # a specification has no body
    """The matches and targets that the plugin adds to the language of rules.

    They take part where the configuration lists the plugin under ``plugins``, or chose a backend or source of it.
    """


@hookspec
def meshfw_commands() -> Iterable[CommandPlugin]:  # type: ignore[empty-body]  # a specification has no body
    """The verbs that the plugin adds to the command line, which finds them wherever the plugin is installed.

    None takes the place of a verb that meshfw has itself.
    """


@hookspec
def meshfw_reconciled(report: Report) -> None:
    """Told after every reconcile that ended well, also after one that changed nothing; what it returns is ignored.

    An exception is a warning and never makes the reconcile fail.
    """
