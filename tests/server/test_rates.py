from __future__ import annotations

from m3rag.server.rates import MOST_CLIENTS, RateLimit


def test_a_minutes_worth_at_once_then_evenly() -> None:
    rates = RateLimit(60)
    assert [rates.wait("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert rates.wait("a", 0.0) == 1.0
    assert rates.wait("a", 1.0) == 0.0
    assert rates.wait("a", 1.0) == 1.0
    assert rates.wait("b", 1.0) == 0.0
    assert [rates.wait("a", 1_000.0) for _ in range(61)] == [0.0] * 60 + [1.0]


def test_a_network_of_ipv6_is_one_client() -> None:
    rates = RateLimit(2)
    assert [rates.wait(f"2001:db8:1:2::{n:x}", 0.0) > 0 for n in range(3)] == [False, False, True]
    assert rates.wait("2001:db8:1:3::1", 0.0) == 0.0
    assert [rates.wait(f"::ffff:192.0.2.{n}", 0.0) for n in range(5)] == [0.0] * 5


def test_zero_is_no_limit() -> None:
    rates = RateLimit(0)
    assert not any(rates.wait("a", 0.0) for _ in range(10_000))


def test_clients_beyond_a_number_are_forgotten_the_longest_silent_first() -> None:
    rates = RateLimit(1)
    rates.wait("first", 0.0)
    for n in range(MOST_CLIENTS - 1):
        rates.wait(str(n), 0.0)
    assert rates.wait("first", 0.0) > 0  # which makes it the latest
    rates.wait("one more", 0.0)
    assert rates.wait("first", 0.0) > 0
    assert rates.wait("0", 0.0) == 0.0
