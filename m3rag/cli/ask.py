"""`m3rag ask`: an answer with the quotations that hold it up."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from m3rag.cli.console import command, one_line, place, print_json
from m3rag.cli.options import Debug, Filters, Index, Json, Mode, Model, parse_filters

if TYPE_CHECKING:
    from m3rag.types import Answer


@command
def ask(
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    index: Index = None,
    model: Model = None,
    mode: Mode = None,
    filters: Filters = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer a question from the documents, or say that they do not answer it."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    with KnowledgeBase(settings=load_settings(index=index, model=model, mode=mode)) as kb:
        answer = kb.ask(question, filter=parse_filters(filters) or None)
    if as_json:
        print_json(
            "answer",
            {
                "question": question,
                "answered": answer.answered,
                "text": answer.text,
                "support": answer.support,
                "citations": [asdict(citation) for citation in answer.citations],
            },
        )
    else:
        print_answer(answer)


def print_answer(answer: Answer) -> None:
    """The answer, then a line for each citation: where it stands, and its words."""
    typer.echo(answer.text)
    if not answer.answered and answer.hits:
        nearest = answer.hits[0].chunk
        typer.echo(f"Nearest passage: {place(nearest.document_id, nearest.page)}")
    if answer.citations:
        typer.echo()
    for citation in answer.citations:
        page = f", p. {citation.page}" if citation.page is not None else ""
        where = f"{citation.document_id}{page}, characters {citation.start}-{citation.end}"
        typer.echo(f"[{citation.number}] {where}")
        typer.echo(f"    {one_line(citation.quote, 200)}")
