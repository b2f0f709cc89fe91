"""What every stage after retrieval may ask of a reranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from m3rag.types import Hit


class Reranker(Protocol):
    """Looks at the best hits again, more closely than a search of everything could afford."""

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        """Order hits anew.

        Args:
            query: The question that they were found for.
            hits: Best first; not changed.
            k: Most hits to return; all if None.

        Returns:
            New hits, best first, ties by chunk id. `hit.score` and `hit.scores.rerank` are the
            reranker's, on its own scale; the scores and ranks of the legs stay. Hits that were
            not looked at follow behind all that were, in the order given and as they were:
            their `scores.rerank` is None, and their `score` is on another scale.

        Raises:
            InputError: If the query is empty, or `k` is not positive.
        """
