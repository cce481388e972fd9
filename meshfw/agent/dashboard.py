"""The dashboard for Grafana (10 or later) that comes with the package; its data source is the reader's choice."""

from __future__ import annotations

from importlib.resources import files


def dashboard() -> str:
    """The dashboard as Grafana imports it: JSON."""
    return files("meshfw.agent").joinpath("dashboard.json").read_text(encoding="utf-8")
