"""`m3rag info`: the index, its model and its size."""

from __future__ import annotations

from m3rag.cli.console import command, print_json, say
from m3rag.cli.options import Debug, Index, Json


@command
def info(index: Index = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show what the index holds, its model and its size."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    with KnowledgeBase(settings=load_settings(index=index)) as kb:
        manifest, documents, chunks = kb.store.manifest, len(kb.documents()), kb.store.count()
        weights = kb.store.settings.get("weights")
    folder = kb.path
    size = sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file()) if folder else None
    model = manifest.model
    shown = {
        "index": str(folder.resolve()) if folder and kb.place.is_folder else str(kb.place),
        "model": model.name,
        "fingerprint": model.fingerprint,
        "dense_dim": model.dense_dim,
        "colbert_dim": model.colbert_dim,
        "documents": documents,
        "chunks": chunks,
        "bytes": size,
        "bytes_per_chunk": round(size / chunks) if size and chunks else None,
        "learned_weights": weights,
        "format": manifest.format,
        "m3rag_version": manifest.m3rag_version,
    }
    if as_json:
        print_json("info", shown)
        return
    for name, value in shown.items():
        told = f"{value:,}" if isinstance(value, int) else "-" if value is None else value
        say(f"{name.replace('_', ' '):<16} {told}")
