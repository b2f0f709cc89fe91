"""`m3rag demo`: sample documents in several languages, three questions, cited answers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import typer

from m3rag._shared_data import shared_data
from m3rag._shell import quoted
from m3rag.cli.console import command, note, print_json, say
from m3rag.cli.options import Debug, JsonLines, Model, Quiet

QUESTIONS = (
    "Who founded the Debian project, and when?",
    "¿De qué se alimentan los patos?",
    "Do men and women have equal rights in marriage?",
)
"""Each is answered by a document in another language."""

DOCUMENTS = (
    Path(__file__).parents[2] / "examples" / "documents",  # in a checkout
    *shared_data("documents"),
)


@command
def demo(
    index: str = typer.Option("demo.index", "--index", "-i", help="Where the demo's index is kept."),
    model: Model = None,
    as_json: JsonLines = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ingest sample documents and answer three questions about them."""
    from m3rag.cli.answers import answer_dict, print_answer
    from m3rag.cli.ingest import run
    from m3rag.errors import InputError
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.settings import load_settings

    documents = next((folder for folder in DOCUMENTS if folder.is_dir()), None)
    if documents is None:
        raise InputError("the sample documents are not installed; `m3rag ingest FOLDER` takes your own")
    with KnowledgeBase(settings=load_settings(index=index, model=model)) as kb:
        note(f"Ingesting {documents} into {index} (the first time, a model is unpacked as well) ...")
        run(kb, [documents], quiet=quiet, as_json=as_json)
        for question in QUESTIONS:
            answer = kb.ask(question)
            if as_json:
                print_json("answer", answer_dict(question, answer))
            else:
                say(f"\n> {question}")
                print_answer(answer)
    note("\nAsk more, or see why a passage was found:")
    note(f'  {_typed()} ask --index {quoted(index)} "What do ducks eat?"')
    note(f'  {_typed()} search --explain --index {quoted(index)} "What do ducks eat?"')


def _typed() -> str:
    """How this very program is called: by its name, or by its path where no activated environment has it."""
    program = Path(sys.argv[0])
    found = shutil.which("m3rag")
    if program.name != "m3rag" or (found is not None and Path(found).resolve() == program.resolve()):
        return "m3rag"
    return quoted(os.path.relpath(program))
