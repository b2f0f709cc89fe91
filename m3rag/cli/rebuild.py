"""`m3rag rebuild`: the same chunks, encoded by another model or kept in another place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qsl, urlsplit

import typer

from m3rag.cli.console import command, in_line, note, print_json, shows_progress
from m3rag.cli.options import Debug, Index, Json, Model, Quiet

if TYPE_CHECKING:
    from m3rag.store.place import Place

To = Annotated[
    str | None,
    typer.Option("--to", help="Write into this index instead (a folder, a Qdrant URL, chroma:FOLDER); the old stays."),
]


@command
def rebuild(
    index: Index = None,
    model: Model = None,
    to: To = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode the index with another model, or copy it elsewhere.

    With --to and the same model nothing is encoded: what is stored is copied.
    """
    from m3rag.encoder.checkpoint import Checkpoint
    from m3rag.encoder.encoder import M3Encoder
    from m3rag.errors import InputError
    from m3rag.rebuild import copy
    from m3rag.rebuild import rebuild as encode_again
    from m3rag.settings import load_settings
    from m3rag.store import QdrantEdgeStore
    from m3rag.store.place import place_of

    settings = load_settings(index=index, model=model)
    place = place_of(settings.index, api_key=settings.index_key)
    show = shows_progress(quiet=quiet, as_json=as_json)
    on_document = (lambda d: note(f"wrote {in_line(d.id)}")) if show else None
    there = None if to is None else place_of(to, codec=settings.codec)
    if there is not None and _are_one(place, there):
        raise InputError(
            f"{place} and {there} are the same index: give another place with --to, or leave --to out to encode the "
            "index anew where it is"
        )
    store = place.open()
    try:
        if to is None and not isinstance(store, QdrantEdgeStore):
            raise InputError(f"{place} cannot be rebuilt in its place: write into another index with --to")
        made_by = store.manifest.model
        name = settings.model or made_by.name
        same = to is not None and (settings.model is None or Checkpoint.find(name).fingerprint() == made_by.fingerprint)
        encoder = None
        if not same:
            encoder = M3Encoder(
                name,
                device=settings.device,
                dtype=settings.dtype,
                max_length=settings.max_length,
                batch_tokens=settings.batch_tokens,
            )
        if to is not None and there is not None:
            # The key is that of the index's server: no other server may see it.
            if place.folder is not None or there.shares_server(place):
                there = place_of(to, api_key=settings.index_key, codec=settings.codec)
            target = there.open_or_create(encoder.info if encoder else made_by)
            try:
                documents = copy(store, target, encoder=encoder, on_document=on_document)
            finally:
                target.close()
        else:
            assert encoder is not None
            assert isinstance(store, QdrantEdgeStore)
            documents = encode_again(store, encoder, codec=settings.codec, on_document=on_document)
    finally:
        store.close()
    written = to or str(place)
    if as_json:
        print_json("rebuild", {"index": written, "model": name, "documents": documents})
    else:
        # An index of the same model is written anew from what it holds.
        copied = encoder is None or encoder.info.fingerprint == made_by.fingerprint
        typer.echo(f"{'copied' if copied else 'encoded'} {documents} documents into {written} ({name})")


def _are_one(one: Place, other: Place) -> bool:
    """Whether two names, such as a relative and an absolute path, mean one index."""
    from m3rag.store.place import DEFAULT_COLLECTION

    def meant(place: Place) -> tuple[str, str]:
        where, _, options = str(place).partition("?")
        if place.folder is None:
            parts = urlsplit(where)
            return f"{parts.scheme}://{parts.netloc}".casefold(), parts.path.strip("/") or DEFAULT_COLLECTION
        kind = where.partition(":")[0] if where.startswith("chroma:") else ""
        collection = dict(parse_qsl(options)).get("collection", DEFAULT_COLLECTION)
        return f"{kind}{place.folder.resolve()}", collection if kind else ""

    return meant(one) == meant(other)
