"""`m3rag search`: the best passages, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m3rag.cli.console import command, note, one_line, place, print_json, printable, say, typed
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
    PerDocument,
    RerankerName,
    TopK,
    Weights,
    search_options,
)

if TYPE_CHECKING:
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.retrieval import NoHits, TokenMatch
    from m3rag.retrieval.words import WordMatch
    from m3rag.types import Hit

WORDS = 5
"""Words shown of each hit."""

WIDE = 100
"""Columns of a terminal from which on the table's headings stand in one line."""


@command
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.", show_default=False)],
    index: Index = None,
    model: Model = None,
    top_k: TopK = None,
    mode: Mode = None,
    weights: Weights = None,
    alpha: Alpha = None,
    fusion: Fusion = None,
    min_score: MinScore = None,
    diversity: Diversity = None,
    per_document: PerDocument = None,
    reranker: RerankerName = None,
    filters: Filters = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each leg's score and rank, and what matched.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the passages nearest to a question."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.retrieval.hit_json import hit_json
    from m3rag.settings import load_settings

    query = typed(query)
    settings = load_settings(index=index, model=model, top_k=top_k, mode=mode, weights=weights, reranker=reranker)
    options = search_options(
        filters=filters,
        weights=weights,
        alpha=alpha,
        fusion=fusion,
        min_score=min_score,
        diversity=diversity,
        per_document=per_document,
    )
    with KnowledgeBase(settings=settings) as kb:
        hits = kb.search(query, **options)
        why = None if hits else kb.why_empty(query, **options)
        tokens = kb.explain(query, hits) if explain and as_json else []
        words = _words(kb, query, hits) if explain else []
    if as_json:
        found = [hit_json(hit) | more for hit, more in zip(hits, _explanations(tokens, words, len(hits)), strict=True)]
        print_json("search", {"query": query, "mode": settings.mode, "hits": found, **_why(why)})
    elif explain:
        print_table(hits, words)
    else:
        for rank, hit in enumerate(hits, 1):
            say(f"{rank:>2}  {hit.score:.3f}  {place(hit.chunk.document_id, hit.chunk.page)}")
            say(f"    {one_line(hit.chunk.text, 110)}")
    if why is not None:
        note(f"no hit: {why.message}")


def _words(kb: KnowledgeBase, query: str, hits: Sequence[Hit]) -> list[list[WordMatch]]:
    from m3rag.retrieval.words import matched_words

    return [matched_words(kb.encoder, query, hit, store=kb.store) for hit in hits]


def _why(why: NoHits | None) -> dict[str, Any]:
    return {} if why is None else {"no_hits": asdict(why)}


def _explanations(
    tokens: Sequence[list[TokenMatch]], words: Sequence[list[WordMatch]], hits: int
) -> list[dict[str, Any]]:
    """What `--explain` adds to each hit: the tokens behind its lexical score, and the words they are parts of."""
    if not words:
        return [{} for _ in range(hits)]
    return [
        {
            "tokens": [{"token": token, "contribution": score} for token, score in of_tokens],
            "words": [word._asdict() for word in of_words],
        }
        for of_tokens, of_words in zip(tokens, words, strict=True)
    ]


def print_table(hits: Sequence[Hit], words: Sequence[list[WordMatch]]) -> None:
    """Rank, place, score, and each leg's score and rank, with the words that the lexical leg found."""
    from rich.console import Console
    from rich.table import Table

    reranked = any(hit.scores.rerank is not None for hit in hits)
    by_bm25 = any(hit.scores.bm25 is not None for hit in hits)
    console = Console(width=None if Console().is_terminal else 140, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    places = [place(hit.chunk.document_id, hit.chunk.page) for hit in hits]
    room = min(max(map(len, places), default=0), 24)
    # Folded and never cut: the page stands at its end.
    table.add_column("document:page", overflow="fold", min_width=room)
    table.add_column("reranked" if reranked else "fused", justify="right", no_wrap=True)
    below = " " if console.width >= WIDE else "\n"
    legs = ("dense", "lexical", "colbert", *(["bm25"] if by_bm25 else []))
    for name in legs:
        table.add_column(f"{name}{below}(rank)", justify="right", no_wrap=True)
    table.add_column("top words")
    for rank, (hit, of_hit, where) in enumerate(zip(hits, words, places, strict=True), 1):
        scores = [leg_score(hit, leg) for leg in legs]
        shown = printable(" ".join(top_words(of_hit, WORDS)))
        table.add_row(str(rank), where, f"{hit.score:.3f}", *scores, shown)
    console.print(table)


def top_words(words: Sequence[WordMatch], most: int) -> dict[str, float]:
    """Words with what they gave to the score, the most first; forms that differ in case are one word."""
    sums: dict[str, float] = {}
    names: dict[str, str] = {}
    for word in words:
        name = names.setdefault(word.text.casefold(), word.text)
        sums[name] = sums.get(name, 0.0) + word.contribution
    order = sorted(sums, key=lambda name: (-sums[name], name))
    return {name: sums[name] for name in order[:most]}


def leg_score(hit: Hit, leg: str) -> str:
    """A leg's score and rank as `0.812 (1)`; `-` where the search did not look at it."""
    score, rank = getattr(hit.scores, leg), getattr(hit.ranks, leg)
    return "-" if score is None else f"{score:.3f}" + (f" ({rank})" if rank is not None else "")
