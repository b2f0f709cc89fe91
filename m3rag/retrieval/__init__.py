"""Retrieval: candidates from each leg, exact scores for all of them, and their fusion."""

from m3rag.retrieval.explain import Explanation, TokenMatch, top_tokens
from m3rag.retrieval.fusion import Fusion, ranks_of, rrf
from m3rag.retrieval.grouping import DocumentHits, group_by_document
from m3rag.retrieval.hybrid import HybridRetriever
from m3rag.retrieval.mode import Mode
from m3rag.retrieval.no_hits import NoHits
from m3rag.retrieval.options import SearchOptions

__all__ = [
    "DocumentHits",
    "Explanation",
    "Fusion",
    "HybridRetriever",
    "Mode",
    "NoHits",
    "SearchOptions",
    "TokenMatch",
    "group_by_document",
    "ranks_of",
    "rrf",
    "top_tokens",
]
