"""Options that several commands share."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

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


JSON_SCALAR = re.compile(r"true|false|-?(0|[1-9]\d{0,14})(\.\d{1,14})?")


def parse_filters(pairs: list[str] | None) -> dict[str, list[str | int | float | bool]]:
    """`["lang=fr", "lang=de"]` to `{"lang": ["fr", "de"]}`: values of one key are alternatives.

    What reads as a number or as true or false is allowed in that form too, since the shell has
    only text: `year=2020` finds 2020 and "2020".

    Raises:
        typer.BadParameter: If there is no `=`.
    """
    found: dict[str, list[str | int | float | bool]] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--filter")
        found.setdefault(key, []).append(value)
        if JSON_SCALAR.fullmatch(value):
            found[key].append(json.loads(value))
    return found
