"""Laws of the one place in which the agent waits: every word and descriptor is heard, and nothing in vain."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from meshfw.agent.ears import Ears, signals


class Pipe:
    """A descriptor that others make readable."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def fileno(self) -> int:
        """The end to wait for."""
        return self.read


def test_a_word_from_another_thread_ends_the_wait() -> None:
    ears = Ears()
    threading.Timer(0.05, ears.say, ("reload",)).start()
    begun = time.monotonic()
    assert ears.wait(30) == {"reload"}
    assert time.monotonic() - begun < 20
    ears.close()


def test_words_said_before_the_wait_are_heard_all_at_once_and_only_once() -> None:
    ears = Ears()
    ears.say("a")
    ears.say("b")
    assert ears.wait(30) == {"a", "b"}
    assert ears.wait(0) == frozenset()
    ears.close()


def test_a_descriptor_is_heard_by_its_name_until_it_is_read() -> None:
    ears, pipe = Ears(), Pipe()
    ears.listen({"kernel": pipe})
    assert ears.wait(0.01) == frozenset()
    os.write(pipe.write, b"x")
    assert ears.wait(30) == {"kernel"}
    assert ears.wait(30) == {"kernel"}
    os.read(pipe.read, 1)
    assert ears.wait(0.01) == frozenset()
    ears.close()


def test_what_is_listened_to_no_longer_is_not_heard() -> None:
    ears, old, new = Ears(), Pipe(), Pipe()
    ears.listen({"old": old})
    os.write(old.write, b"x")
    os.write(new.write, b"x")
    ears.listen({"new": new})
    assert ears.wait(30) == {"new"}
    os.close(new.read)
    ears.listen({})  # a descriptor that was closed meanwhile is nobody's trouble
    assert ears.wait(0.01) == frozenset()
    ears.close()


def test_a_descriptor_that_nobody_writes_to_any_more_wakes_once() -> None:
    ears, ended, closed = Ears(), Pipe(), Pipe()
    ears.listen({"ended": ended, "closed": closed})
    os.close(ended.write)
    os.close(closed.read)
    assert ears.wait(30) == {"ended", "closed"}
    assert ears.wait(0.01) == frozenset()
    ears.listen({})
    ears.close()


def test_signals_are_words_inside_the_block_and_what_they_were_outside() -> None:
    ears = Ears()
    before = signal.getsignal(signal.SIGHUP)
    with signals(ears, {signal.SIGHUP: "reload"}):
        os.kill(os.getpid(), signal.SIGHUP)
        assert ears.wait(30) == {"reload"}
    assert signal.getsignal(signal.SIGHUP) is before
    ears.close()


def test_a_word_after_the_end_is_no_error() -> None:
    ears = Ears()
    ears.close()
    ears.say("late")
    ears.close()


@pytest.mark.parametrize("seconds", [-1.0, 0.0])
def test_no_time_is_no_wait(seconds: float) -> None:
    ears = Ears()
    assert ears.wait(seconds) == frozenset()
    ears.close()
