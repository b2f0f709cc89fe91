"""`m3rag ask`: an answer with the quotations that hold it up."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from m3rag.cli.answers import answer_dict, last_of, print_answer
from m3rag.cli.console import command, print_json, typed
from m3rag.cli.options import (
    Alpha,
    Debug,
    Diversity,
    Filters,
    Fusion,
    Index,
    Json,
    MinScore,
    Mode,
    Model,
    Passages,
    PerDocument,
    RerankerName,
    Weights,
    search_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m3rag.answering import AnswerEvent
    from m3rag.types import Hit


@command
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question.", show_default=False)],
    index: Index = None,
    model: Model = None,
    top_k: Passages = None,
    mode: Mode = None,
    weights: Weights = None,
    alpha: Alpha = None,
    fusion: Fusion = None,
    min_score: MinScore = None,
    diversity: Diversity = None,
    per_document: PerDocument = None,
    reranker: RerankerName = None,
    filters: Filters = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the text as it is written; with --json one event a line.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer a question from the documents, or say that they do not."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    question = typed(question)
    settings = load_settings(index=index, model=model, mode=mode, weights=weights, reranker=reranker)
    options = search_options(
        k=top_k,
        filters=filters,
        weights=weights,
        alpha=alpha,
        fusion=fusion,
        min_score=min_score,
        diversity=diversity,
        per_document=per_document,
    )
    with KnowledgeBase(settings=settings) as kb:
        passages = kb.passages(question, **options)
        if stream and as_json:
            _print_events(question, passages, kb.answerer.stream(question, passages))
            return
        answerer = kb.answerer
        answer = (
            last_of(answerer.stream(question, passages), preview=True)
            if stream
            else answerer.answer(question, passages)
        )
    if as_json:
        print_json("answer", answer_dict(question, answer))
    else:
        print_answer(answer)


def _print_events(question: str, passages: list[Hit], events: Iterator[AnswerEvent]) -> None:
    """One JSON object a line: the sources, the text in pieces, each citation, then the whole answer."""
    from m3rag.retrieval.hit_json import hit_json

    print_json("ask-event", {"event": "sources", "sources": [hit_json(hit) for hit in passages]})
    for event in events:
        if isinstance(event, str):
            print_json("ask-event", {"event": "token", "text": event})
            continue
        for citation in event.citations:
            print_json("ask-event", {"event": "citation", **asdict(citation)})
        print_json("ask-event", {"event": "done", **answer_dict(question, event)})
