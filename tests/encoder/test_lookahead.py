from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from m3rag.encoder.lookahead import lookahead


def lookahead_threads() -> int:
    return sum(t.name == "m3rag-lookahead" for t in threading.enumerate())


def test_items_come_in_order_from_another_thread() -> None:
    def made() -> Iterator[tuple[int, str]]:
        for i in range(20):
            yield i, threading.current_thread().name

    found = list(lookahead(made()))
    assert [i for i, _ in found] == list(range(20))
    assert {name for _, name in found} == {"m3rag-lookahead"}


def test_it_is_at_most_so_far_ahead() -> None:
    made = 0

    def count() -> Iterator[int]:
        nonlocal made
        for i in range(100):
            made += 1
            yield i

    for used, _ in enumerate(lookahead(count(), depth=2), 1):
        assert made <= used + 2 + 1  # two that wait and one at hand


def test_an_error_comes_where_its_item_would_have() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt("in the producer")

    items = lookahead(broken())
    assert next(items) == 1
    with pytest.raises(KeyboardInterrupt, match="in the producer"):
        next(items)
    assert lookahead_threads() == 0


def test_a_consumer_that_stops_stops_the_producer() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    items = lookahead(endless())
    next(items)
    assert isinstance(items, Iterator)
    items.close()  # type: ignore[attr-defined]
    assert lookahead_threads() == 0


def test_nothing_to_make() -> None:
    assert list(lookahead(iter(()))) == []
