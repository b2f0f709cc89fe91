"""`m3rag search`: the best passages, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3rag.cli.console import command, note, one_line, place, print_json
from m3rag.cli.options import Debug, Filters, Index, Json, Mode, Model, parse_filters

if TYPE_CHECKING:
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.retrieval import TokenMatch
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
    fusion: Annotated[Literal["weighted", "rrf"], typer.Option(help="How the legs are fused.")] = "weighted",
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
    chosen = parse_filters(filters)
    with KnowledgeBase(settings=settings) as kb:
        hits = kb.search(query, filter=chosen or None, fusion=fusion)
        explanations: Sequence[list[TokenMatch] | None] = kb.explain(query, hits) if explain else [None] * len(hits)
        if as_json:
            found = [_as_dict(hit, explanation) for hit, explanation in zip(hits, explanations, strict=True)]
            print_json("search", {"query": query, "mode": settings.mode, "hits": found})
        elif explain:
            _print_table(hits, [e for e in explanations if e is not None])
        else:
            for rank, hit in enumerate(hits, 1):
                typer.echo(f"{rank:>2}  {hit.score:.3f}  {place(hit.chunk.document_id, hit.chunk.page)}")
                typer.echo(f"    {one_line(hit.chunk.text, 110)}")
        if not hits:
            note(_why_nothing(kb, filters or []))


def _why_nothing(kb: KnowledgeBase, filters: list[str]) -> str:
    total, passing = kb.store.count(), kb.store.count(filter=parse_filters(filters) or None)
    if total == 0:
        return "no hit: the index is empty; fill it with `m3rag ingest FOLDER`"
    if passing == 0:
        return f"no hit: 0 of {total} chunks pass the filter {' '.join(filters)}"
    return f"no hit: none of {passing} chunks shares a token with the question; try --mode all"


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
        "scores": {"dense": hit.scores.dense, "lexical": hit.scores.lexical, "colbert": hit.scores.colbert},
        "ranks": {"dense": hit.ranks.dense, "lexical": hit.ranks.lexical, "colbert": hit.ranks.colbert},
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
