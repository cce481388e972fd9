"""A clock that tells by a descriptor when a moment has come: timerfd_create(2), which Python 3.11 and 3.12 lack."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # at run time it's imported where it's used: only the agent waits
    import ctypes

# linux/time.h, linux/timerfd.h
_CLOCK_REALTIME: Final = 0
_ABSOLUTE: Final = 1
_CANCEL_ON_SET: Final = 2

_NEVER: Final = 1 << 40  # some 34,000 years; a timer of 0 would be none, and tell of no new time either
_TIMES: Final = struct.Struct("@llll")  # struct itimerspec: interval, and first time, in seconds and nanoseconds


class Clock:
    """A timer on the wall clock; it also tells when somebody sets the clock. OSError where the system gives none."""

    def __init__(self) -> None:
        self._libc = _libc()
        self._descriptor = _checked(
            self._libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)  # the flags have these values
        )
        self._at = 0
        self.tell_at(None)

    def fileno(self) -> int:
        """The descriptor that becomes readable; -1 once it is closed."""
        return self._descriptor

    def tell_at(self, second: int | None) -> None:
        """Tell in that Unix second, at once if it has come, and at no other that was said before; None: never."""
        at = _NEVER if second is None else min(max(second, 1), _NEVER)
        if at != self._at and self._descriptor >= 0:
            times = _TIMES.pack(0, 0, at, 0)
            _checked(self._libc.timerfd_settime(self._descriptor, _ABSOLUTE | _CANCEL_ON_SET, times, None))
            self._at = at

    def drain(self) -> bool:
        """Take note that the moment has come, or that the clock was set; whether it was so."""
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        self._at = 0  # it tells but once: of the same second too it has to be asked again
        return True

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _libc() -> ctypes.CDLL:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)  # what the interpreter has loaded: a search would spawn compilers
    libc.timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
    libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    return libc


def _checked(result: int) -> int:
    """What a call of the C library gave; OSError where that is -1."""
    import ctypes

    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
