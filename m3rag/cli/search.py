"""`m3rag search`: the best passages, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3rag.cli.console import command, note, one_line, place, print_json
from m3rag.cli.options import Debug, Filters, Index, Json, Mode, Model, parse_filters

if TYPE_CHECKING:
    from m3rag.retrieval import NoHits, SearchOptions, TokenMatch
    from m3rag.types import Hit


@command
def search(
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    index: Index = None,
    model: Model = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, envvar="M3RAG_TOP_K", help="Most hits.")] = None,
    mode: Mode = None,
    weights: Annotated[
        str | None,
        typer.Option(envvar="M3RAG_WEIGHTS", help="miracl, mldr, or dense/lexical/colbert such as 1/0.3/1."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Part of the dense leg, 0 to 1, in dense+lexical; instead of weights.")
    ] = None,
    fusion: Annotated[
        Literal["weighted", "minmax", "zscore", "rrf"] | None,
        typer.Option(help="How the legs are fused.", show_default="weighted"),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits of a lower score.")] = None,
    diversity: Annotated[
        float | None, typer.Option(help="0 to 1: how much a hit loses for being like those before it.")
    ] = None,
    per_document: Annotated[int | None, typer.Option(min=1, help="Most hits of one document.")] = None,
    filters: Filters = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each leg's score and rank, and what matched.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the passages nearest to a question."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    settings = load_settings(index=index, model=model, top_k=top_k, mode=mode, weights=weights)
    options: SearchOptions = {
        "filter": parse_filters(filters) or None,
        "weights": weights,
        "alpha": alpha,
        "fusion": fusion,
        "score_threshold": min_score,
        "diversity": diversity,
        "group_by_document": per_document,
    }
    with KnowledgeBase(settings=settings) as kb:
        hits = kb.search(query, **options)
        why = None if hits else kb.why_empty(query, **options)
        explanations: Sequence[list[TokenMatch] | None] = kb.explain(query, hits) if explain else [None] * len(hits)
    if as_json:
        found = [_as_dict(hit, explanation) for hit, explanation in zip(hits, explanations, strict=True)]
        print_json("search", {"query": query, "mode": settings.mode, "hits": found, **_why(why)})
    elif explain:
        _print_table(hits, [e for e in explanations if e is not None])
    else:
        for rank, hit in enumerate(hits, 1):
            typer.echo(f"{rank:>2}  {hit.score:.3f}  {place(hit.chunk.document_id, hit.chunk.page)}")
            typer.echo(f"    {one_line(hit.chunk.text, 110)}")
    if why is not None:
        note(f"no hit: {why.message}")


def _why(why: NoHits | None) -> dict[str, Any]:
    return {} if why is None else {"no_hits": asdict(why)}


def _as_dict(hit: Hit, explanation: list[TokenMatch] | None) -> dict[str, Any]:
    chunk = hit.chunk
    found: dict[str, Any] = {
        "document_id": chunk.document_id,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "headings": list(chunk.headings),
        "metadata": dict(chunk.metadata),
        "chunk_id": chunk.id,
        "score": hit.score,
        "scores": asdict(hit.scores),
        "ranks": asdict(hit.ranks),
        "found_by": list(hit.found_by),
    }
    if explanation is not None:
        found["tokens"] = [{"token": token, "contribution": score} for token, score in explanation]
    return found


def _print_table(hits: list[Hit], explanations: list[list[TokenMatch]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("#", "right"), ("document:page", "left"), ("fused", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("dense", "lexical", "colbert"):
        table.add_column(f"{name} (rank)", justify="right")
    table.add_column("top tokens")
    for rank, (hit, explanation) in enumerate(zip(hits, explanations, strict=True), 1):
        legs = [
            "-" if score is None else f"{score:.3f} ({number})"
            for score, number in (
                (hit.scores.dense, hit.ranks.dense),
                (hit.scores.lexical, hit.ranks.lexical),
                (hit.scores.colbert, hit.ranks.colbert),
            )
        ]
        tokens = " ".join(token.lstrip("▁") for token, _ in explanation)
        table.add_row(str(rank), place(hit.chunk.document_id, hit.chunk.page), f"{hit.score:.3f}", *legs, tokens)
    Console(width=None if Console().is_terminal else 140, markup=False, highlight=False).print(table)
