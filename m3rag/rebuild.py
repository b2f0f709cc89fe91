"""Encode an index again with another model, or copy it to another place, from the chunks it holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.ingest import CHUNKS_AT_ONCE, encoded_parts
from m3rag.output import M3Output
from m3rag.store import DocumentRecord, QdrantEdgeStore, Store
from m3rag.types import Chunk

Parts = Iterator[tuple[Sequence[Chunk], M3Output]]

MODEL_SETTINGS = frozenset({"weights", "tuned", "rerank"})
"""What a collection remembers of its model: nothing that another one could use."""


def rebuild(
    store: QdrantEdgeStore,
    encoder: Encoder,
    *,
    codec: str | None = None,
    on_document: Callable[[DocumentRecord], None] | None = None,
) -> int:
    """Fill a new index beside the old one, then put it in its place; closes the store.

    Killed in the middle, the old index is untouched, but for the instant between two renames, where
    it stands beside its place under the name `NAME.old-...`. Chunks are encoded by themselves; a folder that
    was ingested with late chunking is better ingested anew.

    Args:
        store: The index.
        encoder: The model.
        codec: How token vectors are kept; by default as before.
        on_document: Called after each document.

    Returns:
        The number of documents.
    """
    path = store.path.resolve()
    work = Path(tempfile.mkdtemp(prefix=f"{path.name}.new-", dir=path.parent))
    try:
        with QdrantEdgeStore.create(work, encoder.info, codec=codec or store.manifest.codec) as fresh:
            documents = copy(store, fresh, encoder=encoder, on_document=on_document)
        store.close()
        old = path.with_name(f"{path.name}.old-{work.name.rsplit('-', 1)[1]}")
        shutil.copymode(path, work)  # mkdtemp made it for its owner alone
        path.rename(old)
        work.rename(path)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return documents


def copy(
    source: Store,
    target: Store,
    *,
    encoder: Encoder | None = None,
    on_document: Callable[[DocumentRecord], None] | None = None,
) -> int:
    """Write every document of one store into another, which may hold others already.

    Between stores of one model nothing is encoded: the stored representations go over. Killed in the
    middle, running it again finishes it: a document that the target has in the same version, with the same
    chunks, is passed over. A document made of single chunks has afterwards those of the source and no others.

    Args:
        source: What to copy; nothing changes in it.
        target: Where to.
        encoder: Needed where the stores are of different models: that of the target.
        on_document: Called after each document.

    Returns:
        The number of documents of the source.

    Raises:
        InputError: If the models differ and there is no encoder.
    """
    same = source.manifest.model.fingerprint == target.manifest.model.fingerprint
    if not same and encoder is None:
        raise InputError(
            f"the target is of the model {target.manifest.model.name!r}, the source of "
            f"{source.manifest.model.name!r}: give the target's encoder, so that the texts can be encoded"
        )
    documents = source.documents()
    for document in documents:
        there = target.document(document.id)
        chunks = source.chunks_of(document.id)
        is_same = there is not None and (there.version, there.chunks) == (document.version, document.chunks)
        if document.version and is_same and target.chunks_of(document.id) == chunks:
            continue
        parts = _stored_parts(chunks, source) if same or encoder is None else encoded_parts(chunks, encoder)
        if document.version:
            target.put_document(document, parts)
        else:  # made of single chunks
            for part, output in parts:
                target.upsert(part, output)
            kept = {chunk.id for chunk in chunks}
            target.delete_chunks([chunk.id for chunk in target.chunks_of(document.id) if chunk.id not in kept])
        if on_document is not None:
            on_document(document)
    target.update_settings({k: v for k, v in source.settings.items() if same or k not in MODEL_SETTINGS})
    return len(documents)


def _stored_parts(chunks: Sequence[Chunk], source: Store) -> Parts:
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        part = chunks[start : start + CHUNKS_AT_ONCE]
        yield part, source.representations([chunk.id for chunk in part])
