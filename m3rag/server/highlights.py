"""Matched words in three strengths, to be shown as marks."""

from __future__ import annotations

from collections.abc import Iterable

Mark = tuple[int, int, int]
"""Start and end in a chunk's text, and the strength: 1, 2 or 3."""

STRENGTHS = 3


def marks(words: Iterable[tuple[int, int, float]], *, top: float | None = None) -> list[Mark]:
    """Words as marks, in the order of the text.

    Args:
        words: Start, end and weight, >= 0; those of headings have an empty span, and are left out.
        top: The weight of strength 3; None for the largest there is.
    """
    placed = [(start, end, weight) for start, end, weight in words if start < end and weight > 0]
    most = max((weight for _, _, weight in placed), default=1.0) if top is None else top
    # Several tokens may lie in one word: the strongest counts.
    found: dict[tuple[int, int], int] = {}
    for start, end, weight in placed:
        strength = min(int(weight / most * STRENGTHS) + 1, STRENGTHS)
        found[start, end] = max(found.get((start, end), 1), strength)
    return [(start, end, strength) for (start, end), strength in sorted(found.items())]
