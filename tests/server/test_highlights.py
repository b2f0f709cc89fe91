from __future__ import annotations

from m3rag.server.highlights import marks


def test_thirds_of_the_strongest() -> None:
    assert marks([(0, 2, 0.9), (8, 9, 0.3), (3, 5, 0.29), (5, 7, 0.6)]) == [(0, 2, 3), (3, 5, 1), (5, 7, 3), (8, 9, 2)]
    assert marks([(0, 2, 0.1), (3, 5, 0.5), (6, 8, 1.0)], top=1.0) == [(0, 2, 1), (3, 5, 2), (6, 8, 3)]


def test_what_has_no_place_or_no_weight_is_left_out() -> None:
    assert marks([(0, 0, 9.0), (0, 2, 0.0), (3, 5, 0.1), (3, 5, 0.9)]) == [(3, 5, 3)]
    assert marks([]) == []
