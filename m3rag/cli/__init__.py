"""The command line: one file a command."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the `m3rag` command."""
    _open_closed_streams()
    try:
        # Imported here: it takes its time, and Ctrl-C may come meanwhile.
        from m3rag.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # of typer's own output, such as --help; commands see to theirs
        if "--debug" in sys.argv:
            raise
        from m3rag.cli.console import tell_error

        sys.exit(tell_error(error))


def _open_closed_streams() -> None:
    """Streams that who started us has closed are empty ones, lest a file of the index takes the number of stderr."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open as long as we run
