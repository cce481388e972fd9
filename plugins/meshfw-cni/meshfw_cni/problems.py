"""The errors that a runtime is told of: a number of the CNI specification (or our own), a sentence, and details."""

from __future__ import annotations

from typing import Final

INCOMPATIBLE_VERSION: Final = 1
BAD_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
UNDECODABLE: Final = 6
BAD_CONFIG: Final = 7
TRY_AGAIN: Final = 11
UNAVAILABLE: Final = 50
UNAVAILABLE_LIMITED: Final = 51
FIREWALL: Final = 100
"""Ours: the firewall refused, or couldn't be read or written."""
NOT_AS_RECORDED: Final = 101
"""Ours: CHECK found that rules of the attachment don't stand, or nothing is known of it."""
BAD_STATE: Final = 102
"""Ours: the file of attachments is damaged."""
INTERNAL: Final = 999
"""A defect of this plugin, the number that the reference plugins give for theirs."""


class CniError(Exception):
    """What the runtime is told, as the specification's object: code, msg and details."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}: {self.details}" if self.details else self.message
