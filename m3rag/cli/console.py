"""What reaches a person or a pipe: data on stdout, everything else on stderr, errors by exit code."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

import typer

from m3rag.errors import ConfigurationError, InputError, LLMError, M3RagError, ModelError, StoreError

P = ParamSpec("P")

FOUND_PROBLEMS, USAGE, CONFIGURATION, INDEX, MODEL, INTERRUPTED = 1, 2, 3, 4, 5, 130

EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (InputError, USAGE),
    (ConfigurationError, CONFIGURATION),
    (StoreError, INDEX),
    (ModelError, MODEL),
    (LLMError, MODEL),
    (ImportError, MODEL),
    (M3RagError, FOUND_PROBLEMS),
)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors m3rag raises on purpose into a message and an exit code.

    Anything else is a bug and keeps its traceback.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            note("interrupted: what was reported as done is kept")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output (head, less) has seen enough; nothing may be flushed to it any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FOUND_PROBLEMS) from None
        except (M3RagError, ImportError) as error:
            if kwargs.get("debug"):
                raise
            note(f"error: {error}")
            raise typer.Exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind))) from None

    return wrapped


def printable(text: str) -> str:
    r"""Text that any stream takes: bytes of a file name that are no Unicode are shown as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def note(text: str) -> None:
    """Tell a person something that is not data."""
    typer.echo(printable(text), err=True)


def print_json(schema: str, value: dict[str, Any]) -> None:
    """One JSON object on stdout, with the name and version of its shape."""
    typer.echo(printable(json.dumps({"schema": f"m3rag.{schema}/1", **value}, ensure_ascii=False, default=str)))


def shows_progress(*, quiet: bool, as_json: bool) -> bool:
    """Whether a progress bar may be drawn: on a terminal only, and not if told otherwise."""
    return not (quiet or as_json or os.environ.get("CI") or os.environ.get("NO_COLOR")) and sys.stderr.isatty()


def one_line(text: str, width: int) -> str:
    """Text on one line, cut to a width with an ellipsis."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def place(document_id: str, page: int | None) -> str:
    """Where something stands, as `document:page`."""
    return f"{document_id}:{page}" if page is not None else document_id
