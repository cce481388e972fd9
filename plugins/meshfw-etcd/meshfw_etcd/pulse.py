"""The pulse: a key that is in the store while its node lives, since the store lets go of it where nobody renews it."""

from __future__ import annotations

from meshfw_etcd.client import Client


class Pulse:
    """Whoever keeps a key in the store from beat to beat; ``lasts`` is how many seconds without one it stays.

    The store's clock alone counts those, and a beat writes nothing while the key is there, so that a fleet's pulses
    neither fill the store's history nor depend on the nodes' clocks.
    """

    def __init__(self, key: str, *, lasts: int) -> None:
        self._key = key
        self._lasts = lasts
        self._lease = 0

    def beat(self, client: Client) -> None:
        """Renew the key, or write it where it's gone.

        Raises:
            EtcdError: as every request; DeniedError where the node may not write it.
        """
        if self._lease and client.renew(self._lease):
            return
        lease = client.grant(self._lasts)
        client.put(self._key, b"", lease=lease)
        self._lease = lease

    def lose(self) -> None:
        """Have the next beat write the key: the store may be another one."""
        self._lease = 0
