"""What several modules about the agent share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**named: object) -> World:
        made.append(World(tmp_path, **named))  # type: ignore[arg-type]  # a test's own words
        return made[-1]

    yield make
    for each in made:
        each.agent.close()
