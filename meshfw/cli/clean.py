"""The verb ``clean``: the empty ruleset applied, which takes everything of the owner's away and nothing else."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from meshfw import reconcile
from meshfw.agent.control import refuse_second
from meshfw.applying import CLEAN, noted, release
from meshfw.backend import Backend, Report
from meshfw.backends.instance import only_writer
from meshfw.cli.apply import print_report, reported, told
from meshfw.cli.output import UnfinishedError, print_json, warn
from meshfw.errors import BackendError, ConfigError
from meshfw.hookspecs import BackendPlugin
from meshfw.model import Ruleset
from meshfw.plugins import unavailable
from meshfw.safety.moving import journal_of, require_whole
from meshfw.safety.settling import require_settled
from meshfw.workshop import Workshop


def run(arguments: Namespace) -> int:
    """0 when nothing of ours is left; the rules of the configuration aren't read, so broken ones don't matter."""
    if arguments.all_backends and arguments.backend:
        expected = "the one to clean, or all of them"
        raise ConfigError(f"--backend {arguments.backend} names one", key="--all-backends", expected=expected)
    shop = Workshop(arguments, needed=False, sources=False)
    refuse_second(shop.config.owner, shop.site.netns, "it would put them back: stop it, then clean")
    if arguments.all_backends:
        return _everywhere(shop, arguments)
    with only_writer(shop.site, timeout=arguments.lock_timeout):
        require_settled(shop.site, shop.warnings)
        require_whole(shop, alone=True)
        with shop.backend() as backend:
            refusal = shop.undecided()
            if refusal is not None:
                raise refusal
            report = reconcile.apply(backend, Ruleset())
            shop.forget(backend.name)
            shop.warn_left(backend)
            if shop.elsewhere(backend) is None:
                _record(shop, backend, report)
    told(shop, report, arguments)
    return 0


def _record(shop: Workshop, backend: Backend, report: Report) -> None:
    """Record that nothing is wanted: not even what a rollback had the agent hold."""
    noted(shop, backend, Ruleset(), report, reason=CLEAN)
    release(shop)


def _everywhere(shop: Workshop, arguments: Namespace) -> int:
    """0 when nothing of ours is left in any backend; an error leaves it told what was done before it."""
    reports: list[_Cleaned] = []

    def done() -> dict[str, Any]:
        backends = [reported(shop, report, (*report.warnings, *warnings)) for report, warnings in reports]
        return {"backends": backends, "warnings": shop.warnings}

    try:
        _clean_each(shop, arguments, reports)
    except Exception as error:
        if arguments.json:
            raise UnfinishedError(error, done()) from error
        warn(shop.warnings)
        raise
    if arguments.json:
        print_json(done())
        return 0
    warn(shop.warnings)
    if not reports:
        print("nothing to do (all backends)")
    return 0


_Cleaned = tuple[Report, tuple[str, ...]]
"""The report of one backend's cleaning, and the warnings of the plugins that were told of it."""


def _clean_each(shop: Workshop, arguments: Namespace, reports: list[_Cleaned]) -> None:
    """Clean every backend in which rules of ours stand; each is added to the reports, and told, before the next one.

    Raises:
        BackendError: rules of ours are left, or may be: in which backend, and why.
    """
    with only_writer(shop.site, timeout=arguments.lock_timeout):
        require_settled(shop.site, shop.warnings)
        left = list(shop.unread())
        for offer, own in shop.standing():
            reason = unavailable(offer)
            if reason is not None:
                left.append(f"{own} of {shop.config.owner} stay, since {offer.name} can't be used here: {reason}")
                continue
            reports.append(_cleaned(shop, offer))
            if not arguments.json:
                warn((*reports[-1][0].warnings, *reports[-1][1]))
                print_report(shop, reports[-1][0], verbose=arguments.verbose)
        if left:
            raise BackendError("\n  ".join(left))
        journal_of(shop.site).over()
        shop.forget()


def _cleaned(shop: Workshop, offer: BackendPlugin) -> _Cleaned:
    with shop.backend(offer) as backend:
        report = reconcile.apply(backend, Ruleset())
        _record(shop, backend, report)
    return report, shop.plugins.reconciled(report)
