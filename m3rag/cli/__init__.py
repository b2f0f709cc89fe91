"""The command line: one file a command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the `m3rag` command."""
    try:
        # Imported here: it takes its time, and Ctrl-C may come meanwhile.
        from m3rag.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
