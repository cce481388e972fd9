"""Everybody's rules on a host, as iptables-save prints them."""

from __future__ import annotations

from typing import Final

from meshfw.errors import BackendError
from meshfw.kernel.command import run
from meshfw.kernel.netns import entered
from meshfw.model import Family

_TOOLS: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
_TIMEOUT: Final = 60
_UNTOLD: Final = "is incompatible, use 'nft' tool"


def host_dump(variant: str, family: Family, netns: str | None = None) -> str:
    """What ``iptables-VARIANT-save`` prints of a host, or of a network namespace.

    Raises BackendError where the tool is missing or fails, and for a table that it leaves out: that it does with exit
    code 0.
    """
    tool = f"{_TOOLS[family]}-{variant}-save"
    with entered(netns):
        done = run([tool], timeout=_TIMEOUT)
    for line in (*done.stdout.splitlines(), *done.stderr.splitlines()):
        if _UNTOLD in line:
            raise BackendError(f"{tool}: {line.lstrip('# ')}", remedy="compare it as live:nft")
    return done.stdout
