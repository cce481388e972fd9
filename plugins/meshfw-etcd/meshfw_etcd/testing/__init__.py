"""What tests of rules from etcd need: a real server, a relay to cut, and a desk to publish from."""

from __future__ import annotations

from meshfw_etcd.testing.desk import Desk, heard, until
from meshfw_etcd.testing.relay import Relay
from meshfw_etcd.testing.server import Server

__all__ = ["Desk", "Relay", "Server", "heard", "until"]
