"""Encode an index again with another model, from the chunks it holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from m3rag.encoder.protocol import Encoder
from m3rag.ingest import encoded_parts
from m3rag.store import DocumentRecord, QdrantEdgeStore


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
                fresh.put_document(document, encoded_parts(store.chunks_of(document.id), encoder))
                if on_document is not None:
                    on_document(document)
        store.close()
        old = path.with_name(f"{path.name}.old-{work.name.rsplit('-', 1)[1]}")
        shutil.copymode(path, work)  # mkdtemp made it for its owner alone
        path.rename(old)
        work.rename(path)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return len(documents)
