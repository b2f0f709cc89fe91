from __future__ import annotations

import pytest

from m3rag.server.hosts import is_loopback, name_of


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Localhost:8000", "localhost"),
        ("[::1]:9", "::1"),
        ("192.0.2.1", "192.0.2.1"),
        *((host, "") for host in ("", "a:b", "a:", "[::1", "[::1]a", "a@b:c", "a:80@b", "a b", "a/b", "a#b", "::1")),
    ],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert name_of(host) == name


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("127.0.0.1", "127.3.4.5", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.0.2", "localhost.example")),
    ],
)
def test_which_addresses_are_of_this_machine_alone(host: str, own: bool) -> None:
    assert is_loopback(host) is own
