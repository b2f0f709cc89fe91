"""What LlamaIndex's query modes mean as options of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from m3rag.errors import InputError
from m3rag.retrieval import Mode, SearchOptions
from m3rag.retrieval.options import require_known

if TYPE_CHECKING:
    from m3rag.types import Leg

MODES = ("default", "sparse", "hybrid", "text_search", "mmr")

MMR_THRESHOLD = 0.5
"""LlamaIndex's own default."""

_ALLOWED = sorted({*SearchOptions.__annotations__, "mmr_threshold"} - {"k", "filter"})


def options_of(query: VectorStoreQuery, given: Mapping[str, Any], *, legs: Sequence[Leg]) -> SearchOptions:
    """The options that a query asks for.

    Args:
        query: What is asked.
        given: Options beside it, which count for more.
        legs: What the model gives; `hybrid` and `text_search` take BM25 for the keyword leg where it gives
            dense vectors alone.

    Raises:
        InputError: If the mode or an option is unknown, or a number is out of its range.
    """
    require_known("a query of M3VectorStore", given, _ALLOWED)
    if query.mode not in MODES:
        raise InputError(
            f"query mode {getattr(query.mode, 'value', query.mode)!r} is none of M3VectorStore's: choose one of "
            f"{', '.join(MODES)}"
        )
    options: dict[str, Any] = {"k": query.similarity_top_k, "mode": Mode.DENSE}
    if query.mode == VectorStoreQueryMode.SPARSE:
        options |= {"k": query.sparse_top_k or query.similarity_top_k, "mode": Mode.LEXICAL}
    elif query.mode == VectorStoreQueryMode.TEXT_SEARCH:
        options["mode"] = Mode.BM25 if "lexical" not in legs or _has_bm25() else Mode.LEXICAL
    elif query.mode == VectorStoreQueryMode.HYBRID:
        if (query.sparse_top_k or 1) < 1:
            raise InputError(f"sparse_top_k must be at least 1, got {query.sparse_top_k}")
        options |= {"k": query.hybrid_top_k or query.similarity_top_k, "mode": _hybrid(query.alpha, legs)}
        options["alpha"] = query.alpha
    elif query.mode == VectorStoreQueryMode.MMR:
        options["diversity"] = _diversity(query, given)
    options |= {key: value for key, value in given.items() if key != "mmr_threshold"}
    return cast("SearchOptions", options)


def _hybrid(alpha: float | None, legs: Sequence[Leg]) -> Mode:
    if "lexical" not in legs:
        return Mode.DENSE_BM25
    return Mode.ALL if alpha is None else Mode.DENSE_LEXICAL


def _diversity(query: VectorStoreQuery, given: Mapping[str, Any]) -> float:
    threshold = given.get("mmr_threshold", query.mmr_threshold)
    threshold = MMR_THRESHOLD if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise InputError(f"mmr_threshold goes from 0 (most variety) to 1 (by score alone), got {threshold}")
    return 1.0 - float(threshold)


def _has_bm25() -> bool:
    return find_spec("bm25s") is not None
