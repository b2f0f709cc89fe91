"""Checks of the index: whether it opens, whose it is, and whether the files behind it are as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from m3rag._shell import quoted
from m3rag.doctor.check import Check
from m3rag.doctor.model import find_model
from m3rag.errors import IndexLockedError, IndexMismatchError, ModelError, StoreError
from m3rag.reading.discover_paths import is_gone
from m3rag.types import LEGS, Document

if TYPE_CHECKING:
    from m3rag.settings import Settings
    from m3rag.store.place import Place
    from m3rag.store.protocol import DocumentRecord, Manifest, Store

SHOWN = 3
"""Documents named of those that have something wrong."""


def check_index(place: Place, settings: Settings) -> Iterator[Check]:
    """Open an index, read all that it says of itself, and look at the files that its documents came from."""
    try:
        if not place.exists():
            yield Check(
                "index", "info", f"there is none at {place} yet", f"m3rag ingest FOLDER --index {quoted(place)}"
            )
            return
        store = place.open()
    except StoreError as error:
        yield Check("index", "error", str(error), _remedy(error, place))
        return
    try:
        manifest, documents, chunks = store.manifest, store.documents(), store.count()
        yield from _check_contents(place, manifest, documents, chunks)
        yield from _check_model(place, manifest, settings)
        yield from _check_sources(place, store, documents, settings)
    except StoreError as error:
        yield Check("index", "error", str(error), _remedy(error, place))
    finally:
        store.close()


def _remedy(error: StoreError, place: Place) -> str:
    if isinstance(error, IndexLockedError):
        return "end the other process (m3rag serve, m3rag chat, m3rag ingest --watch), and ask again"
    if isinstance(error, IndexMismatchError):
        return "pip install -U m3rag"
    if place.folder is None:
        return "start the server, or give another --index"
    from m3rag.store.edge_folder import lacks_permission  # noqa: PLC0415 - engines load when used

    if lacks_permission(error):
        return f"give this user write permission on {place.folder} and all in it, or copy it to where you may write"
    return f"restore {place.folder} from a backup, or delete it and ingest again"


def _check_contents(
    place: Place, manifest: Manifest, documents: Sequence[DocumentRecord], chunks: int
) -> Iterator[Check]:
    recorded = sum(document.chunks for document in documents)
    if recorded != chunks:
        message = f"{place} holds {chunks} chunks, its documents say {recorded}"
        yield Check("index", "error", message, f"m3rag rebuild --index {quoted(place)}")
        return
    yield Check("index", "ok", f"{place}: {len(documents)} documents, {chunks} chunks, by {manifest.model.name}")


def _check_model(place: Place, manifest: Manifest, settings: Settings) -> Iterator[Check]:
    """Whether the model that would be used is the one that made the index."""
    made = manifest.model
    if made.legs != LEGS:
        yield Check("index model", "info", f"{made.name} gives {' and '.join(made.legs)} vectors alone")
        return
    name = settings.model or made.name
    try:
        fingerprint = find_model(name).fingerprint()
    except ModelError:
        return  # the check of the model says it
    if fingerprint != made.fingerprint:
        other = f"another version of {name}" if name == made.name else f"{made.name}, not by {name}"
        remedy = f"m3rag rebuild --index {quoted(place)} --model {quoted(name)}"
        yield Check("index model", "error", f"the index was made by {other}", remedy)
    else:
        yield Check("index model", "ok", f"{name} made it")


def _check_sources(
    place: Place, store: Store, documents: Sequence[DocumentRecord], settings: Settings
) -> Iterator[Check]:
    """Documents whose file is gone or is not what was ingested."""
    of_files = [document for document in documents if document.source]
    gone = [document for document in of_files if is_gone(document.source)]
    missing = {document.id for document in gone}
    changed = _changed(place, [document for document in of_files if document.id not in missing], settings)
    if gone:
        remedy = f"m3rag ingest FOLDER --sync --index {quoted(place)}, or m3rag rm DOCUMENT --index {quoted(place)}"
        yield Check("files", "warning", f"{_named(gone)} in the index, no file any more", remedy)
    if changed:
        paths = quoted(changed[0].source) if len(changed) == 1 else "FOLDER"
        why = "the file or the chunking settings have changed, or it may not be read"
        message = f"{_named(changed)} not as ingested: {why}"
        yield Check("files", "warning", message, f"m3rag ingest {paths} --index {quoted(place)}")
    if of_files and not gone and not changed:
        yield Check("files", "ok", f"{len(of_files)} files are as they were ingested")


def _changed(place: Place, documents: Sequence[DocumentRecord], settings: Settings) -> list[DocumentRecord]:
    from m3rag.chunking import Chunker, document_version  # noqa: PLC0415
    from m3rag.knowledge_base import HASHES_FILE  # noqa: PLC0415
    from m3rag.sync.hashes import FileHashes  # noqa: PLC0415

    chunker = Chunker(
        strategy=settings.chunking,
        chunk_tokens=settings.chunk_tokens,
        overlap_tokens=settings.overlap_tokens,
        late=settings.late_chunking,
    )
    empty = Document(id="", text="", content_hash="", reader=settings.reader)
    remembered = place.folder / HASHES_FILE if place.folder else None
    found = []
    with FileHashes(remembered if remembered and remembered.is_file() else None, writable=False) as hashes:
        for document in documents:
            if not document.version:
                continue
            try:
                now = document_version(replace(empty, content_hash=hashes.of(Path(document.source))), chunker)
            except OSError:
                now = ""
            if now != document.version:
                found.append(document)
    return found


def _named(documents: Sequence[DocumentRecord]) -> str:
    names = ", ".join(document.id for document in documents[:SHOWN])
    more = len(documents) - SHOWN
    return f"{names}{f' and {more} more' if more > 0 else ''}: {'is' if len(documents) == 1 else 'are'}"
