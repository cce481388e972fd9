"""CNI configurations like Kilo's."""

from __future__ import annotations

from typing import Any, Final

V4: Final = {"subnet": "10.42.0.0/24"}
V6: Final = {"subnet": "fd00:42::/64"}
OTHER: Final = {"subnet": "10.42.7.0/24"}


def kilos(**ipam: Any) -> dict[str, Any]:
    """The configuration that Kilo brings, with more in its IPAM."""
    bridge = {
        "type": "bridge",
        "name": "kubernetes",
        "bridge": "kube-bridge",
        "isDefaultGateway": True,
        "forceAddress": True,
        "mtu": 1420,
        "ipam": {"type": "host-local"} | ipam,
    }
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "kilo", "plugins": [bridge, portmap]}


def ipam_of(config: Any) -> Any:
    return config["plugins"][0]["ipam"]
