"""How often a client may ask."""

from __future__ import annotations

import ipaddress
import threading

MOST_CLIENTS = 10_000


class RateLimit:
    """A token bucket for each client: a minute's worth at once, then at an even rate.

    Args:
        per_minute: Requests of one client in a minute; 0 for no limit.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}  # what was left, and when
        self._lock = threading.Lock()

    def wait(self, client: str, now: float) -> float:
        """Count a request at a time in seconds; how long to wait if it is one too many, else 0."""
        if not self.per_minute:
            return 0.0
        rate = self.per_minute / 60
        client = _network(client)
        with self._lock:
            left, at = self._left.pop(client, (float(self.per_minute), now))
            left = min(left + max(now - at, 0.0) * rate, float(self.per_minute))
            allowed = left >= 1
            self._left[client] = (left - 1 if allowed else left, now)  # at the end: the latest
            if len(self._left) > MOST_CLIENTS:
                del self._left[next(iter(self._left))]
        return 0.0 if allowed else max((1 - left) / rate, 1.0)


def _network(client: str) -> str:
    """Whom an address belongs to: of IPv6, a subscriber has a whole /64."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return client
