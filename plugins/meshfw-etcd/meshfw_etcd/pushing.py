"""The roll-out of a release: stage by stage while nothing speaks against it, and back again as soon as something does.

Whatever is to be known to go on stands in the store, so that whoever comes after a pusher that was killed goes on where
he stood, or takes the trials back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshfw_etcd.client import Client
from meshfw_etcd.documents import Ack, Common, Trial, write
from meshfw_etcd.errors import DocumentError
from meshfw_etcd.fleet import read_acks
from meshfw_etcd.hold import Hold
from meshfw_etcd.judging import Verdict, judge, named, silent
from meshfw_etcd.keys import Keys, behind
from meshfw_etcd.messages import Delete, Put, Unchanged
from meshfw_etcd.patience import patiently
from meshfw_etcd.releases import KEPT, Phase, ReleaseText
from meshfw_etcd.trials import Trials

LOOK: Final = 0.25
"""Seconds between two looks at the acknowledgements."""
_SAY: Final = 5.0
"""Seconds after which a wait says how far it is."""
_MOST: Final = 50
"""Old releases that one transaction takes away."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a roll-out ended.

    ``verdict`` is about all nodes where the release was published, else about those that tried it, and whether they
    hold the former release again. ``problems`` are what a person should look at.
    """

    release: int
    phase: Phase
    reason: str = ""
    tried: tuple[str, ...] = ()
    verdict: Verdict = Verdict()
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the release is that of all nodes, and each of them holds it."""
        return self.phase == "done" and not self.reason


