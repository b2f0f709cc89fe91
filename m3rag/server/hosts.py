"""Names and addresses of this machine, and what a Host header says."""

from __future__ import annotations

import ipaddress
import re

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:/?#@\s]+))(?::[0-9]{1,5})?")


def name_of(host: str) -> str:
    """The name in a Host header, without port and brackets; nothing where it is malformed."""
    found = _HOST.fullmatch(host)
    return (found["v6"] or found["name"]).lower() if found else ""


def is_address(name: str) -> bool:
    """Whether a name is an address of IP."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
