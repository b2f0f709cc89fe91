"""`m3rag rebuild`: the same chunks, encoded by another model."""

from __future__ import annotations

import typer

from m3rag.cli.console import command, note, print_json, shows_progress
from m3rag.cli.options import Debug, Index, Json, Model, Quiet


@command
def rebuild(
    index: Index = None, model: Model = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Encode the index again with another model, from the texts it holds; the old index stays until that is done."""
    from m3rag.encoder.encoder import M3Encoder
    from m3rag.rebuild import rebuild as encode_again
    from m3rag.settings import load_settings
    from m3rag.store import QdrantEdgeStore

    settings = load_settings(index=index, model=model)
    with QdrantEdgeStore.open(settings.index) as store:
        name = settings.model or store.manifest.model.name
        encoder = M3Encoder(
            name,
            device=settings.device,
            dtype=settings.dtype,
            max_length=settings.max_length,
            batch_tokens=settings.batch_tokens,
        )
        show = shows_progress(quiet=quiet, as_json=as_json)
        documents = encode_again(store, encoder, on_document=(lambda d: note(f"encoded {d.id}")) if show else None)
    if as_json:
        print_json("rebuild", {"index": str(settings.index), "model": name, "documents": documents})
    else:
        typer.echo(f"encoded {documents} documents of {settings.index} with {name}")
