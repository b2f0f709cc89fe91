"""`m3rag list`: what is in the index."""

from __future__ import annotations

from m3rag.cli.console import command, counted, in_line, note, print_json, say
from m3rag.cli.options import Debug, Index, Json

WIDEST = 40
"""Signs of a name beside which the other columns are lined up."""


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
    ids = [in_line(d.id) for d in documents]
    names = min(max(map(len, ids), default=0), WIDEST)
    pages = [counted(d.pages, "page") if d.pages else "" for d in documents]
    chunks = [counted(d.chunks, "chunk") for d in documents]
    for document, name, of_pages, of_chunks in zip(documents, ids, pages, chunks, strict=True):
        columns = f"{of_pages:>{max(map(len, pages))}}  {of_chunks:>{max(map(len, chunks))}}"
        title = "" if document.title == document.id else in_line(document.title)
        say(f"{name:<{names}}  {columns}  {title}".rstrip())
    if not documents:
        note(f"the index {kb.place} is empty; fill it with `m3rag ingest FOLDER`")
