"""The file `manifest.json`, by which a folder says that it is an index and whose."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from m3rag._shell import quoted
from m3rag.errors import IndexLockedError, IndexMismatchError, IndexMissingError, StoreError
from m3rag.store.codec import CODECS
from m3rag.store.protocol import FORMAT, Manifest
from m3rag.types import ModelInfo

MANIFEST = "manifest.json"
PARTIAL_MANIFEST = "manifest.json.partial"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest wholly or not at all."""
    partial = folder / PARTIAL_MANIFEST
    with partial.open("w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        IndexMismatchError: If a newer m3rag wrote the index in a format this one cannot read.
        StoreError: If the file is damaged.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written = int(content["format"])
        if written > FORMAT:
            raise IndexMismatchError(
                f"the index at {folder} has format {written}, written by m3rag {content.get('m3rag_version')}; "
                f"this m3rag reads up to {FORMAT}: upgrade it (pip install -U m3rag)"
            )
        model = ModelInfo(**content["model"])
        codec = str(content.get("codec", "float16"))
        check_codec(codec, f"the index at {folder}")
        return Manifest(model=model, m3rag_version=content["m3rag_version"], format=written, codec=codec)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it from a backup, "
            f"or delete the folder and ingest again"
        ) from error


def check_codec(codec: str, where: str) -> None:
    """Refuse a collection whose token vectors this m3rag cannot read.

    Raises:
        IndexMismatchError: If there is no such codec.
    """
    if codec not in CODECS:
        raise IndexMismatchError(
            f"{where} keeps token vectors as {codec!r}, this m3rag knows {', '.join(CODECS)}: "
            "upgrade it (pip install -U m3rag)"
        )


def check_model(folder: Path, manifest: Manifest, model: ModelInfo) -> None:
    """Refuse an index that another model filled: its numbers mean something else.

    Raises:
        IndexMismatchError: If the fingerprints differ.
    """
    made_by = manifest.model
    if made_by.fingerprint == model.fingerprint:
        return
    raise IndexMismatchError(
        f"the index at {folder} was made by model {made_by.name!r} ({made_by.fingerprint:.12}), "
        f"not by {model.name!r} ({model.fingerprint:.12}): search it with --model {quoted(made_by.name)}, or encode "
        f"it anew: m3rag rebuild --index {quoted(folder)} --model {quoted(model.name)}"
    )


def forked(folder: Path) -> IndexLockedError:
    """The error of a process that was forked from the one that has an index open."""
    return IndexLockedError(
        f"the index in {folder} is open in the process that this one was forked from: close it there before the fork, "
        "or start processes by spawn"
    )


def missing(index: str | Path) -> IndexMissingError:
    """The error that there is no index at a place, which is named as the setting `index` has it."""
    return IndexMissingError(f"there is no index at {index}: make one with m3rag ingest PATH --index {quoted(index)}")
