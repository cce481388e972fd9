"""The verb ``meshfw fleet``: a release pushed to many nodes, brought back, taken back, and looked at."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, Final

from meshfw import ConfigError
from meshfw_etcd.beginning import Wish, abort, begin, cut_short, origin, planned, refuse_beside, resume
from meshfw_etcd.checking import check_rules, read_file
from meshfw_etcd.client import Client
from meshfw_etcd.documents import digest
from meshfw_etcd.errors import EtcdError
from meshfw_etcd.fleet import Fleet, read_fleet, read_release
from meshfw_etcd.hold import Hold
from meshfw_etcd.judging import named
from meshfw_etcd.pushing import Outcome, Pusher
from meshfw_etcd.reaching import Reach, reach
from meshfw_etcd.releases import ReleaseText
from meshfw_etcd.showing import (
    node_states,
    outcome_data,
    outcome_lines,
    plan_data,
    plan_lines,
    printable,
    status_data,
    status_lines,
)

HALTED: Final = 2
"""The exit code of a roll-out that was taken back, and of a status that isn't all well."""
INCOMPLETE: Final = 3
"""The exit code of a release that is published and that not all nodes hold."""
_PATIENCE: Final = 30.0
"""Seconds that the store may be away during a roll-out, at least."""


def run(arguments: Namespace) -> int:
    """The exit code of one of its verbs."""
    store = reach(arguments)
    with closing(Client(store.access)) as client:
        desk = _Desk(arguments, store, client)
        verbs: Mapping[str, Callable[[], int]] = {
            "push": desk.push,
            "rollback": desk.rollback,
            "abort": desk.abort,
            "status": desk.status,
        }
        return verbs[arguments.action]()


class _Desk:
    """One command at work: its arguments, and the store as it was found."""

    def __init__(self, arguments: Namespace, store: Reach, client: Client) -> None:
        self._arguments = arguments
        self._store = store
        self._client = client

    def push(self) -> int:
        """Roll a file of rules out, or go on with what somebody left behind."""
        given = self._arguments
        if given.resume:
            if given.rules is not None:
                raise ConfigError("it goes on with the release it was", key="--resume", expected="no RULES")
            hold, text = resume(self._client, self._store.keys, self._fleet(), patience=_PATIENCE)
            self._say(f"going on with release {hold.state.release}, {hold.state.phase}")
            return self._go(hold, text)
        if given.rules is None:
            raise ConfigError("no file of rules is named", key="RULES", expected="a TOML file, or --resume")
        rules = read_file(given.rules)
        return self._roll_out(rules, file=given.rules)

    def rollback(self) -> int:
        """Roll an earlier release out again."""
        fleet, number = self._fleet(), self._arguments.release
        if number is None:
            release = origin(self._client, self._store.keys, fleet)
        else:
            kept = read_release(self._client, self._store.keys, number)
            if kept is None:
                known = ", ".join(map(str, fleet.releases)) or "none"
                raise ConfigError(f"release {number} isn't kept", key="RELEASE", expected=f"one of those: {known}")
            release = kept
        if self._arguments.now and not release.published and not self._arguments.force:
            raise ConfigError(
                f"release {release.release} never came to all nodes", key="--now", expected="stages, or --force"
            )
        if not self._arguments.dry_run:  # behind all that may be refused: an error changes nothing
            cut_short(self._client, self._store.keys, fleet, patience=_PATIENCE)
            fleet = self._fleet()
        file = f"release {release.release}"
        return self._roll_out(release.rules, file=file, restores=release.release, fleet=fleet)

    def abort(self) -> int:
        """Take back what is under way."""
        hold = abort(self._client, self._store.keys, self._fleet(), patience=_PATIENCE)
        self._go(hold, None)
        return 0

    def status(self) -> int:
        """Show what the nodes hold."""
        fleet = self._fleet()
        states = node_states(fleet, older_than=self._arguments.older_than)
        self._print(lambda: status_data(fleet, states), status_lines(fleet, states, verbose=self._arguments.verbose))
        under_way = fleet.rollout is not None and fleet.rollout.under_way
        return HALTED if under_way or any(item.state != "applied" for item in states) else 0

    # --- a roll-out ---

    def _roll_out(self, rules: str, *, file: str, restores: int = 0, fleet: Fleet | None = None) -> int:
        given = self._arguments
        ruleset = check_rules(rules, file=file, config=self._store.config)
        count = sum(len(chain.rules) for chain in ruleset.chains)
        fleet = fleet or self._fleet()
        wish = Wish(
            rules=rules,
            canaries=given.canaries,
            stages=given.stages,
            timeout=given.timeout,
            soak=given.soak,
            missing=given.missing,
            at_once=given.now,
            force=given.force,
            message=given.message,
            restores=restores,
        )
        refuse_beside(fleet)
        if fleet.common is not None and fleet.common.digest == digest(rules) and not given.force:
            said = f"release {fleet.release} has these rules already"
            self._print(lambda: {"release": fleet.release, "phase": "done", "reason": "", "unchanged": True}, [said])
            return 0
        state = planned(fleet, wish)
        if given.dry_run:
            self._print(lambda: plan_data(state, rules=count), plan_lines(state, rules=count))
            return 0
        hold, text = begin(self._client, self._store.keys, fleet, wish, patience=self._patience())
        self._say(f"release {hold.state.release}: {count} rules")
        return self._go(hold, text)

    def _go(self, hold: Hold, text: ReleaseText | None) -> int:
        """Take a roll-out to its end; whoever interrupts it is told how it stands."""
        patience = max(_PATIENCE, hold.state.timeout)
        pusher = Pusher(self._client, self._store.keys, hold, text=text, patience=patience, tell=self._say)
        try:
            outcome = pusher.run()
        except (KeyboardInterrupt, EtcdError):
            state = hold.state
            if state.under_way:
                where = f"{state.phase}; on trial at: {named(state.trying) or '-'}"
                told = f"release {state.release} stands where it is ({where})"
                self._note(f"{told}: 'meshfw fleet push --resume' goes on, 'meshfw fleet abort' takes it back")
            raise
        self._print(lambda: outcome_data(outcome), outcome_lines(outcome))
        return _code(outcome)

    def _patience(self) -> float:
        return max(_PATIENCE, float(self._arguments.timeout))

    def _fleet(self) -> Fleet:
        return read_fleet(self._client, self._store.keys)

    # --- saying ---

    def _say(self, line: str) -> None:
        """A line about what goes on; not where a program waits for JSON."""
        if not self._arguments.json:
            self._write(line)
            sys.stdout.flush()

    def _print(self, data: Callable[[], Mapping[str, Any]], lines: Iterable[str]) -> None:
        if self._arguments.json:
            sys.stdout.write(f"{json.dumps(data(), indent=2)}\n")
            return
        for line in lines:
            self._write(line)

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{printable(line)}\n")

    def _note(self, line: str) -> None:
        sys.stderr.write(f"meshfw: {printable(line)}\n")


def _code(outcome: Outcome) -> int:
    if outcome.phase != "done":
        return HALTED
    return 0 if outcome.complete else INCOMPLETE
