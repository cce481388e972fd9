"""What several modules about the kernel share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from meshfw.testing.netns import Netns
from tests.kernel.damage import VARIANTS, House, house


@pytest.fixture(scope="module", params=VARIANTS)
def home(
    request: pytest.FixtureRequest, requires: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """One house of each variant for all tests of a module."""
    variant: str = request.param
    requires(f"iptables-{variant}-restore", f"ip6tables-{variant}-restore")
    make: Callable[[], Netns] = request.getfixturevalue("kernel_room")
    with house(variant, make, tmp_path_factory.mktemp("house")) as made:
        yield made
