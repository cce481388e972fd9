"""How a roll-out begins, is taken over, and is broken off: what each needs to find in the store, and refuses else."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from meshfw import ConfigError
from meshfw_etcd.client import Client
from meshfw_etcd.documents import digest, write
from meshfw_etcd.errors import BusyError, ConflictError, EtcdError
from meshfw_etcd.fleet import Fleet, read_release
from meshfw_etcd.hold import BEAT, Hold, myself
from meshfw_etcd.judging import failing_now
from meshfw_etcd.keys import Keys
from meshfw_etcd.messages import Put, Unchanged
from meshfw_etcd.releases import ReleaseText, Rollout
from meshfw_etcd.stages import Canaries, Route, Size, route
from meshfw_etcd.trials import Trials

_ALIVE: Final = 2.5 * BEAT
"""Seconds without a word after which a pusher is taken for dead; one who isn't can't write any more all the same."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A release that somebody wants rolled out, and how: see ``meshfw fleet push --help``; times are in seconds."""

    rules: str
    canaries: Canaries
    stages: tuple[Size, ...]
    timeout: float
    soak: float
    missing: Size = Size(0)
    at_once: bool = False
    force: bool = False
    message: str = ""
    restores: int = 0


def planned(fleet: Fleet, wish: Wish) -> Rollout:
    """The state that a roll-out begins with: who is to try the release, and when.

    Raises:
        BusyError: another one is under way. ConfigError: there is no node to try it, or no such one.
    """
    refuse_beside(fleet)
    everybody = len(fleet.acks)
    way = Route((), ())
    if not wish.at_once:
        _check_names(fleet, wish.canaries)
        way = route(
            fleet.healthy(),
            release=fleet.next_release,
            canaries=wish.canaries,
            sizes=wish.stages,
            everybody=everybody,
        )
        if not way.order:
            raise ConfigError(
                "no node is known that could try it first",
                key="--canaries",
                expected="names of nodes, or --now for all nodes at once",
            )
    now = time.time()
    return Rollout(
        release=fleet.next_release,
        digest=digest(wish.rules),
        base=fleet.release,
        common=fleet.common_revision,
        phase="trying",
        route=way,
        timeout=wish.timeout,
        soak=wish.soak,
        missing=wish.missing.among(everybody),
        failing=failing_now(fleet.acks),
        force=wish.force,
        by=myself(),
        started=now,
        beat=now,
    )


def _check_names(fleet: Fleet, canaries: Canaries) -> None:
    """Refuse canaries that nobody ever heard of; before the first release nobody was heard of."""
    known = fleet.acks.keys() | fleet.nodes
    unknown = [name for name in canaries.names if name not in known]
    if unknown and fleet.release:
        raise ConfigError(
            f"no node {unknown[0]!r} has ever acknowledged anything",
            key="--canaries",
            expected="nodes that 'meshfw fleet status -v' lists",
        )


def refuse_beside(fleet: Fleet) -> None:
    """Refuse to begin anything while a roll-out is under way.

    Raises:
        BusyError: one is.
    """
    other = fleet.rollout
    if other is not None and other.under_way:
        ago = max(0.0, time.time() - other.beat)
        raise BusyError(
            f"release {other.release} is being rolled out ({other.phase}) by {other.by}, last heard of {ago:.0f} s ago",
            remedy="wait for its end; 'meshfw fleet push --resume' goes on with it, 'meshfw fleet abort' takes it back",
        )


def begin(client: Client, keys: Keys, fleet: Fleet, wish: Wish, *, patience: float) -> tuple[Hold, ReleaseText]:
    """The hold on a new roll-out, and the release, which is kept in the store now.

    Raises:
        ConflictError: somebody else published or began in between. As :func:`planned`.
    """
    state = planned(fleet, wish)
    text = ReleaseText(
        release=state.release,
        rules=wish.rules,
        digest=state.digest,
        base=state.base,
        restores=wish.restores,
        force=wish.force,
        message=wish.message,
        by=state.by,
        time=state.started,
    )
    hold = Hold(client, keys, state, revision=fleet.rollout_revision, patience=patience)
    checks = [Unchanged(keys.common, fleet.common_revision), Unchanged(keys.release(state.release), 0)]
    if not hold.write([Put(keys.release(state.release), write(text))], checks=checks):
        raise ConflictError("somebody else published in between; nothing is changed", remedy="look, and push again")
    return hold, text


def resume(client: Client, keys: Keys, fleet: Fleet, *, patience: float) -> tuple[Hold, ReleaseText | None]:
    """The hold on the roll-out that somebody left behind, and its release, where that is kept still.

    Raises:
        EtcdError: none is under way. BusyError: its pusher is at work.
    """
    state = _left(fleet)
    end = time.monotonic() + _ALIVE
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(0.25, left))
        pair = client.get(keys.rollout)
        if pair is None or pair.mod_revision != fleet.rollout_revision:
            raise BusyError(
                f"{state.by} is at work on release {state.release}", remedy="leave it to him, or end him first"
            )
    hold = Hold(client, keys, state, revision=fleet.rollout_revision, patience=patience)
    hold.write()
    return hold, read_release(client, keys, state.release)


def cut_short(client: Client, keys: Keys, fleet: Fleet, *, patience: float) -> None:
    """End a roll-out whose release is that of all nodes already, without waiting for them; of any other do nothing.

    Whoever wants the release before it back must not have to wait for nodes that fail at this one.
    """
    state = fleet.rollout
    if state is None or state.phase != "settling":
        return
    hold = Hold(client, keys, state, revision=fleet.rollout_revision, patience=patience)
    hold.write()
    Trials(client, keys, hold, patience=patience).take_back()
    hold.write(phase="done", reason=f"cut short by {myself()}")


def abort(client: Client, keys: Keys, fleet: Fleet, *, patience: float) -> Hold:
    """The hold on a roll-out that is to be taken back now, whoever is at work on it.

    Raises:
        EtcdError: none is under way, or its release is that of all nodes already.
    """
    state = _left(fleet)
    if state.phase == "settling":
        raise EtcdError(
            f"release {state.release} is that of all nodes already",
            remedy="'meshfw fleet rollback' brings the one before it back",
        )
    hold = Hold(client, keys, state, revision=fleet.rollout_revision, patience=patience)
    reason = state.reason or f"aborted by {myself()}"
    hold.write(phase="halting", reason=reason, ends_as="aborted")
    return hold


def _left(fleet: Fleet) -> Rollout:
    if fleet.rollout is None or not fleet.rollout.under_way:
        raise EtcdError("no roll-out is under way")
    return fleet.rollout


def origin(client: Client, keys: Keys, fleet: Fleet) -> ReleaseText:
    """The release that a roll-back without a number brings back: the one before that whose text stands.

    Raises:
        EtcdError: it isn't kept, or there was none.
    """
    number, seen = fleet.release, set()
    while number not in seen:
        seen.add(number)
        release = read_release(client, keys, number) if number else None
        if release is None:
            break
        if not release.restores:
            number = release.base
            before = read_release(client, keys, number) if number else None
            if before is None:
                break
            return before
        number = release.restores
    if not fleet.release:
        raise EtcdError("nothing is published yet")
    raise EtcdError(
        f"nothing is kept that stood before the rules of release {fleet.release} first did",
        remedy="'meshfw fleet rollback RELEASE' brings back any that 'meshfw fleet status' lists",
    )
