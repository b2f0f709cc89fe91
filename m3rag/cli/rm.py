"""`m3rag rm`: documents out of the index."""

from __future__ import annotations

from typing import Annotated

import typer

from m3rag.cli.console import command, counted, print_json
from m3rag.cli.options import Debug, Index, Json


@command
def rm(
    documents: Annotated[
        list[str], typer.Argument(metavar="DOC", help="Documents as `m3rag list` names them.", show_default=False)
    ],
    index: Index = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove documents from the index; the files stay where they are."""
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    with KnowledgeBase(settings=load_settings(index=index)) as kb:
        removed = kb.remove(documents)
    if as_json:
        print_json("rm", {"removed": removed, "documents": documents})
    else:
        typer.echo(f"removed {counted(removed, 'document')}")
