"""The agent's one thread: it waits, hears, looks and repairs, and decides when each is next due.

Everything that shall happen stands in one table of moments, so the loop is: wait for the first of them or for an event,
then do what is due. The clock is CLOCK_BOOTTIME (clock_gettime(2)), which goes on while the machine sleeps.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from math import inf
from random import random
from typing import Final

from meshfw import __version__
from meshfw.agent.demand import Demand
from meshfw.agent.door import Door
from meshfw.agent.ears import Ears, Readable, signals
from meshfw.agent.keeper import Keeper, Keeping
from meshfw.agent.orphans import bury_orphans
from meshfw.agent.outside import Outside
from meshfw.agent.past import Past
from meshfw.agent.renewal import renewed
from meshfw.agent.schedule import Schedule
from meshfw.agent.status import Phase, Status
from meshfw.agent.voice import Voice
from meshfw.agent.watchman import Watchman
from meshfw.backends.instance import namespace_identity
from meshfw.errors import ConfigError, LockError, MeshfwError, RolledBackError, VerifyError
from meshfw.settings import AgentSettings, OnStop
from meshfw.workshop import Where, Workshop

RELOAD: Final = "reload"
LOOK: Final = "look"
STOP: Final = "stop"
_OPEN, _LOAD, _CHECK, _CALM, _KERNEL, _CONFIG, _SOURCE = "open", "load", "check", "calm", "kernel", "config", "source"
_ORDER: Final = (RELOAD, _OPEN, _LOAD, _CALM, LOOK, _CHECK)
"""What is due at one moment is done in this order."""

_LONGEST_WAIT: Final = 60.0
_SETTLE: Final = 0.2
"""Seconds after the change of a file before it's read: an editor may be writing still."""
_RETRY_FIRST, _RETRY_LONGEST = 1.0, 60.0
_LOCKED_PAUSE: Final = 1.0
_ABSENT_PAUSE: Final = 1.0
"""Seconds between two looks for a namespace that isn't there: it's bare of rules from its first moment on."""

_WORDS: Final[Mapping[int, str]] = {signal.SIGHUP: RELOAD, signal.SIGTERM: STOP, signal.SIGINT: STOP}


