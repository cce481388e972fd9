"""What every test runs under: hypothesis' profiles; the fixtures are those of ``meshfw.testing.fixtures``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from meshfw.testing.fixtures import IN_CI, cannot_run

collect_ignore_glob = ["golden/*"]  # what a new plugin begins as has tests of its own, for its own environment

# No deadline in any profile: a test that talks to the kernel shares its two cores with the others.
settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "full", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "quick"))

__all__ = ["IN_CI", "cannot_run"]
