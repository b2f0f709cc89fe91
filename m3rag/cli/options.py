"""Options that several commands share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3rag.types import MOST

if TYPE_CHECKING:
    from m3rag.retrieval import SearchOptions

Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        "-i",
        envvar="M3RAG_INDEX",
        help="The index: a folder, http://HOST:6333/COLLECTION (Qdrant) or chroma:FOLDER.",
        show_default="m3rag-index",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="M3RAG_MODEL",
        help="mini, BAAI/bge-m3 or a checkpoint folder.",
        show_default="the index's own; mini for a new one",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object an answer instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        envvar="M3RAG_MODE",
        help="dense, lexical, colbert, dense+lexical, all, bm25 or dense+bm25.",
        show_default="all",
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", "-f", help="KEY=VALUE a chunk's metadata must have; document_id=... for one document."),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", "-k", min=1, max=MOST, envvar="M3RAG_TOP_K", help="Most hits.", show_default="10"),
]
Passages = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        "-k",
        min=1,
        max=MOST,
        envvar="M3RAG_ANSWER_PASSAGES",
        help="Passages an answer is made from.",
        show_default="5",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        envvar="M3RAG_WEIGHTS",
        help="miracl, mkqa, mldr, or dense/lexical/colbert such as 1/0.3/1.",
        show_default="learned, else miracl",
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(help="Part of the dense leg, 0 to 1, in dense+lexical or dense+bm25; instead of weights."),
]
Fusion = Annotated[
    Literal["weighted", "minmax", "zscore", "rrf"] | None,
    typer.Option(help="How the legs are fused.", show_default="weighted; minmax with dense+bm25 or --alpha"),
]
MinScore = Annotated[float | None, typer.Option(help="Leave out hits of a lower score.")]
Diversity = Annotated[float | None, typer.Option(help="0 to 1: how much a hit loses for being like those before it.")]
PerDocument = Annotated[int | None, typer.Option(min=1, max=MOST, help="Most hits of one document.")]
RerankerName = Annotated[
    str | None,
    typer.Option(
        "--reranker",
        envvar="M3RAG_RERANKER",
        help="none, colbert, or a cross-encoder (hub id or folder).",
        show_default="learned, else none",
    ),
]


def path_of(text: str) -> Path:
    """A path of the command line, for typer's `parser`: `Path("")`, of a variable that is not set, would be the folder
    that one is in.

    Raises:
        typer.BadParameter: If it is empty.
    """
    if not text:
        raise typer.BadParameter("the path is empty: write . if the current folder is meant")
    return Path(text)


JSON_SCALAR = re.compile(r"true|false|-?(0|[1-9]\d{0,14})(\.\d{1,14})?")


def parse_filters(pairs: list[str] | None) -> dict[str, list[str | int | float | bool]]:
    """`["lang=fr", "lang=de"]` to `{"lang": ["fr", "de"]}`: values of one key are alternatives.

    What reads as a number or as true or false is allowed in that form too, since the shell has
    only text: `year=2020` finds 2020 and "2020".

    Raises:
        typer.BadParameter: If there is no `=`, or a comparison is meant, which would find nothing as a key's name.
    """
    found: dict[str, list[str | int | float | bool]] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--filter")
        if key.endswith(("<", ">", "!")) or value.startswith('{"$'):
            raise typer.BadParameter(
                f"{pair!r} compares, --filter takes KEY=VALUE alone: use operators such as $gte in Python "
                "(kb.search(filter=...)), or over REST",
                param_hint="--filter",
            )
        found.setdefault(key, []).append(value)
        if JSON_SCALAR.fullmatch(value) and key != "document_id":  # which is text
            found[key].append(json.loads(value))
    return found


def search_options(
    *,
    filters: list[str] | None,
    weights: str | None,
    alpha: float | None,
    fusion: Literal["weighted", "minmax", "zscore", "rrf"] | None,
    min_score: float | None,
    diversity: float | None,
    per_document: int | None,
    k: int | None = None,
) -> SearchOptions:
    """The options of a search, from those of a command; mode and reranker are settings."""
    return {
        "k": k,
        "filter": parse_filters(filters) or None,
        "weights": weights,
        "alpha": alpha,
        "fusion": fusion,
        "score_threshold": min_score,
        "diversity": diversity,
        "group_by_document": per_document,
    }
