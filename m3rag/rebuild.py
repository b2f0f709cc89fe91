"""Encode an index again with another model, from the chunks it holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from m3rag.encoder.protocol import Encoder
from m3rag.ingest import CHUNKS_AT_ONCE
from m3rag.output import M3Output
from m3rag.store import DocumentRecord, QdrantEdgeStore
from m3rag.types import Chunk


def rebuild(
    store: QdrantEdgeStore, encoder: Encoder, *, on_document: Callable[[DocumentRecord], None] | None = None
) -> int:
    """Fill a new index beside the old one, then put it in its place; closes the store.

    Killed in the middle, the old index is untouched, but for the instant between two renames, where
    it stands beside its place under the name `NAME.old-...`.

    Returns:
        The number of documents.
    """
    path = store.path.resolve()
    work = Path(tempfile.mkdtemp(prefix=f"{path.name}.new-", dir=path.parent))
    try:
        documents = store.documents()
        with QdrantEdgeStore.create(work, encoder.info) as fresh:
            for document in documents:
                fresh.put_document(document, _encoded(store.chunks_of(document.id), encoder))
                if on_document is not None:
                    on_document(document)
        store.close()
        old = path.with_name(f"{path.name}.old-{work.name.rsplit('-', 1)[1]}")
        path.rename(old)
        work.rename(path)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return len(documents)


def _encoded(chunks: Sequence[Chunk], encoder: Encoder) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        part = chunks[start : start + CHUNKS_AT_ONCE]
        yield part, encoder.encode_documents([chunk.encoded_text for chunk in part])
