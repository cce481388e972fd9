"""What a run was measured on: processor, kernel, and the versions of everything that takes part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from typing import Any

from meshfw.kernel.command import find

_DISTRIBUTIONS = ("meshfw", "msgspec")


def machine(tools: Iterable[str]) -> dict[str, Any]:
    """The machine and the versions of Python, libraries and tools; nothing that names the host or its user."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": platform.release().partition("-")[0],  # what follows names a build, at times its place
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: _installed(name) for name in _DISTRIBUTIONS},
        **{tool: _version(tool) for tool in sorted(set(tools))},
    }


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed, run from its directory"


def _line(path: str, field: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        found = next((line for line in file if line.startswith(field)), "")
    return found.partition(":")[2].strip()


def _version(tool: str) -> str:
    done = subprocess.run((find(tool) or tool, "--version"), capture_output=True, text=True, check=False)
    return done.stdout.strip().partition("\n")[0]
