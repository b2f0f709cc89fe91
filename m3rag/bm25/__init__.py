"""BM25: over plain texts (`BM25Index`, the baseline), and as a leg that follows a store (`BM25Leg`).

Needs the extra `bm25`, which is loaded when something is first searched.
"""

from m3rag.bm25.backends import Backend
from m3rag.bm25.formula import Formula, Method
from m3rag.bm25.index import BM25Index
from m3rag.bm25.leg import BM25Leg
from m3rag.bm25.tokenizers import (
    Tokenize,
    Tokenizer,
    encoder_tokenizer,
    english_tokenizer,
    is_stemming,
    word_tokenizer,
)

__all__ = [
    "BM25Index",
    "BM25Leg",
    "Backend",
    "Formula",
    "Method",
    "Tokenize",
    "Tokenizer",
    "encoder_tokenizer",
    "english_tokenizer",
    "is_stemming",
    "word_tokenizer",
]
