"""What a command of meshfw's said, as tests look at it."""

from __future__ import annotations

import json
from typing import Any


class Said:
    """What a command said, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def data(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)
