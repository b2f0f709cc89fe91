"""What reaches a person or a pipe: data on stdout, everything else on stderr, errors by exit code."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, overload

import typer

from m3rag.cli.dotenv_lines import tell_lines_once
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


UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Signs that a terminal would obey, and halves of signs that no stream takes; a tab and a line's end are neither."""

UNREAD = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that it cannot decode."""

LINE_ENDS = re.compile("[\t\n\u2028\u2029]")


@overload
def command(function: Callable[P, None]) -> Callable[P, None]: ...
@overload
def command(*, tells_variables: bool) -> Callable[[Callable[P, None]], Callable[P, None]]: ...
def command(
    function: Callable[P, None] | None = None, *, tells_variables: bool = True
) -> Callable[P, None] | Callable[[Callable[P, None]], Callable[P, None]]:
    """Turn errors into a message and an exit code; `--debug` lets them through, for their traceback.

    Before anything else it tells of variables that look like settings and are none, unless told not to.
    """
    if function is None:
        return functools.partial(command, tells_variables=tells_variables)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        _escape_on_narrow_streams()
        tell_lines_once()
        try:
            if tells_variables:
                _tell_unknown_variables()
            function(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            note("interrupted: what was reported as done is kept")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output (head, less) has seen enough; nothing may be flushed to it any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FOUND_PROBLEMS) from None
        except Exception as error:  # whatever it is, a user wants a line and not a page of our code
            if kwargs.get("debug"):
                raise
            raise typer.Exit(tell_error(error)) from None

    return wrapped


def tell_error(error: Exception) -> int:
    """Say in a line what went wrong; returns the exit code that it means."""
    if isinstance(error, (M3RagError, ImportError)):
        note(f"error: {error}")
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    if isinstance(error, OSError):
        note(f"error: {error}; run it with --debug to see where")
        return FOUND_PROBLEMS
    if isinstance(error, MemoryError):
        note(f"error: there is not enough memory ({error}): close other programs, or raise the limit (ulimit -v)")
        return FOUND_PROBLEMS
    told = " ".join(f"{type(error).__name__}: {error}".split())
    note(f"error: {one_line(told, 300)}; this is a bug in m3rag: run it with --debug to see where, and report that")
    return FOUND_PROBLEMS


def _escape_on_narrow_streams() -> None:
    """Signs that the encoding of stdout lacks are escaped, as Python does on stderr, instead of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _tell_unknown_variables() -> None:
    from m3rag.doctor.variables import unknown_variables

    for variable in unknown_variables():
        note(f"note: {variable.message}")


def printable(text: str) -> str:
    r"""Text that any stream takes and no terminal obeys: control characters and bytes of file names as `\u001b`."""
    return UNSHOWN.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)


def in_line(text: str) -> str:
    r"""A name or a title as a part of one line: whatever would end the line or move in it is `\u000a` too."""
    return LINE_ENDS.sub(lambda sign: f"\\u{ord(sign[0]):04x}", printable(text))


def typed(question: str, encoding: str | None = None) -> str:
    """A question as it was typed; by default one of the command line.

    Raises:
        InputError: If it holds bytes that are no text in this encoding: what was meant cannot be known.
    """
    if UNREAD.search(question):
        raise InputError(
            f"the question {question!r} is no text in {encoding or sys.getfilesystemencoding()}, which is the "
            "encoding here: write it in that, or name its own in LC_ALL (or PYTHONUTF8=1 for UTF-8)"
        )
    return question


def say(text: str = "") -> None:
    """Print data for people: text from documents and models may hold anything, so that it is made printable."""
    typer.echo(printable(text))


def note(text: str) -> None:
    """Tell a person something that is not data."""
    typer.echo(printable(text), err=True)


def print_json(schema: str, value: dict[str, Any]) -> None:
    """One JSON object on stdout, with the name and version of its shape."""
    narrow = isinstance(sys.stdout, io.TextIOWrapper) and "utf" not in sys.stdout.encoding.lower()
    typer.echo(printable(json.dumps({"schema": f"m3rag.{schema}/1", **value}, ensure_ascii=narrow, default=str)))


def shows_progress(*, quiet: bool, as_json: bool) -> bool:
    """Whether a progress bar may be drawn: on a terminal only, and not if told otherwise."""
    return not (quiet or as_json or os.environ.get("CI") or os.environ.get("NO_COLOR")) and sys.stderr.isatty()


def one_line(text: str, width: int) -> str:
    """Text on one line, cut to a width with an ellipsis."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 chunk`, `305 chunks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def place(document_id: str, page: int | None) -> str:
    """Where something stands, as `document:page`, in one line."""
    return f"{in_line(document_id)}:{page}" if page is not None else in_line(document_id)
