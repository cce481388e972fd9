"""Packets over the loopback of a network namespace: whether the rules there let one through, and counters that move."""

from __future__ import annotations

import socket
from typing import Final

from meshfw.kernel.netns import entered
from meshfw.model import Family

__all__ = ["delivers"]

_HOSTS: Final = {Family.IPV4: (socket.AF_INET, "127.0.0.1"), Family.IPV6: (socket.AF_INET6, "::1")}
_SECONDS: Final = 0.05
"""How long a datagram is waited for; over the loopback it's there before the sender goes on."""


def delivers(namespace: str, family: Family) -> bool:
    """Whether one UDP datagram comes through the hooks output, postrouting, prerouting and input.

    ``namespace`` is a network namespace by name or path, with its loopback up. A rule that refuses the datagram on its
    way out is an undelivered one too.
    """
    kind, host = _HOSTS[family]
    with entered(namespace):
        receiver = socket.socket(kind, socket.SOCK_DGRAM)
        sender = socket.socket(kind, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((host, 0))
        receiver.settimeout(_SECONDS)
        try:
            sender.sendto(b"meshfw", receiver.getsockname())
            return receiver.recv(16) == b"meshfw"
        except (TimeoutError, PermissionError):
            return False