class Pusher:
    """Whoever takes a roll-out on from where it stands; ``tell`` gets a line for each step.

    ``text`` is the release, None where it's gone, which only matters while nodes try it. ``patience`` is how many
    seconds the store may be away.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        hold: Hold,
        *,
        text: ReleaseText | None,
        patience: float,
        tell: Callable[[str], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._hold = hold
        self._text = text
        self._patience = patience
        self._tell = tell
        self._trials = Trials(client, keys, hold, patience=patience)

    def run(self) -> Outcome:
        """Take it to its end.

        Raises:
            ConflictError: somebody else took over. EtcdError: the store is away for good, and the roll-out stands.
        """
        verdict = Verdict()
        tried: tuple[str, ...] = ()
        while self._hold.state.under_way:
            match self._hold.state.phase:
                case "trying":
                    self._try()
                case "settling":
                    verdict = self._settle()
                case _:
                    tried = tuple(dict.fromkeys((*tried, *self._hold.state.trying)))
                    self._take_back()
        state = self._hold.state
        if state.phase != "done":
            verdict = self._back(tried)
        return Outcome(
            release=state.release,
            phase=state.phase,
            reason=state.reason,
            tried=tried,
            verdict=verdict,
            problems=tuple(self._trials.problems),
        )

    # --- forth ---

    def _try(self) -> None:
        """One stage; the state says afterwards what is next."""
        state = self._hold.state
        if self._text is None:
            return self._halt(f"the text of release {state.release} is gone")
        if state.stage < len(state.route.ends):
            nodes = state.route.tried(state.stage)
            self._tell(f"stage {state.stage + 1} of {len(state.route.ends) + 1}: {_nodes(nodes)}")
            try:
                self._trials.give(Trial.of(state.release, self._text.rules, force=state.force), nodes)
            except DocumentError as error:
                return self._halt(str(error))
            reason = self._proven(nodes)
            if reason:
                return self._halt(reason)
            if state.stage + 1 < len(state.route.ends):
                self._hold.write(stage=state.stage + 1)
                return None
        return self._publish(self._text)

    def _proven(self, nodes: Collection[str]) -> str:
        """Why the nodes that try the release speak against it; empty where they applied it and kept it so."""
        state = self._hold.state
        verdict = self._wait(nodes, release=state.release, digest=state.digest, timeout=state.timeout)
        if verdict.bad or len(verdict.missing) > state.missing:
            return verdict.bad or f"{silent(verdict.missing)} in {state.timeout:g} s"
        if not verdict.applied:  # however many may say nothing: what nobody has applied isn't proven
            return f"nobody applied it in {state.timeout:g} s"
        self._tell(f"  {_count(len(verdict.applied))} applied it{_soaking(state.soak)}")
        end, missing = time.monotonic() + state.soak, len(verdict.missing)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(LOOK, left))
            now = self._look(nodes, release=state.release, digest=state.digest)
            if now.bad or len(now.missing) > missing:
                return now.bad or f"it didn't last: {silent(now.missing)} any more"
            self._hold.beat()
        return ""

    def _publish(self, text: ReleaseText) -> None:
        state = self._hold.state
        common = Common.of(state.release, text.rules, force=state.force)
        kept = msgspec.structs.replace(text, published=time.time())
        puts = [Put(self._keys.common, write(common)), Put(self._keys.release(state.release), write(kept))]
        if self._hold.write(puts, checks=[Unchanged(self._keys.common, state.common)], phase="settling"):
            self._tell(f"release {state.release} is that of all nodes now")
        else:
            self._halt("somebody else published in between")

    def _settle(self) -> Verdict:
        """What all nodes say of the release that is theirs now; the trials, which nobody needs any more, are gone."""
        state = self._hold.state
        verdict = self._wait(None, release=state.release, digest=state.digest, timeout=state.timeout)
        self._trials.take_back()
        self._forget_old()
        parts = [verdict.bad, silent(verdict.missing) if verdict.missing else ""]
        self._hold.write(phase="done", reason="; ".join(filter(None, parts)))
        return verdict

    def _forget_old(self) -> None:
        """Take away releases that are too old to be brought back; what stands and what stood before it stay."""
        state, prefix = self._hold.state, self._keys.releases
        found = patiently(lambda: self._client.range(prefix, behind(prefix), bare=True), patience=self._patience)
        keep = {self._keys.release(number) for number in (state.release, state.base)}
        keys = sorted(pair.key.decode() for pair in found.pairs)
        old = [key for key in keys[: -KEPT or None] if key not in keep]
        if old:
            self._hold.write([Delete(key) for key in old[:_MOST]])

    # --- back ---

    def _halt(self, reason: str) -> None:
        self._tell(f"halted: {reason}")
        self._hold.write(phase="halting", reason=reason)

    def _take_back(self) -> None:
        state = self._hold.state
        if state.reached:
            self._tell(f"taking the trial back from {_nodes(state.trying)}")
        self._trials.take_back()
        self._hold.write(phase=state.ends_as)

    def _back(self, tried: Sequence[str]) -> Verdict:
        """Whether the nodes that tried the release went on to another, mostly the former, as they tell in time."""
        state = self._hold.state
        if not tried or not state.base:
            return Verdict(missing=tuple(tried))
        end = time.monotonic() + state.timeout
        while True:
            acks = self._acks()
            back = [name for name in tried if name in acks and acks[name].release != state.release]
            if len(back) == len(tried) or time.monotonic() > end:
                return Verdict(applied=tuple(back), missing=tuple(name for name in tried if name not in back))
            time.sleep(LOOK)

    # --- looking ---

    def _wait(self, nodes: Collection[str] | None, *, release: int, digest: str, timeout: float) -> Verdict:
        """What the nodes (None: all) say as soon as all have spoken, one speaks against it, or time is up.

        Time in which the store is away doesn't count. Where the release is that of all, one who speaks against it
        changes nothing for the others, and all are waited for.
        """
        start = said = time.monotonic()
        while True:
            before = time.monotonic()
            verdict = self._look(nodes, release=release, digest=digest)
            now = time.monotonic()
            start += max(0.0, now - before - LOOK)
            if verdict.later or (verdict.bad and nodes is not None) or not verdict.missing or now - start > timeout:
                return verdict
            if now - said > _SAY:
                self._tell(f"  {len(verdict.applied)} applied it, {len(verdict.missing)} are awaited")
                said = now
            self._hold.beat()
            time.sleep(LOOK)

    def _look(self, nodes: Collection[str] | None, *, release: int, digest: str) -> Verdict:
        acks = self._acks()
        wanted = sorted(acks) if nodes is None else nodes
        failing = self._hold.state.failing
        return judge(acks, wanted, release=release, digest=digest, failing=failing)

    def _acks(self) -> Mapping[str, Ack]:
        return patiently(lambda: read_acks(self._client, self._keys), patience=self._patience)


def _soaking(seconds: float) -> str:
    return f"; waiting {seconds:g} s whether it lasts" if seconds else ""


def _nodes(names: Collection[str]) -> str:
    return f"{_count(len(names))} ({named(names)})"


def _count(number: int) -> str:
    return f"{number} node{'' if number == 1 else 's'}"
