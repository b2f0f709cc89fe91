"""`m3rag list`: what is in the index."""

from __future__ import annotations

import typer

from m3rag.cli.console import command, note, print_json
from m3rag.cli.options import Debug, Index, Json


@command
def list_documents(index: Index = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the documents in the index."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    with KnowledgeBase(settings=load_settings(index=index)) as kb:
        documents = kb.documents()
    if as_json:
        shown = [
            {"id": d.id, "title": d.title, "pages": d.pages, "chunks": d.chunks, "source": d.source} for d in documents
        ]
        print_json("list", {"index": str(kb.place), "documents": shown})
        return
    for document in documents:
        pages = f"{document.pages} pages  " if document.pages else ""
        typer.echo(f"{document.id}  {pages}{document.chunks} chunks  {document.title}")
    if not documents:
        note(f"the index {kb.place} is empty; fill it with `m3rag ingest FOLDER`")
