"""The ways of an ordinary user: to network namespaces through ``unshare --user --net``, and to a lock of one's own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from meshfw.errors import BackendError, CommandError
from meshfw.kernel.command import find, run
from meshfw.kernel.netns import refused

_UNSHARE: Final = ("unshare", "--user", "--map-root-user", "--net")
_SECONDS: Final = 10.0
_LOCK: Final = "XTABLES_LOCKFILE"  # iptables(8), -w
_REMEDY: Final = (
    "run it as root, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
)


def run_inside(argv: Sequence[str], *, reason: str) -> NoReturn:
    """Become ``argv``, root in a user namespace of its own with a network namespace that is its own too.

    ``reason`` is why that is needed. Raises BackendError where it would not help (we are root already) or where
    the system lets no ordinary user do it; otherwise it doesn't return.
    """
    program = find(_UNSHARE[0])
    if os.geteuid() == 0 or program is None:
        remedy = "run it as root on the host" if program else "apt-get install util-linux"
        raise BackendError(f"no network namespace can be made here: {reason}", remedy=remedy)
    try:
        run((*_UNSHARE, "true"), timeout=_SECONDS)
    except CommandError as error:
        raise BackendError(f"no network namespace can be made here: {error}", remedy=_REMEDY) from error
    sys.stdout.flush()
    try:
        os.execv(program, (*_UNSHARE, *argv))  # noqa: S606 - an argument list of ours, and no shell
    except OSError as error:
        raise refused(error, f"start {program}") from error


@contextmanager
def own_xtables_lock() -> Iterator[None]:
    """A block in which iptables-legacy locks a file of ours, unless the environment names one already.

    That of the host is root's, and would have the host's firewall wait for what happens in other namespaces.
    """
    if _LOCK in os.environ:
        yield
        return
    with tempfile.NamedTemporaryFile(prefix="meshfw-xtables-") as file:
        os.environ[_LOCK] = file.name
        try:
            yield
        finally:
            del os.environ[_LOCK]
