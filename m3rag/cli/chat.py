"""`m3rag chat`: question after question."""

from __future__ import annotations

import sys

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, counted, note, tell_error
from m3rag.cli.options import Debug, Filters, Index, JsonLines, Mode, Model, RerankerName, Weights


@command
def chat(
    index: Index = None,
    model: Model = None,
    mode: Mode = None,
    weights: Weights = None,
    reranker: RerankerName = None,
    filters: Filters = None,
    as_json: JsonLines = False,
    debug: Debug = False,
) -> None:
    """Ask question after question; /help shows what else can be typed.

    Questions may be piped in, one a line.
    """
    from m3rag.cli.chat_input import questions
    from m3rag.cli.chat_session import Session
    from m3rag.cli.options import parse_filters
    from m3rag.errors import M3RagError
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    parse_filters(filters)
    settings = load_settings(index=index, model=model, mode=mode, weights=weights, reranker=reranker)
    failed = False
    by_hand = sys.stdin.isatty()
    with KnowledgeBase(settings=settings) as kb:
        documents = len(kb.documents())
        kb.answerer  # noqa: B018 - loads the model now, so that the first answer need not wait for it
        session = Session(kb, filters=filters, as_json=as_json)
        if by_hand:
            note(f"{counted(documents, 'document')} in {kb.place}; /help shows what can be typed, Ctrl-D leaves")
        for line in questions():
            try:
                if not session.take(line):
                    break
            except KeyboardInterrupt:
                if not by_hand:
                    raise
                note("stopped; the question is forgotten")
            except M3RagError as error:
                if debug:
                    raise
                tell_error(error)
                failed = True
    if failed and not by_hand:
        raise typer.Exit(FOUND_PROBLEMS)
