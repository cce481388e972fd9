"""The parts that a kernel is made of: which of them work now and which it could load, found out without loading any.

Many questions to a kernel load what would answer them: a first message to nf_tables its module, a first look at a
table of iptables that table's. Who only wants to know what is there asks here first (proc(5), modprobe(8)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

_LOADED: Final = "/sys/module"
_LOADING: Final = "/proc/modules"
"""There where a kernel can load modules at all."""
_DISABLED: Final = "/proc/sys/kernel/modules_disabled"
_FILES: Final = "/lib/modules"


def surely_absent(module: str) -> bool:
    """Whether a part of the kernel is a module that isn't loaded, so that nothing of it can be in use.

    False where that can't be told, as in a container without the host's /lib/modules, and where it's built in: what
    is built in has a directory under /sys/module only if it has parameters.
    """
    if os.path.exists(f"{_LOADED}/{module}") or not os.path.exists(_LOADING):
        return False
    built_in = _listed("modules.builtin", module)
    return built_in is False


def out_of_reach(module: str) -> bool:
    """Whether a part that doesn't work now can't be loaded either; False where that can't be told."""
    if not os.path.exists(_LOADING):
        return True
    try:
        with open(_DISABLED, encoding="ascii") as file:
            if file.read().strip() == "1":
                return True
    except OSError:
        pass
    return _listed("modules.dep", module) is False and _listed("modules.builtin", module) is False


def _listed(index: str, module: str) -> bool | None:
    """Whether an index of the running kernel's modules lists one; None where there is no such index."""
    try:
        return any(name == module for name in _names(f"{_FILES}/{os.uname().release}/{index}"))
    except OSError:
        return None


def _names(path: str) -> Iterator[str]:
    """The modules of an index, one on each line before a colon; a name's dashes and underscores are the same."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            found = re.match(r"(?:[^:\s]*/)?([^/:\s.]+)\.ko", line)
            if found:
                yield found[1].replace("-", "_")