class Agent:
    """Keeps the rules of one configuration in place until it's told to stop.

    ``shop`` is what the configuration made, and ``where`` how to make it again; ``past`` knows what was applied before;
    ``outside`` is whoever runs it.
    """

    def __init__(
        self,
        shop: Workshop,
        where: Where,
        *,
        voice: Voice,
        past: Past,
        outside: Outside | None = None,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        chance: Callable[[], float] = random,
    ) -> None:
        self._shop = shop
        self._where = where
        self._voice = voice
        self._past = past
        self._outside = outside or Outside()
        self._door = Door(self._outside, voice)
        self._clock = clock
        self._chance = chance
        self.ears = Ears()
        self._schedule = Schedule(_ORDER, clock)
        self._keeper: Keeper | None = None
        self._demand = Demand(shop, past, self._settings)
        self._watchman = self._new_watchman()
        self._config_changes = self._outside.changes(shop)
        self._kept: Keeping | None = None
        self._retry = _RETRY_FIRST
        self._stopped = False

    @property
    def _settings(self) -> AgentSettings:
        return self._shop.config.agent

    def _new_watchman(self) -> Watchman:
        return Watchman(
            self._settings,
            voice=self._voice,
            past=self._past,
            formatter=self._shop.formatter,
            clock=self._clock,
            chance=self._chance,
            alive=self._alive,
        )

    @property
    def status(self) -> Status:
        """What it says of itself; from any thread."""
        return self._voice.status

    @property
    def owner(self) -> str:
        """Whose rules it keeps."""
        return self._shop.config.owner

    @property
    def netns(self) -> str | None:
        """In which network namespace, as the user named it; None: its own."""
        return self._shop.site.netns

    # --- the loop ---

    def run(self) -> None:
        """Work until a signal or a word says stop."""
        try:
            with signals(self.ears, _WORDS):
                self._begin()
                while not self._stopped:
                    self.step()
                self._end()
        finally:
            self.close()

    def _begin(self) -> None:
        self._voice.note(
            pid=os.getpid(),
            version=__version__,
            owner=self.owner,
            netns=self.netns,
            config=self._shop.config.file,
            started=time.time(),
            warnings=tuple(self._shop.warnings),
        )
        self._listen()
        self._schedule.soon(_OPEN)
        self._do_due()
        self._voice.notifier.ready(self._voice.headline)
        self._voice.info(f"keeping the rules of {self.owner}", backend=self._voice.status.backend)
        self._plan_check()

    def step(self) -> None:
        """Wait for what comes first, and do what is then due."""
        woken = self.ears.wait(self._schedule.left(self._alive()))
        bury_orphans()
        self._hear(woken)
        if not self._stopped:
            self._do_due()

    def _alive(self) -> float:
        """Give a sign of life; the seconds within which the next one has to come."""
        limit = self._voice.notifier.watchdog_interval or _LONGEST_WAIT
        self._outside.beat(limit)
        self._voice.notifier.watchdog()
        return limit

    def _do_due(self) -> None:
        for name in self._schedule.take():
            self._actions[name](self)

    def close(self) -> None:
        """Give everything back; the rules stay."""
        self._door.close()
        self._demand.close()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        self.ears.close()

    def _end(self) -> None:
        self._voice.note(phase=Phase.STOPPING, reason="told to stop")
        self._voice.notifier.stopping()
        if self._settings.on_stop is OnStop.CLEAN and self._keeper is not None:
            try:
                with self._keeper.alone():
                    why_not = self._keeper.clean()
            except MeshfwError as error:
                why_not = str(error)
            if why_not:
                self._voice.error(f"stopped, and the rules were not taken away: {why_not}")
            else:
                self._voice.info("stopped, and took the rules away")
        else:
            self._voice.info("stopped; the rules stay in place")

    # --- hearing ---

    def _listen(self) -> None:
        named: dict[str, Readable] = {}
        if self._keeper is not None and self._keeper.watch is not None:
            named[_KERNEL] = self._keeper.watch
        if self._config_changes is not None and self._settings.follow:
            named[_CONFIG] = self._config_changes
        named.update({f"{_SOURCE} {number}": changes for number, changes in enumerate(self._demand.changes)})
        self.ears.listen(named)

    def _hear(self, woken: frozenset[str]) -> None:
        for word in woken:
            if word == _KERNEL:
                self._hear_kernel()
            elif word == _CONFIG and self._config_changes is not None:
                if self._config_changes.drain():
                    self._schedule.soon(RELOAD, _SETTLE)
            elif word.startswith(_SOURCE):
                self._hear_source(int(word.split()[1]))
            elif word == STOP:
                self._stopped = True
            elif word in (RELOAD, LOOK):
                self._voice.asked()
                self._watchman.forgive()
                self._schedule.soon(word)

    def _hear_source(self, number: int) -> None:
        try:
            if self._demand.heard(number):
                self._schedule.soon(RELOAD if self._demand.untaken else _LOAD, _SETTLE)
        except (MeshfwError, OSError) as error:
            self._listen()
            self._failed(error, _LOAD)

    def _hear_kernel(self) -> None:
        if self._keeper is None or self._keeper.watch is None:
            return
        try:
            events = self._keeper.watch.events()
        except (MeshfwError, OSError) as error:  # it hears nothing more: all is opened anew
            self._keeper.close()
            self._keeper = None
            self._listen()
            self._failed(error, _OPEN)
            return
        for event in events:
            if event.generation:
                self._voice.note(generation=event.generation)
            due = None if event.own else self._watchman.heard(event)
            if due is not None and self._voice.status.phase is not Phase.FAILING:  # which has a pause of its own
                self._schedule.at(LOOK, due)

    # --- configuration and sources ---

    def _reload(self) -> None:
        """Take the configuration anew; a bad one is told of, and the old one stays."""
        self._voice.notifier.reloading("reading the configuration")
        try:
            shop, keeper = renewed(self._shop, self._where)
        except (MeshfwError, OSError) as error:
            self._voice.refused(str(error))
            self._demand.untaken = str(error)
            self._schedule.soon(_LOAD)  # a rollback holds all the same
            self._schedule.soon(RELOAD, self._settings.resync)  # it may have been a source's fault
        else:
            self._take(shop, keeper)
        self._voice.notifier.ready(self._voice.headline)

    def _take(self, shop: Workshop, keeper: Keeper | None) -> None:
        """Work with a new configuration from now on, and with its backend or one that's opened as soon as it can be."""
        self._shop = shop
        self._demand.close()
        self._demand = Demand(shop, self._past, self._settings, kept=self._demand.kept)
        self._watchman.forgive()
        self._watchman = self._new_watchman()
        self._voice.taken(shop.warnings)
        self._outside.adopted(shop)
        self._plan_check()
        if self._keeper is not None:
            self._keeper.close()
        self._keeper = keeper
        self._listen()
        if keeper is None:
            self._open()
        else:
            self._begin_keeping(keeper)

    def _open(self) -> None:
        """Open the backend; where it can't be, try again later."""
        if self._keeper is not None:  # by a reload, meanwhile
            return
        try:
            self._keeper = keeper = Keeper(self._shop)
        except ConfigError:
            raise
        except (MeshfwError, OSError) as error:
            absent = namespace_identity(self.netns) is None
            self._failed(error, _OPEN, longest=_ABSENT_PAUSE if absent else _RETRY_LONGEST)
            return
        self._begin_keeping(keeper)

    def _begin_keeping(self, keeper: Keeper) -> None:
        """Be heard, hear, and put in place what is wanted, through a backend that was just opened."""
        self._voice.note(backend=keeper.backend.name)
        self._voice.once("namespace", "")
        self._watchman.begin()
        self._door.open(self)
        self._kept = None
        self._listen()
        self._schedule.soon(_LOAD)

    def _load(self) -> None:
        """Ask the sources, and look whether the kernel holds what they say."""
        if self._keeper is None:
            return
        try:
            wanted, self._kept = self._demand.kept_here(self._keeper, self._kept)
        except (MeshfwError, OSError) as error:
            self._failed(error, _LOAD)
            return
        self._voice.once("sources", wanted.trouble)
        self._voice.note(source=wanted.origin, problem=wanted.trouble)
        self._listen()
        if wanted.problem or self._demand.silent:
            self._schedule.soon(_LOAD, min(self._settings.resync, _RETRY_LONGEST if wanted.problem else inf))
        if self._kept is None:
            self._voice.note(phase=Phase.FAILING, healthy=False, reason=wanted.problem)
            return
        fitted = self._kept.fitted
        rules = sum(len(chain.rules) for chain in fitted.chains)
        self._voice.note(rules=rules, chains=len(fitted.chains), sets=len(fitted.sets))
        self._schedule.soon(LOOK)

    # --- looking and repairing ---

    def _look(self) -> None:
        """Ask whether the rules stand, repair them where not, and say when to ask again."""
        keeper, kept = self._keeper, self._kept
        if keeper is None or kept is None:
            return
        try:
            if keeper.moved():
                self._lose(keeper)
                return
            if self._watchman.look(keeper, kept):
                self._retry = _RETRY_FIRST
                self._demand.settle(self._watchman.declared, self._watchman.outcome)
            else:
                self._demand.overtaken()
                self._schedule.soon(RELOAD)
            self._schedule.at(LOOK, self._watchman.next_look)
        except RolledBackError as error:
            self._voice.error(f"undone: {error}")
            self._demand.reject(str(error))
            self._past.seen()
            self._schedule.soon(_LOAD)
        except (MeshfwError, OSError) as error:
            self._failed(error, LOOK)
            self._demand.failed(error)
            if isinstance(error, VerifyError):
                self._watchman.unproven(keeper, kept)
        self._voice.told(self._shop.warnings)
        self._voice.told(self._past.notes)
        if self._watchman.calm_at is not None:
            self._schedule.at(_CALM, self._watchman.calm_at)

    def _calm(self) -> None:
        self._watchman.calm()
        if self._watchman.calm_at is not None:
            self._schedule.at(_CALM, self._watchman.calm_at)

    def _plan_check(self) -> None:
        if self._settings.full_check:
            self._schedule.soon(_CHECK, self._settings.full_check)

    def _check(self) -> None:
        self._plan_check()
        if not self._settings.full_check or self._keeper is None or self._kept is None:
            return
        if self._watchman.check(self._keeper, self._kept):
            self._schedule.soon(LOOK)

    def _lose(self, keeper: Keeper) -> None:
        """The namespace went away, or another one has its name."""
        keeper.close()
        self._keeper = None
        self._listen()
        self._voice.once("namespace", f"the network namespace {self.netns} went away")
        self._voice.note(phase=Phase.FAILING, healthy=False, reason="the network namespace went away")
        self._schedule.soon(_OPEN)

    def _failed(self, error: Exception, again: str, *, longest: float = _RETRY_LONGEST) -> None:
        """Say what went wrong, and try again after a pause that grows."""
        pause = _LOCKED_PAUSE if isinstance(error, LockError) else self._retry * (1 + self._chance() / 2)
        pause = min(pause, longest * (1 + self._chance() / 2))
        self._retry = min(_RETRY_LONGEST, self._retry * 2)
        self._voice.failed(error, str(error), retry=time.time() + pause)
        self._schedule.postpone(again, pause)

    _actions: Final[Mapping[str, Callable[[Agent], None]]] = {
        RELOAD: _reload,
        _OPEN: _open,
        _LOAD: _load,
        _CALM: _calm,
        LOOK: _look,
        _CHECK: _check,
    }
