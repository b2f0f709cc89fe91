"""The command line: one file a command."""

from m3rag.cli.app import main

__all__ = ["main"]
