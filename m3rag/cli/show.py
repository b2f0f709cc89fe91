"""`m3rag show`: what the index holds of a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3rag.cli.console import command, counted, in_line, print_json, say
from m3rag.cli.options import Debug, Index, Json

if TYPE_CHECKING:
    from m3rag.store import DocumentRecord
    from m3rag.types import Chunk


@command
def show(
    document: Annotated[
        str, typer.Argument(metavar="DOC", help="A document as `m3rag list` names it.", show_default=False)
    ],
    index: Index = None,
    page: Annotated[int | None, typer.Option(min=1, help="Only the chunks that begin on this page.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a document's chunks: page, place, headings and text."""
    from m3rag.errors import InputError
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    with KnowledgeBase(settings=load_settings(index=index)) as kb:
        record = kb.store.document(document)
        if record is None:
            ids = [one.id for one in kb.documents()]
            near = get_close_matches(document, ids, n=1) or [name for name in ids if document.lower() in name.lower()]
            meant = f": did you mean {near[0]}?" if near else "; `m3rag list` shows what is"
            raise InputError(f"not in the index {kb.place}: {document}{meant}")
        chunks = [chunk for chunk in kb.store.chunks_of(document) if page is None or chunk.page == page]
    if page is not None and not 1 <= page <= record.pages:
        pages = counted(record.pages, "page") if record.pages else "no pages"
        raise InputError(f"{document} has {pages}, so no page {page}")
    if as_json:
        print_json("show", {"index": str(kb.place), "document": _document(record), "chunks": list(map(_chunk, chunks))})
    else:
        _print(record, chunks)


def _document(record: DocumentRecord) -> dict[str, Any]:
    found = asdict(record) | {"pages": record.pages, "page_starts": list(record.page_starts)}
    del found["version"]
    return found


def _chunk(chunk: Chunk) -> dict[str, Any]:
    from m3rag.chunking.parents import without_reserved

    found = asdict(chunk) | {"headings": list(chunk.headings), "metadata": without_reserved(chunk.metadata)}
    del found["document_id"]
    return {"chunk_id": found.pop("id"), **found}


def _print(record: DocumentRecord, chunks: Sequence[Chunk]) -> None:
    pages = f", {counted(record.pages, 'page')}" if record.pages else ""
    say(f"{in_line(record.id)}: {in_line(record.title)}")
    say(f"{counted(record.chunks, 'chunk')}{pages}" + (f", from {in_line(record.source)}" if record.source else ""))
    for number, chunk in enumerate(chunks, 1):
        page = f"p. {chunk.page}, " if chunk.page is not None else ""
        headings = f"  {in_line(' > '.join(chunk.headings))}" if chunk.headings else ""
        say(f"\n#{number}  {page}characters {chunk.start}-{chunk.end}{headings}")
        for line in chunk.text.splitlines():
            say(f"    {line}".rstrip())
