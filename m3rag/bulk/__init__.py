"""Bulk encoding: a corpus too large for one process, through Ray Data into Parquet and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.bulk.encode import EncodeReport, encode_corpus
    from m3rag.bulk.output import read_encoded

__all__ = ["EncodeReport", "encode_corpus", "read_encoded"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EncodeReport": "m3rag.bulk.encode",
        "encode_corpus": "m3rag.bulk.encode",
        "read_encoded": "m3rag.bulk.output",
    },
)
