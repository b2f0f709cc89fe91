"""Addresses of servers: whether they are any, which are of this machine, and how they may be shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

USER = re.compile(r"^([a-z+]*://)?[^/?#]*@", re.IGNORECASE)
"""The user and password of an address, behind its scheme."""


def is_address(url: str) -> bool:
    """Whether an address of HTTP has all that it needs."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is none
        return False


def on_this_machine(url: str) -> bool:
    """Whether an address is of this machine: the proxy of the environment is for what lies beyond it."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def without_secrets(url: str) -> str:
    """An address as it may be shown: without user and password, and without a query, which may hold a key."""
    return re.split("[?#]", USER.sub(lambda user: user[1] or "", url), maxsplit=1)[0].rstrip("/")
