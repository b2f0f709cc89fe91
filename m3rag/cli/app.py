"""The `m3rag` command: its sub-commands, and which exit code means what."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from m3rag import __version__
from m3rag.cli.ask import ask
from m3rag.cli.chat import chat
from m3rag.cli.config import config
from m3rag.cli.console import EXIT_CODES
from m3rag.cli.demo import demo
from m3rag.cli.doctor import doctor
from m3rag.cli.encode import encode
from m3rag.cli.eval import evaluate
from m3rag.cli.export import export
from m3rag.cli.info import info
from m3rag.cli.ingest import ingest
from m3rag.cli.list import list_documents
from m3rag.cli.mcp import mcp
from m3rag.cli.mine import mine
from m3rag.cli.rebuild import rebuild
from m3rag.cli.rm import rm
from m3rag.cli.search import search
from m3rag.cli.serve import serve
from m3rag.cli.show import show
from m3rag.cli.train import train
from m3rag.cli.tune import tune
from m3rag.errors import ConfigurationError

BAD_CONFIGURATION = next(code for kind, code in EXIT_CODES if kind is ConfigurationError)


class _Commands(TyperGroup):
    """A refused value that the environment set is a bad configuration, and no wrong use of the command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            param = getattr(error, "param", None)
            source = error.ctx.get_parameter_source(param.name) if error.ctx and param and param.name else None
            if source is not None and source.name == "ENVIRONMENT":
                error.exit_code = BAD_CONFIGURATION
            raise


app = typer.Typer(
    name="m3rag",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Ask your documents: hybrid retrieval on BGE-M3's dense, lexical and ColBERT representations.",
    epilog="Exit codes: 0 ok, 1 problems found, 2 usage, 3 configuration, 4 index, 5 model, 130 interrupted.",
)
app.command()(demo)
app.command()(ingest)
app.command()(search)
app.command()(ask)
app.command()(chat)
app.command("list")(list_documents)
app.command()(show)
app.command()(rm)
app.command()(info)
app.command()(doctor)
app.command()(rebuild)
app.command("eval")(evaluate)
app.command()(tune)
app.command()(mine)
app.command()(train)
app.command()(serve)
app.command()(mcp)
app.command()(encode)
app.command()(export)
app.add_typer(config)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"m3rag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of m3rag itself."""
