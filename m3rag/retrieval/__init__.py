"""Retrieval: candidates from each leg, exact scores for all of them, and their fusion."""

from m3rag.retrieval.bm25 import BM25Index
from m3rag.retrieval.explain import TokenMatch, top_tokens
from m3rag.retrieval.fusion import Fusion, ranks_of, rrf
from m3rag.retrieval.hybrid import HybridRetriever
from m3rag.retrieval.mode import Mode

__all__ = ["BM25Index", "Fusion", "HybridRetriever", "Mode", "TokenMatch", "ranks_of", "rrf", "top_tokens"]
